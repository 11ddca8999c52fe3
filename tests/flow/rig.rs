//! An engine with simulated drivers in a folder of its own, asked by command lines as a person types them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmi::model::{Caller, Fault, Owner, Sealed, Time};
use bmi::ops::args::{Direction, HostPath};
use bmi::ops::{Bare, Defaults, OPS, Request, Resolve, Source};
use bmi::protocol::{Ended, Envelope};
use bmid::drivers::{DriverError, DriverSet, Unseal};
use bmid::run::{Config, Engine, Out, Submission};
use bmid::store::{Options, Store};
use serde_json::Value;

use crate::disks::{self, Disks, Pool};

/// Secrets as they are: the simulators' world is a test's own folder.
pub struct Plain;

impl Unseal for Plain {
    fn open(&self, sealed: &Sealed) -> Result<String, DriverError> {
        Ok(String::from_utf8_lossy(&sealed.0).into_owned())
    }
}

/// Opens files for command lines.
#[derive(Default)]
struct Files(Vec<File>);

impl Resolve for Files {
    fn open(&mut self, source: &mut Source, direction: Direction) -> Result<(), Fault> {
        let file = match direction {
            Direction::Input => File::open(&source.name),
            Direction::Output | Direction::New => File::create(&source.name),
        };
        self.0.push(file.map_err(|e| Fault::invalid(format!("{}: {e}", source.name)))?);
        source.descriptor = Some(u8::try_from(self.0.len() - 1).expect("few files"));
        Ok(())
    }

    fn absolute(&mut self, path: &mut HostPath) -> Result<(), Fault> {
        assert!(path.0.starts_with('/'), "tests give absolute paths");
        Ok(())
    }

    fn warn(&mut self, _text: &str) {}

    fn lines(&mut self, path: &str) -> Result<Vec<String>, Fault> {
        Ok(std::fs::read_to_string(path).expect("a list").lines().map(str::to_owned).collect())
    }
}

/// What a command line came to.
#[derive(Debug)]
#[allow(dead_code, reason = "each test program needs its own part of it")]
pub struct Answer {
    /// Items, as JSON shows them.
    pub items: Vec<Value>,
    /// How it ended.
    pub end: Ended,
}

#[allow(dead_code, reason = "each test program needs its own part of it")]
impl Answer {
    /// The one item.
    pub fn one(&self) -> &Value {
        assert_eq!(self.items.len(), 1, "{:?}", self.items);
        &self.items[0]
    }
}

/// A request out of a command line, with the files it opens.
pub fn parse(line: &str) -> (Request, Vec<File>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let entry = OPS
        .iter()
        .find(|e| e.sheet.noun == words[0] && (e.sheet.verb.is_empty() || words.get(1) == Some(&e.sheet.verb)))
        .unwrap_or_else(|| panic!("no such command: {line}"));
    let skip = if entry.sheet.verb.is_empty() { 1 } else { 2 };
    let command = (entry.augment)(clap::Command::new("x").no_binary_name(true));
    let matches = command.try_get_matches_from(&words[skip..]).unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut request = (entry.parse)(&matches).unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut files = Files::default();
    request.resolve(&mut files).unwrap_or_else(|e| panic!("{line}: {e}"));
    (request, files.0)
}

/// The engine.
pub struct Rig {
    /// Everything of it.
    pub dir: PathBuf,
    /// The running engine.
    pub engine: Arc<Engine>,
    /// Where its disks are.
    pub disks: Disks,
    _temp: Option<tempfile::TempDir>,
}

fn now() -> Time {
    Time(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros()).expect("fits"))
}

#[allow(dead_code, reason = "each test program needs its own part of it")]
impl Rig {
    /// A fresh one whose outside is all simulated.
    pub async fn new() -> Rig {
        Rig::on(Disks::Simulated).await
    }

    /// A fresh one with such disks; all else of its outside is simulated.
    pub async fn on(disks: Disks) -> Rig {
        let temp = tempfile::tempdir().expect("a folder");
        disks.give(temp.path());
        let mut rig = Rig::at(temp.path()).await;
        rig._temp = Some(temp);
        rig
    }

    /// In a folder that may hold an earlier one's state and world.
    pub async fn at(dir: &Path) -> Rig {
        Rig::with(dir, disks::drivers(dir, Arc::new(Plain)), "datastore").await
    }

    /// The same, whose default datastore is in another folder: for a store that was lost.
    pub async fn lost_at(dir: &Path) -> Rig {
        Rig::with(dir, disks::drivers(dir, Arc::new(Plain)), "elsewhere").await
    }

    /// Another engine over the same outside: the state is lost, or it is another host that shares a pool.
    pub async fn another(dir: &Path, state: &str, random: [u8; 16], drivers: DriverSet) -> Rig {
        let home = dir.join(state);
        std::fs::create_dir_all(&home).expect("a folder");
        let store = Rig::open_as(random, &home, Box::new(|f| panic!("the store failed: {f}")));
        let rig = Rig::over(dir, store, drivers, Some(home.join("datastore")), true);
        rig.until("datastore show default", |a| a["state"] == "active").await;
        rig
    }

    /// A fresh one with the real drivers. The caller has a network namespace of its own.
    pub async fn real() -> Rig {
        let temp = tempfile::tempdir().expect("a folder");
        let mut rig = Rig::real_at(temp.path()).await;
        rig._temp = Some(temp);
        rig
    }

    /// The same, in a folder that may hold an earlier one's state.
    pub async fn real_at(dir: &Path) -> Rig {
        let paths = bmid::drivers::Paths { state: dir.join("state"), run: dir.join("run") };
        Rig::with(dir, DriverSet::real(&paths, Arc::new(Plain), bmid::drivers::worker::Manager::Detached), "datastore")
            .await
    }

    async fn with(dir: &Path, drivers: DriverSet, datastore: &str) -> Rig {
        let rig = Rig::over(dir, Rig::open(dir), drivers, Some(dir.join(datastore)), true);
        rig.until("datastore show default", |a| a["state"] == "active").await;
        rig
    }

    /// The store in that folder.
    pub fn open(dir: &Path) -> Store {
        Rig::open_until_it_fails(dir, Box::new(|f| panic!("the store failed: {f}")))
    }

    /// The same; `on_failed` is what the daemon does when it fails.
    pub fn open_until_it_fails(dir: &Path, on_failed: bmid::store::OnFailed) -> Store {
        Rig::open_as([7; 16], dir, on_failed)
    }

    /// The same; a store that is made gets its engine's id from `random`.
    pub fn open_as(random: [u8; 16], dir: &Path, on_failed: bmid::store::OnFailed) -> Store {
        let options = Options {
            cache_bytes: 16 << 20,
            log_bytes: bmid::store::LOG_BYTES,
            engine_name: "engine1".parse().expect("a name"),
            release: "test".to_owned(),
            now: now(),
            random,
            on_failed,
        };
        Store::open(&dir.join("state"), options).expect("the store opens").store
    }

    /// An engine over an open store. It makes the datastore `default` in the folder given; without `reconcile` it
    /// reconciles only when asked.
    pub fn over(dir: &Path, store: Store, drivers: DriverSet, default: Option<PathBuf>, reconcile: bool) -> Rig {
        let config = Config {
            store,
            drivers: Arc::new(drivers),
            defaults: Defaults {
                iqn_prefix: "iqn.2026-11.internal.bmi".to_owned(),
                port: 3260,
                max_image: bmi::model::Bytes(1 << 40),
            },
            seal: Box::new(|s| Sealed(s.as_bytes().to_vec())),
            reconcile_every: Duration::from_secs(3_600),
            default_datastore: default,
        };
        let engine = if reconcile { Engine::start(config) } else { Engine::start_unreconciled(config) };
        Rig { dir: dir.to_owned(), engine: engine.expect("the engine starts"), disks: Disks::of(dir), _temp: None }
    }

    /// Root acting for project `default`.
    pub fn root() -> Caller {
        Caller { uid: Some(0), name: "root".to_owned(), admin: true, project: Owner::default_project() }
    }

    /// Asks with everything given.
    pub async fn ask(&self, caller: Caller, envelope: Envelope, line: &str) -> Result<Answer, Fault> {
        let (request, files) = parse(&self.disks.line(line));
        let (out, mut pieces) = tokio::sync::mpsc::channel(16);
        self.engine.submit(Submission { caller, envelope, request, files, out });
        let mut items = Vec::new();
        while let Some(piece) = pieces.recv().await {
            match piece {
                Out::Item(item) => items.push(serde_json::to_value(Bare(&item)).expect("JSON")),
                Out::End(end) => return end.map(|end| Answer { items, end }),
                Out::Progress(_) | Out::Gap(_) => {}
            }
        }
        panic!("{line}: the answer has no end");
    }

    /// Asks as root.
    pub async fn try_run(&self, line: &str) -> Result<Answer, Fault> {
        self.ask(Rig::root(), Envelope::default(), line).await
    }

    /// Asks as root; it must succeed.
    pub async fn run(&self, line: &str) -> Answer {
        self.try_run(line).await.unwrap_or_else(|f| panic!("{line}: {f}"))
    }

    /// Asks as root what it would change; it must succeed.
    pub async fn check(&self, line: &str) -> Answer {
        let envelope = Envelope { check: true, ..Envelope::default() };
        self.ask(Rig::root(), envelope, line).await.unwrap_or_else(|f| panic!("{line} --check: {f}"))
    }

    /// What a reconcile would do, and how often something did not answer in time and was looked at again: bmid does so once a second.
    pub async fn to_be_repaired(&self) -> Result<(Vec<Value>, usize), Fault> {
        let unseen = |r: &Value| r["difference"] == "it could not be looked at" || r["outcome"] == "waiting";
        let mut blind = 0;
        loop {
            let check = Envelope { check: true, ..Envelope::default() };
            let found = self.ask(Rig::root(), check, "reconcile").await?.items;
            if blind == 5 || !found.iter().any(unseen) {
                return Ok((found, blind));
            }
            blind += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Asks as root; it must fail.
    pub async fn refuse(&self, line: &str) -> Fault {
        match self.try_run(line).await {
            Ok(answer) => panic!("{line} was not refused: {answer:?}"),
            Err(fault) => fault,
        }
    }

    /// Asks again and again until it answers as wanted.
    pub async fn until(&self, line: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        // Half a minute and more: a slow host is none that fails.
        for _ in 0..1_500 {
            if let Ok(answer) = self.try_run(line).await
                && let Some(found) = answer.items.iter().find(|i| wanted(i))
            {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{line} never answered as wanted: {:?}", self.try_run(line).await);
    }

    /// Waits until no operation is open: those that were answered as parked or late go on by themselves.
    pub async fn settle(&self) -> Result<(), String> {
        let mut open = Vec::new();
        for _ in 0..6_000 {
            open = self.run("op ls").await.items;
            if open.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("operations are still open: {open:#?}"))
    }

    /// A raw disk file of the test's own.
    pub fn disk(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, bytes).expect("a disk file");
        path.to_str().expect("utf-8").to_owned()
    }

    /// A network `net1` and an image `golden`.
    pub async fn ground(&self) {
        self.run("network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150").await;
        for line in self.disks.ground() {
            self.run(line).await;
        }
        let disk = self.disk("golden.raw", &vec![0x5a; 1 << 20]);
        self.run(&format!("image import {disk} --name golden --format raw")).await;
    }

    /// Every outside object, simulated or in a real pool: `kind/name`.
    pub fn world(&self) -> Vec<String> {
        let root = self.dir.join("world/objects");
        let mut out = Vec::new();
        for kind in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            for object in std::fs::read_dir(kind.path()).expect("a kind").flatten() {
                out.push(format!("{}/{}", kind.file_name().to_string_lossy(), object.file_name().to_string_lossy()));
            }
        }
        out.extend(Pool::of(&self.dir).map(|pool| pool.look().objects()).unwrap_or_default().into_keys());
        out.sort();
        out
    }

    /// The script of faults of the world.
    pub fn faults(&self, script: &str) {
        // Whole or not at all: the engine may look at any moment.
        let new = self.dir.join("world/faults.new");
        std::fs::write(&new, script).expect("a script");
        std::fs::rename(new, self.dir.join("world/faults")).expect("a script");
    }

    /// Stops the engine and lets its store go; the folder lives as long as what is given back.
    pub async fn stop(self) -> (PathBuf, Option<tempfile::TempDir>) {
        self.engine.stop().await;
        let last = Arc::downgrade(&self.engine);
        let (dir, temp) = (self.dir, self._temp);
        drop(self.engine);
        for _ in 0..500 {
            if last.strong_count() == 0 {
                return (dir, temp);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something still holds the engine");
    }
}
