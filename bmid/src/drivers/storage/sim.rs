//! The simulator of datastores: one small file an outside object, in the folder of a [`World`].
//!
//! It keeps the contract of the real driver and passes the same suite; it never touches the folder that a place names. Of a
//! disk it keeps what an import found out and, up to 16 MiB, the bytes, so that an export can give them back.
//!
//! The file `rbd-module` in it gives the kernel that disks of pools are mapped by an RBD client.
//!
//! Points: `storage.<step>.before|after` with the steps `make_store`, `open_store`, `unmake_store`, `import`, `clone`,
//! `remove`, `export`, `set_note`, `adopt_store`, `take_over`; and `storage.import.staged`, behind the input's last byte and before the image is there.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use bmi::model::{Bytes, Fault, Format, Id, Kind, Note, Place, StoreNote};
use bmi::step::{self, Backing, DatastoreFacts, Fact, Imported, Look, Scope, Seen, StorageStep};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::probe;
use crate::drivers::sim::World;
use crate::drivers::storage::stream::hex;
use crate::drivers::{Done, Driver, DriverError, StepCx};

mod found;

/// The most bytes of a disk that are kept.
const KEPT: usize = 16 << 20;
const TOTAL: u64 = 1 << 40;
/// The smallest XFS, as with the real driver.
const SMALLEST: u64 = 300 << 20;

/// A datastore's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Store {
    datastore: Id,
    engine: Id,
    path: String,
    note: StoreNote,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    datastore: Id,
    backing: Backing,
    size: u64,
    /// SHA-256 of its bytes; the name of the file with them, if they are kept.
    content: String,
    imported: Option<Imported>,
    note: Option<Note>,
    /// What it was cloned from.
    from: Option<Backing>,
}

/// An unfinished import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    datastore: Id,
    name: String,
    changed: u64,
}

/// The simulator.
#[derive(Debug, Clone)]
pub struct SimStore {
    world: PathBuf,
}

fn key(datastore: Id, what: &Backing) -> String {
    format!("{datastore}/{}/{}", what.folder(), what.name())
}

impl SimStore {
    /// The simulator whose world is in that folder.
    #[must_use]
    pub fn new(world: &Path) -> SimStore {
        SimStore { world: world.to_owned() }
    }

    /// The simulated kernel has its RBD client where the world has a file `rbd-module`.
    fn lacking(&self) -> Option<Fault> {
        let why = || Fault::new(Kind::Unavailable, "the simulated kernel has no rbd module").fix("give it one");
        (!self.world.join("rbd-module").exists()).then(why)
    }

    fn world(&self) -> Result<World, DriverError> {
        World::open(&self.world)
    }

    fn store(&self, w: &World, datastore: Id, place: &Place) -> Result<Store, DriverError> {
        let path = place.word();
        let found = w.get::<Store>("store", &datastore.to_string())?.filter(|s| s.path == path);
        found.ok_or_else(|| {
            let why = format!("{path} does not hold its id");
            DriverError::new(Kind::Unavailable, format!("use datastore {datastore}"), why)
                .fix("mount its disk there; `bmictl reconcile` looks again")
        })
    }

    fn make(&self, w: &World, s: &step::MakeStore) -> Result<Done, DriverError> {
        let path = s.place.word();
        let loop_size = match &s.place {
            Place::Folder { loop_size, .. } => *loop_size,
            Place::Rbd(_) => None,
        };
        let tried = || format!("make a datastore in {path}");
        if loop_size.is_some_and(|size| size.0 < SMALLEST) {
            let why = format!("an XFS has at least {} (300 MiB)", Bytes(SMALLEST));
            return Err(DriverError::new(Kind::Invalid, tried(), why));
        }
        let all = w.list::<Store>("store")?;
        // A pool is shared by engines, each with datastores of its own.
        let shared = |o: &Store| matches!(s.place, Place::Rbd(_)) && o.datastore != s.datastore && o.engine != s.engine;
        let other = |o: &&Store| o.path == path && !shared(o) && (o.datastore != s.datastore || o.engine != s.engine);
        if let Some(other) = all.iter().map(|(_, o)| o).find(other) {
            let why = format!("it is that of datastore {} of engine {}", other.datastore, other.engine);
            return Err(DriverError::new(Kind::Conflict, tried(), why).fix("choose an empty folder"));
        }
        let store = Store { datastore: s.datastore, engine: s.engine, path, note: s.note.clone() };
        w.put("store", &s.datastore.to_string(), &store).map(Done::changed)
    }

    fn unmake(&self, w: &World, s: &step::UnmakeStore) -> Result<Done, DriverError> {
        if w.get::<Store>("store", &s.datastore.to_string())?.is_none() {
            return Ok(Done::ALREADY);
        }
        let held = self.disks(w, s.datastore)?;
        if let Some(first) = held.first() {
            let why = format!("{} disks are in it, the first is {}", held.len(), key(s.datastore, &first.backing));
            let tried = format!("take datastore {} away", s.datastore);
            return Err(DriverError::new(Kind::Conflict, tried, why).fix("remove them first"));
        }
        for (name, waiting) in w.list::<Waiting>("staging")? {
            if waiting.datastore == s.datastore {
                w.del("staging", &name)?;
            }
        }
        w.del("store", &s.datastore.to_string()).map(Done::changed)
    }

    fn disks(&self, w: &World, datastore: Id) -> Result<Vec<Disk>, DriverError> {
        let all = w.list::<Disk>("disk")?;
        Ok(all.into_iter().map(|(_, d)| d).filter(|d| d.datastore == datastore).collect())
    }

    fn import(&self, w: &World, s: &step::Import, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let what = Backing::image(s.image);
        let waiting = format!("{}/{}", s.datastore, s.staging);
        if let Some(disk) = w.get::<Disk>("disk", &key(s.datastore, &what))? {
            w.del("staging", &waiting)?;
            return Ok(Done { changed: false, imported: disk.imported });
        }
        let Some(input) = cx.input else {
            return Err(DriverError::new(Kind::Interrupted, tried(s), "the input is gone, and not all of it had come")
                .fix("repeat the same command; it goes on where it stopped"));
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let note = Waiting { datastore: s.datastore, name: s.staging.clone(), changed: now };
        w.put("staging", &waiting, &note)?;
        w.cut("storage.import.staged")?;
        let (imported, kept) = match read(s, input, cx) {
            Ok(found) => found,
            Err(e) => {
                if e.kind != Kind::Cancelled {
                    w.del("staging", &waiting)?;
                }
                return Err(e);
            }
        };
        if let Some(bytes) = kept {
            self.keep(&imported.raw_sha256, &bytes)?;
        }
        let disk = Disk {
            datastore: s.datastore,
            backing: what,
            size: imported.size_bytes.0,
            content: imported.raw_sha256.clone(),
            imported: Some(imported.clone()),
            note: s.note.as_ref().map(|n| imported.told_in(n)),
            from: None,
        };
        w.put("disk", &key(s.datastore, &what), &disk)?;
        w.del("staging", &waiting)?;
        Ok(Done { changed: true, imported: Some(imported) })
    }

    /// What a simulated pool holds is a MiB of its own name.
    fn take_over(&self, w: &World, s: &step::TakeOver) -> Result<Done, DriverError> {
        let what = Backing::image(s.image);
        if let Some(disk) = w.get::<Disk>("disk", &key(s.datastore, &what))? {
            return Ok(Done { changed: false, imported: disk.imported });
        }
        let bytes: Vec<u8> = s.from.to_string().bytes().cycle().take(1 << 20).collect();
        let (sha256, md5) = (hex(&Sha256::digest(&bytes)), hex(&Md5::digest(&bytes)));
        self.keep(&sha256, &bytes)?;
        let (size, raw_sha256) = (bytes.len() as u64, sha256.clone());
        let (image, source_format) = (s.image, Format::Raw);
        let imported = Imported { image, source_format, size_bytes: Bytes(size), md5, sha256, raw_sha256 };
        let content = imported.raw_sha256.clone();
        let note = s.note.as_ref().map(|n| imported.told_in(n));
        let (datastore, found) = (s.datastore, Some(imported.clone()));
        let disk = Disk { datastore, backing: what, size, content, imported: found, from: None, note };
        w.put("disk", &key(s.datastore, &what), &disk)?;
        Ok(Done { changed: true, imported: Some(imported) })
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), DriverError> {
        let folder = self.world.join("content");
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(name), bytes))
            .map_err(|e| DriverError::io("keep a simulated disk's bytes", e))
    }

    fn clone(&self, w: &World, s: &step::Clone) -> Result<Done, DriverError> {
        if w.get::<Disk>("disk", &key(s.datastore, &s.to))?.is_some() {
            return Ok(Done::ALREADY);
        }
        let Some(from) = w.get::<Disk>("disk", &key(s.datastore, &s.from))? else {
            let tried = format!("clone {} from {}", key(s.datastore, &s.to), key(s.datastore, &s.from));
            return Err(DriverError::new(Kind::Outside, tried, "the disk to copy is not there")
                .fix("`bmictl reconcile --check` shows what else is missing"));
        };
        let copy = Disk { backing: s.to, imported: None, note: s.note.clone(), from: Some(s.from), ..from };
        w.put("disk", &key(s.datastore, &s.to), &copy).map(Done::changed)
    }

    fn export(&self, w: &World, s: &step::Export, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let tried = format!("write out {}", key(s.datastore, &s.what));
        let failed = |kind, why: &str, fix: &str| Err(DriverError::new(kind, tried.as_str(), why).fix(fix));
        let Some(mut output) = cx.input else {
            return failed(Kind::Interrupted, "the file to write to is gone", "repeat the same command");
        };
        let Some(disk) = w.get::<Disk>("disk", &key(s.datastore, &s.what))? else {
            return failed(Kind::Outside, "the disk is not there", "`bmictl reconcile --check` shows what is missing");
        };
        if !matches!(s.format, Format::Raw | Format::Qcow2) {
            return failed(Kind::Invalid, "disks are written as raw or qcow2", "use one of these");
        }
        let Ok(bytes) = fs::read(self.world.join("content").join(&disk.content)) else {
            return failed(Kind::Limit, "the simulator kept no bytes of a disk so large", "use the real driver");
        };
        // A pipe has no length and no beginning; a file is written anew, a repeat included.
        if output.metadata().is_ok_and(|m| m.is_file()) {
            output.set_len(0).and_then(|()| output.rewind()).map_err(|e| DriverError::io(tried.as_str(), e))?;
        }
        output.write_all(&bytes).map_err(|e| DriverError::io(tried.as_str(), e))?;
        Ok(Done::CHANGED)
    }
}

fn tried(s: &step::Import) -> String {
    format!("take in image {}", s.image)
}

/// Reads an input and judges it as the real driver does; the bytes too, unless they are many.
fn read(s: &step::Import, mut input: &File, cx: &StepCx<'_>) -> Result<(Imported, Option<Vec<u8>>), DriverError> {
    let refuse = |kind, why: String| Err(DriverError::new(kind, tried(s), why).fix("give the right bytes"));
    let (mut md5, mut sha, mut kept) = (Md5::new(), Sha256::new(), Vec::new());
    let (mut came, mut buf) = (0u64, vec![0; 1 << 16]);
    if input.metadata().is_ok_and(|m| m.is_file()) {
        input.rewind().map_err(|e| DriverError::io(tried(s), e))?;
    }
    loop {
        if (cx.cancelled)() {
            return Err(DriverError::new(Kind::Cancelled, tried(s), "it was cancelled"));
        }
        let n = input.read(&mut buf).map_err(|e| DriverError::io(tried(s), e))?;
        if n == 0 {
            break;
        }
        md5.update(&buf[..n]);
        sha.update(&buf[..n]);
        came += n as u64;
        kept.extend_from_slice(&buf[..n.min((KEPT + 512).saturating_sub(kept.len()))]);
        if came > s.max_size.0.saturating_mul(2) {
            return refuse(Kind::Limit, format!("more than twice the largest disk ({}) came", s.max_size));
        }
        (cx.progress)(came, s.size.map(|b| b.0));
    }
    let whole = kept.len() as u64 == came;
    let probed = match probe::probe(&kept[..], s.max_size.0) {
        // Of a large one only the beginning is looked at: its magic, and for all else it is believed.
        Ok(_) | Err(_) if !whole => {
            probe::Probed { format: probe::magic(&kept).unwrap_or(Format::Raw), size: came.min(s.max_size.0) }
        }
        Ok(probed) => probed,
        Err(bad) => return refuse(bad_kind(&bad), bad.to_string()),
    };
    if s.format.is_some_and(|said| said != probed.format) {
        return refuse(Kind::Corrupt, format!("it is {}, and it is said to be another format", probed.format));
    }
    let sha256 = hex(&sha.finalize());
    if s.size.is_some_and(|said| said.0 != came) {
        return refuse(Kind::Corrupt, format!("{came} bytes came, and another size was said"));
    }
    if s.sha256.as_ref().is_some_and(|said| !said.eq_ignore_ascii_case(&sha256)) {
        return refuse(Kind::Corrupt, format!("its SHA-256 is {sha256}, and another was said"));
    }
    let size = probed.size.next_multiple_of(512);
    // A simulated conversion gives a disk of zeros of the right size.
    let disk = match (probed.format, usize::try_from(size)) {
        (Format::Raw, Ok(n)) if whole && n <= KEPT => Some(kept).map(|mut k| (k.resize(n, 0), k).1),
        (f, Ok(n)) if f != Format::Raw && n <= KEPT => Some(vec![0; n]),
        _ => None,
    };
    let raw_sha256 = disk.as_ref().map_or_else(|| sha256.clone(), |d| hex(&Sha256::digest(d)));
    let (image, source_format, md5) = (s.image, probed.format, hex(&md5.finalize()));
    Ok((Imported { image, source_format, size_bytes: Bytes(size), md5, sha256, raw_sha256 }, disk))
}

fn bad_kind(bad: &probe::Bad) -> Kind {
    match bad {
        probe::Bad::Refused(kind, ..) => *kind,
        probe::Bad::Io(_) => Kind::Outside,
    }
}

/// The name of a step in points.
#[must_use]
pub fn point(step: &StorageStep) -> &'static str {
    match step {
        StorageStep::MakeStore(_) => "storage.make_store",
        StorageStep::OpenStore(_) => "storage.open_store",
        StorageStep::UnmakeStore(_) => "storage.unmake_store",
        StorageStep::Import(_) => "storage.import",
        StorageStep::Clone(_) => "storage.clone",
        StorageStep::Remove(_) => "storage.remove",
        StorageStep::Export(_) => "storage.export",
        StorageStep::SetNote(_) => "storage.set_note",
        StorageStep::AdoptStore(_) => "storage.adopt_store",
        StorageStep::TakeOver(_) => "storage.take_over",
    }
}

impl Driver for SimStore {
    type Step = StorageStep;

    fn apply(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let w = self.world()?;
        w.around(point(step), || {
            let (datastore, place) = step.place();
            match step {
                StorageStep::MakeStore(s) => return self.make(&w, s),
                StorageStep::UnmakeStore(s) => return self.unmake(&w, s),
                StorageStep::AdoptStore(s) => return self.adopt(&w, s),
                _ => self.store(&w, datastore, place)?,
            };
            match step {
                StorageStep::Import(s) => self.import(&w, s, cx),
                StorageStep::Clone(s) => self.clone(&w, s),
                StorageStep::Remove(s) => w.del("disk", &key(s.datastore, &s.what)).map(Done::changed),
                StorageStep::Export(s) => self.export(&w, s, cx),
                StorageStep::TakeOver(s) => self.take_over(&w, s),
                StorageStep::SetNote(s) => self.set_note(&w, s),
                StorageStep::MakeStore(_)
                | StorageStep::UnmakeStore(_)
                | StorageStep::OpenStore(_)
                | StorageStep::AdoptStore(_) => Ok(Done::ALREADY),
            }
        })
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        let Scope::Datastore { datastore, place } = scope else { return Ok(Vec::new()) };
        let w = self.world()?;
        if self.store(&w, *datastore, place).is_err() {
            return Ok(Vec::new());
        }
        let mut seen = vec![Seen::Store(*datastore)];
        let disks = self.disks(&w, *datastore)?;
        seen.extend(disks.iter().map(|d| Seen::Backing(d.backing)));
        seen.extend(disks.iter().filter(|d| d.note.is_none()).map(|d| Seen::Bare(d.backing)));
        let waiting = w.list::<Waiting>("staging")?.into_iter().map(|(_, s)| s);
        seen.extend(waiting.filter(|s| s.datastore == *datastore).map(|s| Seen::Staging(s.name, s.changed)));
        Ok(seen)
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        let (datastore, at) = match look {
            Look::Datastore(datastore, at) => (datastore, at),
            Look::RbdClient => return Some(Ok(Fact::RbdClient(self.lacking()))),
            Look::Stores(at) => return Some(self.stores(&at.path)),
            Look::Contents(datastore, at) => return Some(self.contents(*datastore, at)),
            Look::Doctor { .. } => return Some(Ok(Fact::Findings(Vec::new()))),
            _ => return None,
        };
        let answer = || {
            let w = self.world()?;
            let place = found::place(at);
            let problem = self.store(&w, *datastore, &place).err().map(|e| e.why);
            let used: u64 = self.disks(&w, *datastore)?.iter().map(|d| d.size).sum();
            Ok(Fact::Datastore(DatastoreFacts {
                available: problem.is_none(),
                problem,
                reflink: true,
                total: Bytes(TOTAL),
                free: Bytes(TOTAL.saturating_sub(used)),
                filesystem: "sim".to_owned(),
                full: None,
            }))
        };
        Some(answer())
    }
}
