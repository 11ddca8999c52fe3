//! Disks in a real pool for an engine whose other outside is simulated. A folder with a file `pool` beside its world has its
//! pools in a namespace of the tests' Ceph: all that the engine believes to be a pool lies there. The script of faults acts
//! around the real driver as it does in the simulators. What is in the namespace is told by Ceph itself (`pool.py`).
//!
//! It must never be used without a namespace of the test's own.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up has to fail"
)]

#[path = "inside.rs"]
mod inside;

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bmi::model::{Kind, Place, RbdExport, RbdPlace};
use bmi::step::look::PlaceKey;
use bmi::step::{Backing, BackingKind, Clone, Fact, Look, OpenStore, Remove, Scope, Seen, StorageStep};
use bmid::drivers::sim::World;
use bmid::drivers::storage::file::Detached;
use bmid::drivers::storage::rbd::RbdStore;
use bmid::drivers::storage::sim::point;
use bmid::drivers::{Done, Driver, DriverError, DriverSet, StepCx, Unseal};
use serde::{Deserialize, Serialize};

pub use self::inside::Inside;
use self::inside::ask;
use crate::ceph::Ceph;

/// The line that makes the datastore.
pub const LINE: &str = "datastore create pool --kind rbd --pool tests --conf /etc/ceph/tests.conf --id tests";

/// The same for a second one.
pub const FAST: &str = "datastore create fast --kind rbd --pool fast --conf /etc/ceph/tests.conf --id tests";

/// A remark in a script: before anything else, a process makes a clone of each golden image and removes it, so that the driver knows what librbd
/// writes.
pub const ALIKE: &str = "# alike\n";

/// Where the disks of a test are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disks {
    /// In simulated folders.
    Simulated,
    /// In a real pool, where no two tests share a byte.
    Pool,
}

thread_local! {
    /// The places that the test of this thread was given.
    static GIVEN: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
}

impl Disks {
    /// Does something where they can be reached.
    pub fn reach<T: Send>(self, f: impl FnOnce() -> T + Send) -> T {
        match self {
            Disks::Simulated => f(),
            Disks::Pool => ceph().inside(f),
        }
    }

    /// Runs a test on them. Behind it nothing may be left in a pool that belongs to nobody.
    pub fn play<F: Future<Output = ()>>(self, test: impl FnOnce(Disks) -> F + Send) {
        self.reach(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(test(self));
            drop(runtime);
            for pool in GIVEN.take() {
                let (wrong, _) = pool.settled();
                assert!(wrong.is_empty(), "left in the pool: {wrong:#?}");
            }
        });
    }

    /// Gives a folder a place for its disks that no other has.
    pub fn give(self, dir: &Path) {
        if self == Disks::Pool {
            let pool = Pool::fresh();
            pool.put(dir);
            GIVEN.with_borrow_mut(|all| all.push(pool));
        }
    }

    /// What has to be said before an image is imported.
    pub fn ground(self) -> &'static [&'static str] {
        match self {
            Disks::Simulated => &[],
            Disks::Pool => &[LINE],
        }
    }

    /// A line for these disks: images are imported to them.
    pub fn line(self, line: &str) -> String {
        match self {
            Disks::Pool if line.starts_with("image import ") => format!("{line} --datastore {}", self.datastore()),
            _ => line.to_owned(),
        }
    }

    /// The datastore that has the images.
    pub fn datastore(self) -> &'static str {
        match self {
            Disks::Simulated => "default",
            Disks::Pool => "pool",
        }
    }

    /// Those of a folder.
    pub fn of(dir: &Path) -> Disks {
        if dir.join("pool").exists() { Disks::Pool } else { Disks::Simulated }
    }
}

/// The cluster of this program. Its objects are in memory: what is killed here are clients, and there are many of them.
pub fn ceph() -> &'static Ceph {
    static CEPH: OnceLock<Ceph> = OnceLock::new();
    CEPH.get_or_init(Ceph::in_memory)
}

/// A namespace of a test's own, and one beside it: a datastore has a pool of its own, and some tests make a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    conf: PathBuf,
    namespace: String,
}

impl Pool {
    /// A fresh one.
    pub fn fresh() -> Pool {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("n{}", NEXT.fetch_add(1, Ordering::Relaxed));
        ask(&format!("make {namespace}"));
        Pool { conf: ceph().conf(), namespace }
    }

    /// The one of a folder, if it has one.
    pub fn of(dir: &Path) -> Option<Pool> {
        let text = fs::read(dir.join("pool")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Gives it to a folder.
    pub fn put(&self, dir: &Path) {
        fs::write(dir.join("pool"), serde_json::to_vec(self).unwrap()).unwrap();
    }

    /// Has steps done in it that were done in another: the same disks under the same ids.
    pub fn replay(&self, dir: &Path) {
        let driver = Pools::new(dir, self.clone());
        steps(dir).iter().for_each(|step| driver.redo(step));
    }

    /// Adds a disk that no record wants: another generation of a volume that is there.
    pub fn spoil(&self, dir: &Path) {
        let volume = |s: &StorageStep| match s {
            StorageStep::Clone(s) if s.to.kind == BackingKind::Volume => Some(s.clone()),
            _ => None,
        };
        let mut clone = steps(dir).iter().find_map(volume).expect("a volume");
        clone.to.generation = 7;
        let driver = Pools::new(dir, self.clone());
        driver.redo(&StorageStep::Clone(clone.clone()));
        driver.note(&StorageStep::Clone(clone), None);
    }

    /// What is in it.
    pub fn look(&self) -> Inside {
        serde_json::from_value(ask(&format!("look {}", self.namespace))).unwrap()
    }

    fn place(&self, of: &RbdPlace) -> RbdPlace {
        let beside = if of.pool == "fast" { "-fast" } else { "" };
        RbdPlace {
            pool: "rbd".to_owned(),
            namespace: Some(format!("{}{beside}", self.namespace)),
            conf: self.conf.to_str().unwrap().to_owned(),
            user: "admin".to_owned(),
            keyring: None,
            ..of.clone()
        }
    }

    /// Has the background of its datastores do what is left to do, opens what dead processes have left locked, and says what is
    /// still wrong then, and how many disks were opened. Called where the cluster can be reached, when no engine uses it any more.
    pub fn settled(&self) -> (Vec<String>, usize) {
        let scratch = tempfile::tempdir().unwrap();
        let driver = RbdStore::new(scratch.path().join("scratch"), Box::new(Detached));
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let inside = self.look();
            let wrong = inside.wrong();
            if !wrong.is_empty() && Instant::now() > end {
                return (wrong, 0);
            }
            if wrong.is_empty() {
                let said = ask(&format!("open {}", self.namespace));
                let names =
                    |key: &str| said[key].as_array().unwrap().iter().map(|n| format!("{n} stays locked")).collect();
                let (opened, left): (Vec<String>, Vec<String>) = (names("opened"), names("left"));
                return (left, opened.len());
            }
            for (datastore, namespace) in &inside.stores {
                let datastore = datastore.parse().unwrap();
                let any = RbdPlace {
                    pool: namespace.rsplit('-').next().unwrap_or_default().to_owned(),
                    namespace: None,
                    conf: String::new(),
                    user: String::new(),
                    keyring: None,
                    datastore,
                    export: RbdExport::Auto,
                };
                let open = OpenStore { datastore, place: Place::Rbd(self.place(&any)) };
                driver.apply(&StorageStep::OpenStore(open), &StepCx::PLAIN).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The steps that were done for the engine of a folder.
fn steps(dir: &Path) -> Vec<StorageStep> {
    let text = fs::read_to_string(dir.join("steps")).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Simulators over a folder, with real pools if it has one.
pub fn drivers(dir: &Path, unseal: Arc<dyn Unseal>) -> DriverSet {
    let mut set = DriverSet::sim(&dir.join("world"), unseal).expect("simulators");
    if let Some(pool) = Pool::of(dir) {
        let mut pools = Pools::new(dir, pool);
        pools.learn();
        pools.folders = std::mem::replace(&mut set.storage, Box::new(Nothing));
        set.storage = Box::new(pools);
    }
    set
}

/// The storage driver: pools are real, folders are simulated.
struct Pools {
    dir: PathBuf,
    world: World,
    folders: Box<dyn Driver<Step = StorageStep>>,
    real: RbdStore,
    pool: Pool,
}

impl Pools {
    fn new(dir: &Path, pool: Pool) -> Pools {
        Pools {
            dir: dir.to_owned(),
            world: World::open(&dir.join("world")).unwrap(),
            folders: Box::new(Nothing),
            real: RbdStore::new(dir.join("scratch"), Box::new(Detached)),
            pool,
        }
    }

    /// A step in our namespace.
    fn there(&self, step: &StorageStep) -> StorageStep {
        let mut step = step.clone();
        let place = match &mut step {
            StorageStep::MakeStore(s) => &mut s.place,
            StorageStep::UnmakeStore(s) => &mut s.place,
            StorageStep::Import(s) => &mut s.place,
            StorageStep::Clone(s) => &mut s.place,
            StorageStep::Remove(s) => &mut s.place,
            StorageStep::Export(s) => &mut s.place,
            StorageStep::OpenStore(s) => &mut s.place,
            StorageStep::SetNote(s) => &mut s.place,
            StorageStep::AdoptStore(s) => &mut s.place,
            StorageStep::TakeOver(s) => &mut s.place,
        };
        if let Place::Rbd(of) = place {
            *of = self.pool.place(of);
        }
        step
    }

    /// Does what was done elsewhere. A Ceph that all cases share and that is slow for a while is asked again; one that never
    /// answers is told.
    fn redo(&self, step: &StorageStep) {
        let there = self.there(step);
        let again = || {
            let input = match step {
                StorageStep::Import(s) => Some(File::open(self.dir.join("inputs").join(s.image.to_string())).unwrap()),
                _ => None,
            };
            self.real.apply(&there, &StepCx { input: input.as_ref(), ..StepCx::PLAIN })
        };
        let slow = |done: &Result<Done, DriverError>| done.as_ref().is_err_and(|e| e.kind == Kind::Unavailable);
        let tried = (0..4).map(|_| again()).find(|done| !slow(done));
        tried.unwrap_or_else(again).unwrap();
    }

    /// Notes what was done, for [`Pool::replay`].
    fn note(&self, step: &StorageStep, input: Option<&File>) {
        if let (StorageStep::Import(s), Some(input)) = (step, input)
            && let Ok(len) = input.metadata().map(|m| m.len())
        {
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            input.read_exact_at(&mut bytes, 0).unwrap();
            fs::create_dir_all(self.dir.join("inputs")).unwrap();
            fs::write(self.dir.join("inputs").join(s.image.to_string()), bytes).unwrap();
        }
        let text = serde_json::to_string(step).unwrap();
        let file = OpenOptions::new().create(true).append(true).open(self.dir.join("steps"));
        file.and_then(|mut f| f.write_all(format!("{text}\n").as_bytes())).unwrap();
    }

    /// What [`ALIKE`] asks for, of the images that are there.
    fn learn(&self) {
        let script = fs::read_to_string(self.dir.join("world/faults")).unwrap_or_default();
        if !script.contains(ALIKE) {
            return;
        }
        for step in steps(&self.dir) {
            let StorageStep::Import(s) = step else { continue };
            let to = Backing::volume(s.image, u32::MAX - std::process::id());
            let clone =
                Clone { datastore: s.datastore, place: s.place.clone(), from: Backing::image(s.image), to, note: None };
            // It may be gone, or be half removed.
            if self.real.apply(&self.there(&StorageStep::Clone(clone)), &StepCx::PLAIN).is_ok() {
                self.redo(&StorageStep::Remove(Remove { datastore: s.datastore, place: s.place, what: to }));
            }
        }
    }

    /// The script's remark `# strike STEP PASS MICROSECONDS` ends the process so long after that pass has begun: somewhere
    /// in the middle of the step, or just behind it.
    fn strike(&self, name: &str) {
        let script = fs::read_to_string(self.dir.join("world/faults")).unwrap_or_default();
        let pass = self.world.hits(&format!("{name}.before"));
        for line in script.lines() {
            if let ["#", "strike", step, when, after] = line.split(' ').collect::<Vec<_>>().as_slice()
                && *step == name
                && when.parse() == Ok(pass)
            {
                let after = Duration::from_micros(after.parse().unwrap());
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
                });
            }
        }
    }

    fn carry_out(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let (staged, failed) = (AtomicBool::new(false), Mutex::new(None));
        let progress = |done: u64, of: Option<u64>| {
            if matches!(step, StorageStep::Import(_)) && !staged.swap(true, Ordering::Relaxed) {
                *failed.lock().unwrap() = self.world.cut("storage.import.staged").err();
            }
            (cx.progress)(done, of);
        };
        let cancelled = || failed.lock().unwrap().is_some() || (cx.cancelled)();
        let done =
            self.real.apply(&self.there(step), &StepCx { input: cx.input, progress: &progress, cancelled: &cancelled });
        match failed.lock().unwrap().take() {
            Some(e) if done.is_err() => Err(e),
            _ => done,
        }
    }
}

impl Driver for Pools {
    type Step = StorageStep;

    fn apply(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        if matches!(step.place().1, Place::Folder { .. }) {
            return self.folders.apply(step, cx);
        }
        self.world.cut(&format!("{}.before", point(step)))?;
        self.strike(point(step));
        let done = self.carry_out(step, cx)?;
        self.note(step, cx.input);
        self.world.cut(&format!("{}.after", point(step)))?;
        Ok(done)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Datastore { datastore, place: Place::Rbd(of) } => {
                self.real.observe(&Scope::Datastore { datastore: *datastore, place: Place::Rbd(self.pool.place(of)) })
            }
            _ => self.folders.observe(scope),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        let there = |key: &PlaceKey| PlaceKey { rbd: key.rbd.as_ref().map(|of| self.pool.place(of)), ..key.clone() };
        match look {
            Look::Datastore(id, key) if key.rbd.is_some() => self.real.look(&Look::Datastore(*id, there(key))),
            Look::Contents(id, key) if key.rbd.is_some() => self.real.look(&Look::Contents(*id, there(key))),
            Look::Stores(key) if key.rbd.is_some() => self.real.look(&Look::Stores(there(key))),
            _ => self.folders.look(look),
        }
    }
}

/// Stands where no driver is asked.
struct Nothing;

impl Driver for Nothing {
    type Step = StorageStep;

    fn apply(&self, _: &StorageStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        unreachable!("nobody asks it")
    }

    fn observe(&self, _: &Scope) -> Result<Vec<Seen>, DriverError> {
        unreachable!("nobody asks it")
    }

    fn look(&self, _: &Look) -> Option<Result<Fact, DriverError>> {
        unreachable!("nobody asks it")
    }
}
