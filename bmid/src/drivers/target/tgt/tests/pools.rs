//! Disks in a pool of a real Ceph, through tgtd's own rbd module and with the guard preloaded.

use bmi::model::{Format, Place, RbdExport, RbdPlace};
use bmi::step::{Backing, Clone as CloneStep, DropTarget, Import, Lun, MakeStore, MakeTarget, Step, SwapLun};

use super::initiator::{BLOCK, MOST, Session};
use super::*;
use crate::drivers::storage::file::Detached;
use crate::drivers::storage::rbd::RbdStore;
use crate::drivers::storage::rbd::tests::ceph::{ceph, guard, own_kernel};
use crate::drivers::target::conformance::INITIATOR;

/// A pool with one golden image, and a tgtd where its monitor can be reached.
pub(super) struct House {
    store: Arc<RbdStore>,
    place: RbdPlace,
    _scratch: tempfile::TempDir,
    pub(super) tgtd: Tgtd,
}

pub(super) const ID: Id = Id([9; 16]);

impl House {
    pub(super) fn new(pool: &str) -> House {
        House::of(pool, 64 << 20)
    }

    /// One whose disks have so many bytes.
    pub(super) fn of(pool: &str, size: u64) -> House {
        // Both ways run beside one another in one cluster.
        let pool = &if own_kernel() { mapped(pool) } else { made(pool.to_owned()) };
        let scratch = tempfile::tempdir().unwrap();
        let store = Arc::new(RbdStore::new(scratch.path().join("scratch"), Box::new(Detached)));
        let place = RbdPlace {
            pool: pool.to_owned(),
            namespace: None,
            conf: ceph().conf().to_str().unwrap().to_owned(),
            user: "admin".to_owned(),
            keyring: None,
            datastore: Id::from_random([77; 16]),
            export: if own_kernel() { RbdExport::Kernel } else { RbdExport::Librbd },
        };
        let tgtd = start(tempfile::tempdir().unwrap(), &store);
        let house = House { store, place, _scratch: scratch, tgtd };
        ceph().inside(|| {
            let note = crate::drivers::storage::store_note();
            let datastore = house.place.datastore;
            house.store(MakeStore { datastore, engine: ID, place: house.at(), note }, None);
            let input = tempfile::tempfile().unwrap();
            input.set_len(size).unwrap();
            house.store(
                Import {
                    datastore: house.place.datastore,
                    place: house.at(),
                    image: ID,
                    staging: "golden".to_owned(),
                    format: Some(Format::Raw),
                    size: None,
                    sha256: None,
                    max_size: bmi::model::Bytes(1 << 30),
                    note: None,
                },
                Some(&input),
            );
            for generation in [0, 1] {
                let (from, to) = (Backing::image(ID), Backing::volume(ID, generation));
                house.store(CloneStep { datastore, place: house.at(), from, to, note: None }, None);
            }
        });
        house
    }

    fn at(&self) -> Place {
        Place::Rbd(self.place.clone())
    }

    fn store(&self, step: impl Into<Step>, input: Option<&File>) {
        let Step::Storage(step) = step.into() else { unreachable!() };
        assert!(self.store.apply(&step, &StepCx { input, ..StepCx::PLAIN }).unwrap().changed);
    }

    pub(super) fn pool(&self) -> &str {
        &self.place.pool
    }

    pub(super) fn lun(&self, generation: u32) -> Lun {
        let path = Backing::volume(ID, generation).path(&self.at());
        let (serial, scsi_id) = ("bmi0123456789abcdef0".to_owned(), "0123456789abcdef".to_owned());
        Lun { number: 1, path, serial, scsi_id, pool: Some(self.place.clone()) }
    }

    pub(super) fn target(&self, tid: u32, lun: Lun) -> MakeTarget {
        let iqn = format!("iqn.2026-11.test:{tid}");
        MakeTarget {
            network: self.tgtd.network,
            tid,
            iqn,
            luns: vec![lun],
            initiator: INITIATOR.to_owned(),
            account: None,
        }
    }

    pub(super) fn apply(&self, step: impl Into<Step>) -> Result<bool, DriverError> {
        let Step::Target(step) = step.into() else { unreachable!() };
        ceph().inside(|| self.tgtd.driver.apply(&step, &StepCx::PLAIN)).map(|d| d.changed)
    }

    /// Runs one of libiscsi's programs on a target's disk.
    pub(super) fn iscsi(&self, program: &str, tid: u32, more: &[&str]) -> String {
        let iqn = format!("iqn.2026-11.test:{tid}");
        text(&ceph().inside(|| self.tgtd.iscsi(program, INITIATOR, None, &iqn, more)))
    }

    pub(super) fn writes(&self, tid: u32) -> bool {
        // Under a kernel of its own a few writes: hundreds take seconds there.
        let test = if own_kernel() { "--test=SCSI.Write16.DpoFua" } else { "--test=SCSI.Write16.Simple" };
        self.iscsi("iscsi-test-cu", tid, &["--dataloss", test]).contains("...passed")
    }

    fn lock(&self, generation: u32) -> String {
        let name = Backing::volume(ID, generation).rbd_name(&self.place.prefix());
        ceph().tool(&["rbd", "lock", "ls", &format!("{}/{name}", self.place.pool)])
    }
}

/// The pool of a test under a kernel of its own. It is made before: Ceph's tools are slow there.
pub(super) fn mapped(pool: &str) -> String {
    format!("{pool}-mapped")
}

pub(super) fn made(pool: String) -> String {
    ceph().tool(&["ceph", "osd", "pool", "create", &pool, "8", "8", "--size", "1"]);
    ceph().tool(&["rbd", "pool", "init", &pool]);
    pool
}

/// A tgtd as bmid starts it: with the guard. Its files lie in `dir`.
pub(super) fn start(dir: tempfile::TempDir, store: &Arc<RbdStore>) -> Tgtd {
    let run = dir.path().to_owned();
    start_at(&run, dir, store)
}

/// The same, its network beside others in a run folder.
fn start_at(run: &Path, dir: tempfile::TempDir, store: &Arc<RbdStore>) -> Tgtd {
    let slot = (std::process::id() as u16) << 8 | (SLOT.fetch_add(1, Ordering::Relaxed) & 0xff);
    let port = ceph().inside(|| TcpListener::bind((fill_address(slot), 0)).unwrap().local_addr().unwrap().port());
    let paths = Paths { state: dir.path().join("state"), run: run.to_owned() };
    let network = Id::from_random([slot as u8; 16]);
    fs::create_dir_all(paths.tgtd_socket(network).parent().unwrap()).unwrap();
    File::create(dir.path().join("file")).unwrap().set_len(64 << 20).unwrap();
    let log = File::options().append(true).create(true).open(dir.path().join("log")).unwrap();
    // setpriv: should this process be killed, tgtd goes with it.
    let mut command = ceph().command();
    command.args(["setpriv", "--pdeathsig", "KILL", "tgtd", "-f", "-C", "0", "-t", "1", "--iscsi"]);
    command.arg(format!("portal={}:{port}", fill_address(slot)));
    command.env("TGT_IPC_SOCKET", paths.tgtd_ipc(network)).env("LD_PRELOAD", guard());
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    fs::write(paths.network(network).join("tgtd/pid"), child.id().to_string()).unwrap();
    let pools: Arc<dyn Pools> = Arc::clone(store) as Arc<dyn Pools>;
    let driver = Tgt::new(paths, Arc::new(Plain)).with_pools(pools);
    let tgtd = Tgtd { child, dir, driver, network, slot, port };
    tgtd.wait();
    tgtd
}

#[test]
fn a_disk_in_a_pool_is_a_lun_like_any_other() {
    let house = House::new("lun");
    let target = house.target(1, house.lun(0));
    assert!(house.apply(target.clone()).unwrap());
    assert!(!house.apply(target.clone()).unwrap(), "again: {}", house.tgtd.log());
    let inquiry = house.iscsi("iscsi-inq", 1, &["-e", "1", "-c", "128"]);
    assert!(inquiry.contains("bmi0123456789abcdef0"), "its serial: {inquiry}");
    let capacity = house.iscsi("iscsi-readcapacity16", 1, &[]);
    assert!(capacity.contains("EXPONENT:3"), "blocks of 4 KiB: {capacity}");
    assert!(house.writes(1), "{}", house.tgtd.log());
    let swap = SwapLun {
        network: house.tgtd.network,
        tid: 1,
        iqn: target.iqn.clone(),
        to: house.lun(1),
        from: house.lun(0).path,
        force: true,
    };
    assert!(house.apply(swap.clone()).unwrap());
    assert!(!house.apply(swap).unwrap());
    assert!(house.writes(1));
    let missing = house.apply(house.target(2, house.lun(7))).unwrap_err();
    assert!(missing.kind == Kind::Unavailable && missing.why.contains("not there"), "{missing:?}");
    let iqn = target.iqn.clone();
    assert!(
        house
            .apply(DropTarget {
                network: house.tgtd.network,
                tid: 1,
                iqn,
                account: None,
                force: true,
                luns: vec![house.lun(1)]
            })
            .unwrap()
    );
    assert!(!house.tgtd.log().contains("AQ"), "no key in tgtd's log");
    assert_eq!(maps(&house), 0);
}

/// How many disks of the pool the kernel has mapped; none without its client.
fn maps(house: &House) -> usize {
    let all = fs::read_dir("/sys/bus/rbd/devices").into_iter().flatten();
    all.filter(|e| fs::read_to_string(e.as_ref().unwrap().path().join("pool")).unwrap().trim() == house.place.pool)
        .count()
}

#[test]
fn a_tgtd_without_the_guard_gets_no_disk_of_a_pool() {
    let house = House::new("bare");
    // As if this process were the tgtd.
    let pid = house.tgtd.driver.paths.network(house.tgtd.network).join("tgtd/pid");
    fs::write(pid, std::process::id().to_string()).unwrap();
    let served = house.apply(house.target(1, house.lun(0)));
    if own_kernel() {
        assert!(served.unwrap() && house.writes(1), "to tgtd it is no image, and nothing there ends it");
        return;
    }
    let e = served.unwrap_err();
    assert!(e.kind == Kind::Unavailable && e.why.contains("libbmid_rbdguard.so") && !e.fix.is_empty(), "{e:?}");
    let file = Lun { path: house.tgtd.disk("file"), pool: None, ..house.lun(0) };
    assert!(house.apply(house.target(1, file)).unwrap(), "files are served as ever");
}

#[test]
fn the_lock_of_a_tgtd_that_died_is_broken_before_its_disk_is_opened_again() {
    let mut house = House::new("lock");
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    assert!(house.writes(1));
    assert!(house.lock(0).contains("client."), "a disk that was written to is locked");
    house.tgtd.kill();
    let dead = house.lock(0);
    assert!(dead.contains("client."), "the dead owner's lock stays");
    house.tgtd = start(tempfile::tempdir().unwrap(), &house.store);
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    // The kernel's client is not dead: it keeps lock and disk.
    assert_eq!(
        house.lock(0),
        if own_kernel() { dead.as_str() } else { "" },
        "nothing is in the way of the first write"
    );
    assert!(house.writes(1));
    if own_kernel() {
        assert_eq!((house.lock(0), maps(&house)), (dead, 1));
        return;
    }
    assert!(house.lock(0).contains("client.") && house.lock(0) != dead);
}

impl House {
    pub(super) fn session(&self, tid: u32) -> Session {
        let portal = SocketAddr::from((fill_address(self.tgtd.slot), self.tgtd.port));
        let iqn = format!("iqn.2026-11.test:{tid}");
        ceph().inside(|| Session::open(portal, &iqn, INITIATOR, Duration::from_secs(60)).unwrap())
    }

    pub(super) fn image(&self, generation: u32) -> String {
        format!("{}/{}", self.place.pool, Backing::volume(ID, generation).rbd_name(&self.place.prefix()))
    }

    /// Threads and open files of the tgtd.
    fn size(&self) -> (usize, usize) {
        let count = |what| fs::read_dir(format!("/proc/{}/{what}", self.tgtd.child.id())).unwrap().count();
        (count("task"), count("fd"))
    }
}

/// Bytes that an image has of its own.
pub(super) fn stored(image: &str) -> u64 {
    let said = ceph().tool(&["rbd", "diff", image, "--format", "json"]);
    let extents: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    extents.iter().filter(|e| e["exists"] != "false").map(|e| e["length"].as_u64().unwrap()).sum()
}

#[test]
fn what_a_machine_gives_back_is_free_in_the_pool_and_reads_as_zeros() {
    let house = House::new("thin");
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    let mut machine = house.session(1);
    // 16 MiB, beginning at 8 MiB: four objects.
    let (first, blocks) = (8 << 11, 16 << 11);
    for at in (0..blocks).step_by(MOST / BLOCK) {
        machine.write(first + at as u64, &[7; MOST]).unwrap();
    }
    machine.flush().unwrap();
    assert_eq!(stored(&house.image(0)), 16 << 20, "what was written");
    // Less than librbd would give back by itself, and not at its bounds.
    machine.unmap(first + 3, 5).unwrap();
    let around = machine.read(first + 2, 7).unwrap();
    let (before, rest) = around.split_at(BLOCK);
    let (given, after) = rest.split_at(5 * BLOCK);
    assert!(before.iter().all(|b| *b == 7) && after.iter().all(|b| *b == 7), "its neighbours stay");
    assert!(given.iter().all(|b| *b == 0), "five blocks are zeros");
    machine.unmap(first, blocks as u32).unwrap();
    assert_eq!(stored(&house.image(0)), 0, "all of it is free again");
    assert!(machine.read(first + 100, 8).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn disks_of_one_pool_share_a_connection_whatever_comes_and_goes_first() {
    let house = House::new("share");
    let drop = |tid: u32| {
        let (network, iqn) = (house.tgtd.network, format!("iqn.2026-11.test:{tid}"));
        house.apply(DropTarget { network, tid, iqn, account: None, force: true, luns: Vec::new() }).unwrap()
    };
    let empty = house.size();
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    assert!(house.apply(house.target(2, house.lun(1))).unwrap());
    let asked = house.size();
    assert_eq!(asked.0, empty.0 + 2, "an I/O thread for each, and nobody has opened anything: {}", house.tgtd.log());
    assert!(house.writes(1));
    let one = house.size();
    assert!(house.writes(2));
    let two = house.size();
    // Sessions that end keep a file a moment longer.
    assert!(one.0 > asked.0 && two.0 == one.0 && two.1 <= one.1 + 2, "{empty:?}, {asked:?}, one {one:?}, two {two:?}");
    assert!(drop(1), "the one that made the connection goes first");
    assert!(house.writes(2), "{}", house.tgtd.log());
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    assert!(house.writes(1) && house.writes(2));
    assert_eq!(house.size().0, two.0);
    assert!(drop(2) && drop(1));
    assert!(house.size().0 <= empty.0 + 2, "nothing is left of the connection: {:?}, was {empty:?}", house.size());
    assert!(house.apply(house.target(1, house.lun(1))).unwrap());
    assert!(house.writes(1), "a new one: {}", house.tgtd.log());
}

#[test]
fn a_tgtd_that_lives_keeps_its_disks_when_another_is_given_one_of_them() {
    let mut house = House::new("lives");
    for (tid, generation) in [(1, 0), (2, 1)] {
        assert!(house.apply(house.target(tid, house.lun(generation))).unwrap());
        assert!(house.writes(tid));
    }
    // A node moves to another network: its new target is made before the old one goes.
    let run = house.tgtd.driver.paths.run.clone();
    let mut other = start_at(&run, tempfile::tempdir().unwrap(), &house.store);
    let moved = MakeTarget { network: other.network, ..house.target(1, house.lun(0)) };
    let Step::Target(step) = Step::from(moved) else { unreachable!() };
    assert!(ceph().inside(|| other.driver.apply(&step, &StepCx::PLAIN)).unwrap().changed, "{}", other.log());
    assert!(house.writes(2), "the old one serves its others: {}", house.tgtd.log());
    std::mem::swap(&mut house.tgtd, &mut other);
    assert!(house.writes(1), "the new one gets the lock when it asks: {}", house.tgtd.log());
    std::mem::swap(&mut house.tgtd, &mut other);
    assert!(house.writes(2) && house.tgtd.child.try_wait().unwrap().is_none(), "{}", house.tgtd.log());
}

#[test]
fn a_tgtd_that_ceph_has_shut_out_ends_instead_of_failing_every_disk_for_good() {
    let mut house = House::new("shut");
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    assert!(house.writes(1));
    let lock = house.lock(0);
    let address = lock.lines().find_map(|l| l.contains("client.").then(|| l.split_whitespace().last())).flatten();
    ceph().tool(&["ceph", "osd", "blocklist", "add", address.unwrap()]);
    assert!(house.session(1).write(0, &[1; BLOCK]).is_err());
    let ended = (0..1_500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        house.tgtd.child.try_wait().unwrap()
    });
    assert_eq!(ended.and_then(|s| s.code()), Some(108), "{}", house.tgtd.log());
    assert!(house.tgtd.log().contains("blocklist"), "it says why: {}", house.tgtd.log());
    house.tgtd = start(tempfile::tempdir().unwrap(), &house.store);
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    assert!(house.writes(1), "a new one is let in: {}", house.tgtd.log());
}

#[test]
fn a_disk_whose_ceph_is_silent_holds_up_nobody_else() {
    let house = House::new("mute");
    let file = Lun { path: house.tgtd.disk("file"), pool: None, ..house.lun(0) };
    assert!(house.apply(house.target(1, file)).unwrap());
    let silent = ceph().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let (folder, client) = (house.tgtd.driver.paths.network(house.tgtd.network).join("tgtd"), house.tgtd.client());
    let conf = format!("[global]\nmon_host = v2:{}\nclient_mount_timeout = 20\n", silent.local_addr().unwrap());
    fs::write(folder.join("mute.conf"), conf).unwrap();
    fs::write(folder.join("size.mute.disk"), (64 << 20).to_string()).unwrap();
    client.target_new(2, "iqn.2026-11.test:2").unwrap();
    client.lun_rbd(2, 1, "mute/disk", &format!("conf={};id=admin", folder.join("mute.conf").display())).unwrap();
    client.acl_bind(2, INITIATOR).unwrap();
    let (mut waits, mut other) = (house.session(2), house.session(1));
    std::thread::scope(|s| {
        let waits = s.spawn(move || waits.read(0, 8));
        // It has asked: its question is with Ceph, or with what passes for it.
        let _asked = silent.accept().unwrap();
        for _ in 0..50 {
            other.write(0, &[5; BLOCK]).unwrap();
        }
        assert!(house.apply(house.target(3, house.lun(0))).unwrap(), "and it takes disks meanwhile");
        assert!(!waits.is_finished(), "all that in the time of one question");
        assert!(waits.join().unwrap().is_err(), "{}", house.tgtd.log());
    });
}
