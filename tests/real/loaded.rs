//! tgtd is killed while machines write: each gets its disk back, writes on, and finds every byte that was acknowledged to it.
//! What a machine has not flushed counts, too: to it nothing happened but that a disk was slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bmi::model::Kind;
use serde_json::Value;

use crate::ceph::Ceph;
use crate::house::{pid_of, sh};
use crate::initiator::{BLOCK, MOST, Session};
use crate::rig::Rig;
use crate::store::Store;

/// Places on a disk that are written to in turn, and how far they are apart: 16 MiB, four objects.
const PLACES: u64 = 32;
const APART: u64 = (512 << 10) / BLOCK as u64;
/// What a machine waits for an answer, and for its disk to come back.
const PATIENCE: Duration = Duration::from_secs(120);
/// A dead owner's lock holds a write up for half a minute, unless it is broken.
const HELD_UP: Duration = Duration::from_secs(10);

/// What is written where, and when: no other write looks like it.
fn pattern(machine: u64, at: u64, turn: u64) -> Vec<u8> {
    let block = |n: u64| {
        let words = [machine, at + n, turn, turn.rotate_left(17) ^ at];
        words.iter().flat_map(|w| w.to_le_bytes()).cycle().take(BLOCK).collect::<Vec<u8>>()
    };
    (0..(MOST / BLOCK) as u64).flat_map(block).collect()
}

/// A machine's disk, as its initiator sees it.
#[derive(Clone)]
struct Disk {
    machine: u64,
    portal: SocketAddr,
    iqn: String,
    initiator: String,
}

impl Disk {
    fn of(machine: u64, node: &Value) -> Disk {
        let text = |field: &str| node[field].as_str().unwrap().to_owned();
        Disk { machine, portal: text("portal").parse().unwrap(), iqn: text("iqn"), initiator: text("initiator") }
    }

    /// Logs in as soon as it can.
    fn back(&self) -> Session {
        let begun = Instant::now();
        loop {
            match Session::open(self.portal, &self.iqn, &self.initiator, PATIENCE) {
                Ok(session) => return session,
                Err(e) if begun.elapsed() > PATIENCE => panic!("{} is not back: {e}", self.iqn),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Compares what is there with what was acknowledged. False: the disk went away meanwhile.
    fn holds(&self, session: &mut Session, told: &Told) -> bool {
        for (at, turn) in &told.acknowledged {
            let Ok(read) = session.read(*at, (MOST / BLOCK) as u32) else { return false };
            let word = |n: usize| u64::from_le_bytes(read[n..n + 8].try_into().unwrap());
            // A write that was cut off is there or is not.
            let new = told.cut_off.filter(|cut| cut.0 == *at && cut.1 == word(16)).map_or(*turn, |cut| cut.1);
            assert!(
                read == pattern(self.machine, *at, new),
                "block {at} of machine {} was acknowledged in turn {turn}, and there is turn {} of machine {}",
                self.machine,
                word(16),
                word(0)
            );
        }
        true
    }
}

/// One time that a disk was away, seen from its machine.
#[derive(Debug)]
struct Away {
    /// From the failure until it was logged in again.
    until_back: Duration,
    /// From then until the first write was acknowledged.
    first_write: Duration,
}

#[derive(Default)]
struct Told {
    /// Where, and in which turn.
    acknowledged: BTreeMap<u64, u64>,
    /// The last one, if nobody knows.
    cut_off: Option<(u64, u64)>,
    away: Vec<Away>,
}

/// Writes, whatever comes, until its disk goes away and it was told that this is the last time.
fn write(disk: &Disk, turns: &AtomicU64, last: &AtomicBool) -> Told {
    let (mut told, mut session) = (Told::default(), disk.back());
    loop {
        let turn = turns.load(Ordering::Relaxed) + 1;
        let at = turn % PLACES * APART;
        let data = pattern(disk.machine, at, turn);
        // Flushed now and then, as a file system does.
        let done = session.write(at, &data).and_then(|()| if turn % 50 == 7 { session.flush() } else { Ok(()) });
        if done.is_err() {
            told.cut_off = Some((at, turn));
            if last.load(Ordering::Relaxed) {
                return told;
            }
            let failed = Instant::now();
            session = disk.back();
            let begun = Instant::now();
            if session.write(at, &data).is_err() {
                // It went away again.
                continue;
            }
            told.away.push(Away { until_back: begun - failed, first_write: begun.elapsed() });
            told.acknowledged.insert(at, turn);
            disk.holds(&mut session, &told);
        }
        told.acknowledged.insert(at, turn);
        turns.store(turn, Ordering::Relaxed);
    }
}

struct Machine {
    disk: Disk,
    turns: Arc<AtomicU64>,
    last: Arc<AtomicBool>,
    writes: JoinHandle<Told>,
}

impl Machine {
    fn start(disk: Disk) -> Machine {
        let (turns, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (of, counts, ends) = (disk.clone(), Arc::clone(&turns), Arc::clone(&last));
        Machine { disk, turns, last, writes: std::thread::spawn(move || write(&of, &counts, &ends)) }
    }
}

/// Kills tgtd under machines that write to these nodes' disks, four times; each has to do so many writes between. All that was
/// acknowledged is compared each time.
pub async fn write_on(nodes: &[Value], writes: u64, what: &str) {
    let machines: Vec<Machine> =
        (1..).zip(nodes).map(|(number, node)| Machine::start(Disk::of(number, node))).collect();
    for round in 1..=4 {
        let wanted: Vec<u64> = machines.iter().map(|m| m.turns.load(Ordering::Relaxed) + writes).collect();
        let begun = Instant::now();
        while machines.iter().zip(&wanted).any(|(m, wanted)| m.turns.load(Ordering::Relaxed) < *wanted) {
            assert!(begun.elapsed() < 2 * PATIENCE, "a machine does not get on");
            assert!(machines.iter().all(|m| !m.writes.is_finished()), "a machine gave up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        machines.iter().for_each(|m| m.last.store(round == 4, Ordering::Relaxed));
        sh(&format!("kill -9 {}", pid_of("tgtd").expect("tgtd runs")));
    }
    let all: Vec<(Disk, Told)> = machines.into_iter().map(|m| (m.disk, m.writes.join().unwrap())).collect();
    for (disk, told) in &all {
        assert!(disk.holds(&mut disk.back(), told), "the disk is there");
    }
    let away: Vec<&Away> = all.iter().flat_map(|(_, told)| &told.away).collect();
    let longest = |of: fn(&Away) -> Duration| away.iter().map(|a| of(a)).max().unwrap_or_default();
    eprintln!(
        "{what}: tgtd killed under {} machines, their disks were away {} times, at most {:?}; the first write took at most {:?}",
        all.len(),
        away.len(),
        longest(|a| a.until_back),
        longest(|a| a.first_write)
    );
    assert!(all.iter().all(|(_, told)| !told.away.is_empty()), "each was cut off");
    assert!(longest(|a| a.first_write) < HELD_UP, "no write waits for a dead owner's lock: {away:?}");
}

/// A machine goes on when its tgtd ends, as if nothing had happened: what tgtd alone knew of would be lost to it.
fn is_not_acknowledged_before_ceph_has_it(cluster: &Ceph, node: &Value) {
    let disk = Disk::of(1, node);
    let mut session = disk.back();
    let [old, new] = [1, 2].map(|turn| pattern(1, 0, turn));
    session.write(0, &old).unwrap();
    // From the first flush on librbd would keep writes to itself for a while.
    session.flush().unwrap();
    cluster.signal("osd", "STOP");
    session.patience(Duration::from_secs(3));
    let acknowledged = session.write(0, &new).is_ok();
    cluster.signal("osd", "CONT");
    assert!(!acknowledged, "a write was acknowledged that no OSD has");
}

/// Who writes into a full pool waits without an end: so does a clone, and nobody could say why.
async fn a_full_pool_is_told_before_anything_is_cloned(rig: &Rig, cluster: &Ceph, pool: &str) {
    let quota = |objects: &str| cluster.tool(&["ceph", "osd", "pool", "set-quota", pool, "max_objects", objects]);
    let store = async |full: bool| {
        let told = |d: &Value| d["name"] == "ceph" && d["available"] == true && d["problem"].is_string() == full;
        for _ in 0..60 {
            if rig.run("datastore ls").await.items.iter().any(told) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("never full={full}: {:?}", rig.run("datastore ls").await.items);
    };
    quota("1");
    store(true).await;
    for line in ["node provision n9 --image golden --mac 52:54:00:00:00:09 --network net1", "tag create n1 full"] {
        let fault = rig.refuse(line).await;
        assert_eq!(fault.kind, Kind::Full, "{line}: {fault}");
        let said = fault.to_string();
        assert!(said.contains("has reached its quota") && said.contains(&format!("set-quota {pool}")), "{said}");
    }
    quota("0");
    store(false).await;
}

/// Four nodes whose tgtd is killed.
pub async fn outlive_their_tgtd(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let mut nodes = Vec::new();
    for n in 1..=4 {
        let line = format!("node provision n{n} --image golden --mac 52:54:00:00:00:0{n} --network net1");
        nodes.push(rig.run(&line).await.one().clone());
    }
    let Store::Pool { cluster, pool, .. } = store else { unreachable!("a pool was given") };
    is_not_acknowledged_before_ceph_has_it(cluster, &nodes[0]);
    write_on(&nodes, 300, "librbd").await;
    a_full_pool_is_told_before_anything_is_cloned(&rig, cluster, pool).await;
    for n in 1..=4 {
        rig.run(&format!("node deprovision n{n} --force")).await;
    }
    rig.run("image rm golden").await;
    rig.run("network rm net1").await;
    store.emptied(&rig).await;
}
