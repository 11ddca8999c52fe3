//! Opening the store: folder, lock, reserve, sled, the store's own record. A store that does not open is moved aside, never
//! repaired or removed here.
//!
//! A new store is made beside its place and renamed there when it is whole and durable, so that a crash at first start
//! leaves nothing that looks like a store.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use bmi::model::{Change, Fault, Id, Kind, Meta, Name, Owner, Project, Time};

use super::ahead::Ahead;
use super::commit::{self, Commits, OnFailed};
use super::feed::{self, Feeder};
use super::log::{self, Space, Writing};
use super::raw::{self, Live};
use super::recover::{self, NotRecovered, Recovered};
use super::reserve::Reserve;
use super::tx::Tx;
use super::{Core, Inner, Store, lock, tables};

/// How to open the store.
pub struct Options {
    /// sled's cache, in bytes (16 to 64 MiB).
    pub cache_bytes: u64,
    /// Size of each of the log's two files, in bytes: [`super::LOG_BYTES`].
    pub log_bytes: u64,
    /// This engine's name, written at first start.
    pub engine_name: Name,
    /// The running release.
    pub release: String,
    /// Now.
    pub now: Time,
    /// Random bytes that this engine's id is made of at first start.
    pub random: [u8; 16],
    /// Called once when the store has failed: bmid must end, for its manager to start it again.
    pub on_failed: OnFailed,
}

/// An open store.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// It was made just now.
    pub fresh: bool,
    /// Stores that did not open and were moved aside earlier, newest last. A fresh store beside one of them waits for a
    /// dump to be restored.
    pub aside: Vec<PathBuf>,
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "cannot open the store: process {pid} holds it already; stop that bmid, or give this one another state folder"
    )]
    Held {
        /// Its process id; 0 if it did not say.
        pid: u32,
    },
    /// A newer release wrote it.
    #[error(
        "cannot open the store: release {release} wrote it with schema {found}, this one knows {known}; start that release or a newer one"
    )]
    NewerSchema {
        /// The store's schema; 0 if the record that says so is itself newer.
        found: u32,
        /// The newest this release knows.
        known: u32,
        /// The release that wrote last, if that could be read.
        release: String,
    },
    /// A newer release wrote its log.
    #[error("cannot open the store: {why}; start the release that wrote it or a newer one")]
    NewerLog {
        /// Both versions.
        why: String,
    },
    /// It does not open, and was moved aside.
    #[error("cannot open the store: {why}; it was moved to {}; start bmid again: it comes up with an empty store, and {}", moved_to.display(), dump_advice(newest_dump.as_deref()))]
    Corrupt {
        /// What is wrong with it.
        why: String,
        /// Where it is now.
        moved_to: PathBuf,
        /// The newest dump beside it.
        newest_dump: Option<PathBuf>,
    },
    /// It does not open, and was only looked at.
    #[error("the store is damaged: {why}; start bmid: it moves it aside, comes up with an empty store when it is started again, and {}", dump_advice(newest_dump.as_deref()))]
    Damaged {
        /// What is wrong with it.
        why: String,
        /// The newest dump beside it.
        newest_dump: Option<PathBuf>,
    },
    /// The folder or a file in it cannot be read.
    #[error("cannot read the state folder {}: {why}; {fix}", path.display())]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        why: String,
        /// What to do.
        fix: String,
    },
    /// The folder or a file in it cannot be written.
    #[error("cannot write to the state folder {}: {why}; {fix}", path.display())]
    Unwritable {
        /// What cannot be written.
        path: PathBuf,
        /// Why.
        why: String,
        /// What to do.
        fix: String,
    },
    /// No room, not even with the reserve given back.
    #[error("cannot open the store: the file system of {} is full; make room there and start again", path.display())]
    Full {
        /// Where.
        path: PathBuf,
    },
}

fn dump_advice(dump: Option<&Path>) -> String {
    match dump {
        Some(d) => format!("the newest dump goes into that: `bmictl state restore {} --yes`", d.display()),
        None => "there is no dump to put into that; put a copy of the folder back, if there is one".to_owned(),
    }
}

impl From<OpenError> for Fault {
    fn from(e: OpenError) -> Fault {
        let kind = match &e {
            OpenError::Held { .. } => Kind::Conflict,
            OpenError::Corrupt { .. } | OpenError::Damaged { .. } => Kind::Corrupt,
            OpenError::Full { .. } => Kind::Full,
            OpenError::NewerSchema { .. }
            | OpenError::NewerLog { .. }
            | OpenError::Unreadable { .. }
            | OpenError::Unwritable { .. } => Kind::Unavailable,
        };
        Fault::new(kind, e.to_string())
    }
}

pub(super) fn writing(path: &Path, e: &io::Error) -> OpenError {
    let (path, why) = (path.to_owned(), e.to_string());
    if raw::is_full(e) {
        return OpenError::Full { path };
    }
    let fix =
        "bmid runs as root; look at the folder's owner and mode, and whether its file system is mounted read-only";
    OpenError::Unwritable { path, why, fix: fix.to_owned() }
}

pub(super) fn reading(path: &Path, e: &io::Error) -> OpenError {
    let fix = "look at the folder's owner and mode, and at the kernel's log for errors of the disk".to_owned();
    OpenError::Unreadable { path: path.to_owned(), why: e.to_string(), fix }
}

/// How often, and after which pause, sled's own lock is asked for again.
const LOCK_TRIES: u32 = 250;
/// See [`LOCK_TRIES`].
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What came of opening sled.
enum SledError {
    Io(io::Error),
    Broken(String),
}

/// Opens sled. The state folder's lock is ours, so whoever still has sled's own lock lets go of it soon: our own threads
/// of a store just dropped, or a process that we started and that has not become another program yet.
fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, SledError> {
    let mut tries = 0;
    loop {
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
                if tries == LOCK_TRIES {
                    return Err(SledError::Io(io::ErrorKind::WouldBlock.into()));
                }
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            // What the system refused says nothing about the store; what sled refused does.
            Ok(Err(sled::Error::Io(e))) if e.raw_os_error().is_some() || raw::is_full(&e) => {
                return Err(SledError::Io(e));
            }
            Ok(Err(e)) => return Err(SledError::Broken(e.to_string())),
            Err(_) => return Err(SledError::Broken("sled panicked while opening it".to_owned())),
        }
    }
}

/// fsync of a file or folder and everything in it.
fn sync_tree(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| writing(dir, &e))?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|p| p.sync_all()).map_err(|e| writing(parent, &e))
}

/// What becomes of a store that does not open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is moved aside, so that the next start comes up.
    Moved,
    /// It stays: somebody only looks.
    Left,
}

pub(super) fn open(dir: &Path, options: Options, broken: Broken) -> Result<Opened, OpenError> {
    make_dir(dir)?;
    let lock = lock::take(dir).map_err(|e| match e {
        lock::NoLock::Held(pid) => OpenError::Held { pid },
        lock::NoLock::Io(e) => writing(&dir.join("lock"), &e),
    })?;
    let reserve = Reserve::look(dir).map_err(|e| reading(dir, &e))?;
    reserve.release_if_low();
    lock.sign();
    let path = dir.join("db");
    let fresh = !path.try_exists().map_err(|e| reading(&path, &e))?;
    let opened = attempt(dir, &path, fresh, &options, broken).or_else(|e| match e {
        OpenError::Full { .. } if reserve.release() => attempt(dir, &path, fresh, &options, broken),
        e => Err(e),
    });
    let store = assemble(dir, opened?, reserve, lock, options.on_failed)?;
    // Without the reserve one can work; `reserve_present` tells.
    let _ = store.remake_reserve();
    if store.undo_restore().map_err(|f| unwritten(&store, f))? {
        tracing::warn!("a restore was interrupted: the store is as it was before; restore the dump again");
    }
    note_release(&store, &options.release, options.now)?;
    Ok(Opened { store, fresh, aside: aside(dir) })
}

fn attempt(dir: &Path, path: &Path, fresh: bool, options: &Options, broken: Broken) -> Result<Recovered, OpenError> {
    if fresh && !path.exists() {
        create(dir, path, options)?;
    }
    let broken = |why: String| match broken {
        Broken::Moved => move_aside(dir, path, why, options.now),
        Broken::Left => OpenError::Damaged { why, newest_dump: newest_dump(dir) },
    };
    let db = open_sled(path, options.cache_bytes).map_err(|e| match e {
        SledError::Io(e) if e.kind() == io::ErrorKind::WouldBlock => OpenError::Held { pid: 0 },
        SledError::Io(e) if raw::is_full(&e) => OpenError::Full { path: path.to_owned() },
        SledError::Io(e) => reading(path, &e),
        SledError::Broken(why) => broken(why),
    })?;
    // sled may have written while opening; what it wrote must be there after power loss before anything builds on it.
    sync_tree(path).map_err(|e| writing(path, &e))?;
    recover::recover(path, db, options.log_bytes).map_err(|e| match e {
        NotRecovered::Open(e) => e,
        NotRecovered::Broken(why) => broken(why),
    })
}

/// A write at the start that failed.
fn unwritten(store: &Store, f: Fault) -> OpenError {
    let path = store.dir().to_owned();
    match f.kind {
        Kind::Full => OpenError::Full { path },
        _ => OpenError::Unwritable { path, why: f.why, fix: f.fix },
    }
}

/// Notes which release writes from now on; before the schema rises everything is dumped, so that there is a way back.
fn note_release(store: &Store, release: &str, now: Time) -> Result<(), OpenError> {
    let old = store.meta();
    if old.schema == tables::SCHEMA && old.release == release {
        return Ok(());
    }
    let failed = |f: Fault| unwritten(store, f);
    if old.schema < tables::SCHEMA {
        store.dump_to(&store.dir().join("dumps"), usize::MAX, now).map_err(failed)?;
    }
    let meta = Meta { schema: tables::SCHEMA, release: release.to_owned(), ..(*old).clone() };
    store.put_meta(meta).map_err(failed)?;
    // A release that knows nothing of the log must find in sled itself that the store is not for it.
    store.inner.core.catch_up();
    store.inner.core.commits.alive().map_err(failed)
}

/// Makes a new store, whole and durable, and puts it in its place.
fn create(dir: &Path, path: &Path, options: &Options) -> Result<(), OpenError> {
    let new = dir.join("db.new");
    match fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(writing(&new, &e)),
        _ => {}
    }
    let made = fill_new(&new, options)
        .and_then(|()| sync_tree(&new))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(dir)?.sync_all());
    made.map_err(|e| {
        let _ = fs::remove_dir_all(&new);
        writing(path, &e)
    })
}

fn fill_new(new: &Path, options: &Options) -> io::Result<()> {
    let db = open_sled(new, options.cache_bytes).map_err(|e| match e {
        SledError::Io(e) => e,
        SledError::Broken(why) => io::Error::other(why),
    })?;
    let engine = Id::from_random(options.random);
    let meta = Meta {
        schema: tables::SCHEMA,
        engine,
        engine_name: options.engine_name.clone(),
        release: options.release.clone(),
        created_at: options.now,
    };
    let owner = Owner::default_project();
    let project = Project { id: engine.derived(1), name: owner, created_at: options.now };
    let ahead = Ahead::default();
    let mut tx = Tx::new(Live::new(&db, &ahead), &meta);
    let put = tx.put_stored(vec![tables::META], &meta).and_then(|()| tx.apply(&Change::from(project)));
    put.map_err(|f| io::Error::other(f.to_string()))?;
    let mut batch = sled::Batch::default();
    for (key, value) in tx.into_changes().0 {
        batch.insert(key, value.unwrap_or_default());
    }
    batch.insert(&[tables::REACHED], feed::reached(0));
    db.apply_batch(batch).and_then(|()| db.flush()).map_err(|e| match e {
        sled::Error::Io(e) => e,
        e => io::Error::other(e.to_string()),
    })?;
    log::create(new, options.log_bytes)
}

fn assemble(
    dir: &Path,
    found: Recovered,
    reserve: Reserve,
    lock: lock::Lock,
    on_failed: OnFailed,
) -> Result<Store, OpenError> {
    let Recovered { db, meta, data, files, last } = found;
    let space = Space::new(files.clone()).map_err(|e| reading(dir, &e))?;
    let commits = Arc::new(Commits::new(last, Some(Writing::new(files.clone())), on_failed));
    let core = Arc::new(Core {
        db,
        writer: Mutex::new(space),
        gate: RwLock::default(),
        commits: Arc::clone(&commits),
        feeder: Feeder::default(),
        reserve,
        _lock: lock,
    });
    let c = Arc::clone(&core);
    let committer = move || {
        c.commits.run(commit::write);
        if c.commits.alive().is_err() {
            // For the next start.
            c.reserve.release();
        }
    };
    let f = Arc::clone(&core);
    let feeder = move || f.feed(&data, &files);
    let mut threads = Vec::new();
    for (name, work) in [("committer", Box::new(committer) as Box<dyn FnOnce() + Send>), ("feeder", Box::new(feeder))] {
        match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => threads.push(thread),
            Err(e) => commits.fail(Fault::new(Kind::Unavailable, format!("no thread for the store's {name}: {e}"))),
        }
    }
    let (dir, meta, threads) = (dir.to_owned(), RwLock::new(Arc::new(meta)), Mutex::new(threads));
    Ok(Store { inner: Arc::new(Inner { dir, meta, core, threads }) })
}

/// A moment as part of a file's name; names sort as the moments do.
pub(super) fn stamp(now: Time) -> String {
    now.to_string().replace(':', "-")
}

fn move_aside(dir: &Path, path: &Path, why: String, now: Time) -> OpenError {
    let mut moved_to = dir.join(format!("db.corrupt-{}", stamp(now)));
    // Never onto an earlier one.
    while moved_to.exists() {
        moved_to.as_mut_os_string().push("+");
    }
    match fs::rename(path, &moved_to).and_then(|()| File::open(dir)?.sync_all()) {
        Ok(()) => OpenError::Corrupt { why, moved_to, newest_dump: dumps(&dir.join("dumps")).pop() },
        Err(e) => writing(path, &e),
    }
}

fn listed(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let fits = |name: &str| name.starts_with(prefix) && name.ends_with(suffix);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut out: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_str().is_some_and(fits)).map(|e| e.path()).collect();
    out.sort();
    out
}

/// The dumps in a folder, oldest first.
pub(super) fn dumps(folder: &Path) -> Vec<PathBuf> {
    listed(folder, "bmid-", ".jsonl")
}

/// The newest dump of a state folder.
pub(super) fn newest_dump(dir: &Path) -> Option<PathBuf> {
    dumps(&dir.join("dumps")).pop()
}

/// Stores that were moved aside in a state folder, newest last.
pub(super) fn aside(dir: &Path) -> Vec<PathBuf> {
    listed(dir, "db.corrupt-", "")
}
