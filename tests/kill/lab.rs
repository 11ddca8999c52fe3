//! Where cases run: templates made once and copied for each case, two cases at a time, in memory where the system has a file
//! system there (what is killed here is a process, not a host). All of it goes with the last test that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::Instant;

use bmid::store::Store;
use tokio::runtime::Runtime;

use crate::child::{self, Job};
use crate::disks::{self, Disks, Pool};
use crate::rig::{Plain, Rig};
use crate::scenario::{BULK, FAST, GROUND, SCENARIOS, STRANGE, Scenario, Special};
use crate::shape::{self, Shape};

/// Cases at a time.
const WORKERS: usize = 2;
/// The datastore `default`: simulators never touch it.
pub const DEFAULT: &str = "/srv/bmid-kill/default";

/// A template that somebody makes.
type Cell = Arc<OnceLock<Arc<Template>>>;

/// What the tests share.
pub struct Lab {
    root: tempfile::TempDir,
    started: Instant,
    made: Mutex<BTreeMap<(usize, Disks), Cell>>,
    next: AtomicU64,
    free: (Mutex<usize>, Condvar),
    /// The places of real disks that were used.
    pools: Mutex<Vec<Pool>>,
}

/// A scenario ready to run.
pub struct Template {
    /// Which.
    pub scenario: Scenario,
    /// Where its disks are.
    pub disks: Disks,
    /// Its lines with names filled in.
    pub lines: Vec<String>,
    dir: PathBuf,
    /// Ids it knows.
    pub known: BTreeSet<String>,
    /// Before its command.
    pub before: Shape,
    /// After its repeated line has run whole.
    pub after: Shape,
    /// What else may come of it.
    pub also: Vec<Shape>,
    /// The points its run passes.
    pub trace: Vec<String>,
}

impl Lab {
    /// The one there is, or a new one.
    pub fn get() -> Arc<Lab> {
        static LAB: Mutex<Weak<Lab>> = Mutex::new(Weak::new());
        let mut lab = LAB.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lab.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Lab::new());
            *lab = Arc::downgrade(&new);
            new
        })
    }

    fn new() -> Lab {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
        for (name, byte) in [("golden.raw", 0x5a), ("other.raw", 0xa5)] {
            fs::write(root.path().join(name), vec![byte; 1 << 16]).expect("a disk");
        }
        let free = (Mutex::new(WORKERS), Condvar::new());
        Lab {
            root,
            started: Instant::now(),
            made: Mutex::default(),
            next: AtomicU64::new(0),
            free,
            pools: Mutex::default(),
        }
    }

    /// When the first test began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// A folder for one case, gone with what is given back.
    pub fn folder(&self) -> Folder {
        let path = self.root.path().join(format!("case{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("a folder");
        Folder(path)
    }

    /// Runs `f` on all items, as many at a time as there are workers in the whole program. Gives what failed.
    pub fn each<T: Sync>(&self, items: &[T], f: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _turn = self.turn();
                        let tried = catch_unwind(AssertUnwindSafe(|| f(item)));
                        let tried = tried.unwrap_or_else(|_| Err("it panicked; the words are above".to_owned()));
                        if let Err(why) = tried {
                            failed.lock().expect("no panic").push(why);
                        }
                    }
                });
            }
        });
        failed.into_inner().expect("no panic")
    }

    /// The places of real disks that were used since this was asked last.
    pub fn pools(&self) -> Vec<Pool> {
        std::mem::take(&mut self.pools.lock().expect("no panic"))
    }

    /// Waits for a worker to be free.
    fn turn(&self) -> Turn<'_> {
        let mut free = self.free.0.lock().expect("no panic");
        while *free == 0 {
            free = self.free.1.wait(free).expect("no panic");
        }
        *free -= 1;
        Turn(self)
    }

    /// A scenario made ready. `test` is a test that serves children.
    pub fn template(&self, test: &str, number: usize, disks: Disks) -> Result<Arc<Template>, String> {
        let cell = Arc::clone(self.made.lock().expect("no panic").entry((number, disks)).or_default());
        let made = cell.get_or_init(|| Arc::new(disks.reach(|| self.make(test, SCENARIOS[number], disks))));
        Ok(Arc::clone(made))
    }

    fn make(&self, test: &str, scenario: Scenario, disks: Disks) -> Template {
        let dir = self.root.path().join(format!("template{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).expect("a folder");
        let lab = self.root.path().to_str().expect("utf-8").to_owned();
        let fill = |l: &str| line(disks, l).replace("$LAB", &lab).replace("$OP", &child::op_id(0).to_string());
        disks.give(&dir);
        let mut lines: Vec<String> = scenario.lines.iter().map(|l| fill(l)).collect();
        let runtime = Runtime::new().expect("a runtime");
        if scenario.special != Special::FirstStart {
            let setup = disks.ground().iter().chain(GROUND).chain(scenario.setup);
            let setup: Vec<String> = setup.map(|l| fill(l)).collect();
            let volume = runtime.block_on(ready(&dir, &setup, &scenario));
            lines.iter_mut().for_each(|l| *l = l.replace("$VOLUME", &volume));
        }
        if scenario.op == "reconcile" {
            spoil(&dir);
        }
        if scenario.special == Special::Restore {
            let dump = dir.join("state.jsonl");
            lines.iter_mut().for_each(|l| *l = l.replace(&format!("{lab}/state.jsonl"), dump.to_str().expect("utf-8")));
            fs::remove_dir_all(dir.join("state")).expect("the state is lost");
        }
        let (before, known) = look(&dir, scenario.special);
        let template = Template {
            scenario,
            disks,
            lines,
            dir,
            known,
            after: before.clone(),
            before,
            also: Vec::new(),
            trace: Vec::new(),
        };
        self.tried(test, template, &runtime)
    }

    /// Runs it whole, in all the ways that tell what may come of it.
    fn tried(&self, test: &str, mut template: Template, runtime: &Runtime) -> Template {
        let special = template.scenario.special;
        let whole = |line: Option<&str>| {
            let folder = self.copy(&template);
            runtime.block_on(run_whole(&folder.0, line, special, &template.known))
        };
        let line = template.lines.get(template.scenario.repeat);
        let after = whole(line.map(|l| l.trim_start_matches(['&', ' '])));
        let also = if special == Special::Parts { BULK[..2].iter().map(|l| whole(Some(l))).collect() } else { vec![] };
        let folder = self.copy(&template);
        let died = child::run(test, &template.job(&folder.0, template.lines.clone()), template.scenario.faults);
        let died = died.unwrap_or_else(|e| panic!("{}: {e}", template.scenario.name()));
        assert_eq!(died.said.len(), template.lines.len(), "{}", template.scenario.name());
        (template.after, template.also, template.trace) = (after, also, died.trace);
        template
    }

    /// A template copied for a case.
    pub fn copy(&self, template: &Template) -> Folder {
        let folder = self.folder();
        copy(&template.dir, &folder.0);
        template.disks.give(&folder.0);
        if let Some(pool) = Pool::of(&folder.0) {
            pool.replay(&folder.0);
            self.pools.lock().expect("no panic").push(pool);
        }
        folder
    }
}

/// A line of a scenario, for disks that are there.
fn line(disks: Disks, line: &str) -> &str {
    if disks == Disks::Pool && line == FAST { disks::FAST } else { line }
}

impl Template {
    /// A child's job in a copy of it.
    pub fn job(&self, dir: &Path, lines: Vec<String>) -> Job {
        Job { dir: dir.to_owned(), lines, default: self.scenario.special.default(), reconcile: false }
    }
}

impl Special {
    /// The datastore made at first start.
    pub fn default(self) -> Option<PathBuf> {
        (self != Special::Restore).then(|| PathBuf::from(DEFAULT))
    }
}

/// A folder that goes with this.
pub struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Turn<'a>(&'a Lab);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
        self.0.free.1.notify_one();
    }
}

/// An engine over a folder, and its store to look into.
pub fn engine(dir: &Path, store: Store, special: Special, reconcile: bool) -> (Rig, Store) {
    let drivers = disks::drivers(dir, Arc::new(Plain));
    (Rig::over(dir, store.clone(), drivers, special.default(), reconcile), store)
}

/// Brings an engine to where a scenario begins; gives the id of the first volume.
async fn ready(dir: &Path, setup: &[String], scenario: &Scenario) -> String {
    let special = scenario.special;
    let (rig, store) = engine(dir, Rig::open(dir), Special::None, false);
    rig.until("datastore show default", |a| a["state"] == "active").await;
    for (n, line) in setup.iter().enumerate() {
        if n + scenario.setup.len() == setup.len() {
            strangers(dir, scenario);
        }
        rig.run(line).await;
    }
    if scenario.setup.is_empty() {
        strangers(dir, scenario);
    }
    if special == Special::Restore {
        rig.run(&format!("state dump {}", dir.join("state.jsonl").display())).await;
    }
    let volumes = rig.run("volume ls").await.items;
    rig.stop().await;
    drop(store);
    hollow(&dir.join("state/reserve"));
    volumes.first().and_then(|v| v["id"].as_str()).unwrap_or_default().to_owned()
}

/// A reserve without its space: that is not needed here, would fill the memory, and copying it would be most of the work.
fn hollow(reserve: &Path) {
    fs::File::create(reserve).and_then(|f| f.set_len(64 << 20)).expect("a reserve");
}

/// Takes away what a reconcile puts back, and puts there what it takes away.
fn spoil(dir: &Path) {
    let objects = dir.join("world/objects");
    if let Some(pool) = Pool::of(dir) {
        pool.spoil(dir);
    }
    for kind in ["targets", "boot.entry", "portals"] {
        for object in fs::read_dir(objects.join(kind)).expect("a kind").flatten() {
            fs::remove_file(object.path()).expect("an object");
        }
    }
    let disks = fs::read_dir(objects.join("disk")).into_iter().flatten().flatten();
    let Some(disk) = disks.map(|d| d.path()).find(|p| p.to_string_lossy().contains("volumes")) else { return };
    let text = fs::read_to_string(&disk).expect("a disk").replace("\"generation\": 0", "\"generation\": 7");
    let name = disk.to_string_lossy().replace(".0", ".7");
    fs::write(name, text).expect("a disk that nobody wants");
}

/// What no record knows: a datastore that another engine has left, or a disk in our own.
fn strangers(dir: &Path, scenario: &Scenario) {
    if !scenario.is_forged() {
        return;
    }
    let [store, engine, image] = STRANGE;
    let objects = dir.join("world/objects");
    let read = |kind: &str, part: &str| {
        let all = fs::read_dir(objects.join(kind)).expect("a kind").flatten();
        let path = all.map(|o| o.path()).find(|p| p.to_string_lossy().contains(part)).expect("an object");
        (path.to_string_lossy().into_owned(), fs::read_to_string(&path).expect("an object"))
    };
    let (disk_path, disk) = read("disk", "images");
    let (store_path, made) = read("store", "");
    let id = |path: &str| path.rsplit('/').next().and_then(|n| n.get(..36)).expect("an id").to_owned();
    let ours = id(&store_path);
    let golden = disk_path.split("images%2F").nth(1).and_then(|n| n.get(..36)).expect("an id").to_owned();
    if scenario.op == "datastore.scan" {
        fs::write(disk_path.replace(&golden, image), disk.replace(&golden, image)).expect("a disk");
    } else {
        let anothers = |text: &str| text.replace(&golden, image).replace(&ours, store);
        fs::write(anothers(&disk_path), anothers(&disk)).expect("a disk");
        let mut made: serde_json::Value = serde_json::from_str(&anothers(&made)).expect("JSON");
        made["engine"] = engine.into();
        made["path"] = "/srv/bmid-kill/fast".into();
        fs::write(anothers(&store_path), made.to_string()).expect("a datastore");
    }
}

fn look(dir: &Path, special: Special) -> (Shape, BTreeSet<String>) {
    if special == Special::FirstStart {
        // Opening would make a store; there is nothing yet.
        return (Shape::default(), BTreeSet::new());
    }
    let store = Rig::open(dir);
    (Shape::of(&store, dir, &shape::known(&store, dir)), shape::known(&store, dir))
}

/// What there is after a line has run without faults.
async fn run_whole(dir: &Path, line: Option<&str>, special: Special, known: &BTreeSet<String>) -> Shape {
    let (rig, store) = engine(dir, Rig::open(dir), special, false);
    match line {
        Some(line) => drop(rig.run(line).await),
        None => drop(rig.until("datastore show default", |a| a["state"] == "active").await),
    }
    let shape = Shape::of(&store, dir, known);
    rig.stop().await;
    shape
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            fs::create_dir(&there).expect("a folder");
            copy(&path, &there);
        } else if path.ends_with("state/reserve") {
            hollow(&there);
        } else {
            fs::copy(&path, &there).expect("a file");
        }
    }
}
