//! What is written beside a disk: an extended attribute of its file. It comes and goes with the bytes, in the same inode, and
//! costs no file of its own. A file system that keeps none loses nothing but the way back after a lost store.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

use bmi::model::{Bytes, Kind, Note, Place};
use bmi::step::{self, AdoptStore, Backing, Contents, Imported, SetNote, StoreFound, Thing};
use nix::fcntl::OFlag;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use super::copy::{file_name, meta_name};
use super::dir::Dir;
use super::loopfile::LoopFile;
use super::place::MARKER;
use super::root::{self, FOLDERS, Marker};
use super::{Manager, place, staging};
use crate::drivers::{Done, DriverError};

/// The attribute.
const NAME: &str = "user.bmid.note";
/// What one may hold at most: the kernel's own limit.
const LONGEST: usize = 64 << 10;

/// Writes it to a file that is open. Where none can be kept, none is.
pub(super) fn write(file: &File, note: Option<&Note>) -> Result<bool, DriverError> {
    let tried = "note beside a disk what it is";
    let Some(note) = note else { return Ok(false) };
    let text = serde_json::to_vec(note).map_err(|e| DriverError::new(Kind::Internal, tried, e.to_string()))?;
    match fsetxattr(file, NAME, &text, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::NOSYS) => {
            // An empty one says that it does not fit: nobody tries that again and again.
            let _ = fsetxattr(file, NAME, &[], XattrFlags::CREATE);
            Ok(false)
        }
        Err(e) => Err(DriverError::io(tried, e.into())),
    }
}

/// What is written beside it. What cannot be read is none: another release's, or damaged.
pub(super) fn read(file: &File) -> Option<Note> {
    let mut text = vec![0; LONGEST];
    let n = fgetxattr(file, NAME, &mut text[..]).ok()?;
    serde_json::from_slice(&text[..n]).ok()
}

/// Those of them that have none, where the file system could keep one.
pub(super) fn bare(root: &Dir, whole: &[Backing]) -> Result<Vec<Backing>, DriverError> {
    let mut bare = Vec::new();
    for kind in root::KINDS {
        let mut of_kind = whole.iter().filter(|w| w.kind == kind).peekable();
        let Some(dir) = of_kind.peek().map_or(Ok(None), |w| root.find(w.folder()))? else { continue };
        for what in of_kind {
            let file = dir.open(&file_name(what), OFlag::O_RDONLY)?;
            if file.is_some_and(|f| fgetxattr(&f, NAME, &mut [0_u8; 0][..]) == Err(Errno::NODATA)) {
                bare.push(*what);
            }
        }
    }
    Ok(bare)
}

/// Carries out a [`SetNote`].
pub(super) fn set(root: &Dir, s: &SetNote) -> Result<Done, DriverError> {
    let Some(dir) = root.find(s.what.folder())? else { return Ok(Done::ALREADY) };
    let name = file_name(&s.what);
    let Some(file) = dir.open(&name, OFlag::O_RDONLY)? else { return Ok(Done::ALREADY) };
    if read(&file).as_ref() == Some(&s.to) {
        return Ok(Done::ALREADY);
    }
    put(&file, &s.to).map(Done::changed)
}

/// Writes it to a disk that may be read-only, durably. Where none can be kept, none is.
pub(super) fn put(file: &File, note: &Note) -> Result<bool, DriverError> {
    let io = |e| DriverError::io("note beside a disk what it is", e);
    let before = file.metadata().map_err(io)?.permissions();
    // bmid as a service has no right to override modes.
    let closed = before.mode() & 0o200 == 0;
    if closed {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    }
    let written = write(file, Some(note));
    if closed {
        file.set_permissions(before).map_err(io)?;
    }
    let written = written?;
    file.sync_all().map_err(io)?;
    Ok(written)
}

/// Carries out an [`AdoptStore`].
pub(super) fn adopt(s: &AdoptStore, manager: &Manager) -> Result<Done, DriverError> {
    let disk = LoopFile::of(&s.place)?;
    let mounted = disk.as_ref().map_or(Ok(false), |d| d.mount(manager))?;
    let taken = take(s);
    if taken.is_err()
        && mounted
        && let Some(disk) = disk
    {
        // Somebody else's is not kept mounted; the refusal says more than a failure here would.
        let _ = disk.unmount(manager);
    }
    taken.map(|changed| Done::changed(changed || mounted))
}

fn take(s: &AdoptStore) -> Result<bool, DriverError> {
    let dir = root::open(s.datastore, &s.place)?;
    let found = root::marker(&dir)?;
    let tried = || format!("take datastore {} over", s.datastore);
    let Some(found) = found else {
        return Err(DriverError::new(Kind::Unavailable, tried(), "its id file went away").fix("look at the folder"));
    };
    if found.engine == s.to {
        return Ok(false);
    }
    if found.engine != s.from {
        return Err(DriverError::new(Kind::Conflict, tried(), format!("it is that of engine {}", found.engine))
            .fix("`--adopt` without an id lists whose it is"));
    }
    let text = serde_json::to_vec_pretty(&Marker { engine: s.to, ..found });
    let text = text.map_err(|e| DriverError::new(Kind::Internal, tried(), e.to_string()))?;
    dir.write(MARKER, &text, 0o600)?;
    Ok(true)
}

/// The datastore that a folder is, if it is one.
pub(super) fn stores(path: &str) -> Result<Vec<StoreFound>, DriverError> {
    let place = Place::Folder { path: path.to_owned(), loop_size: None, thin: false };
    let Some(dir) = Dir::at(&place::path(&place)?)? else { return Ok(Vec::new()) };
    let Some(found) = root::marker(&dir)? else { return Ok(Vec::new()) };
    Ok(vec![StoreFound {
        datastore: found.datastore,
        engine: found.engine,
        note: found.note.and_then(|n| serde_json::from_value(n).ok()),
        things: Some(root::backings(&dir)?.len() as u64),
    }])
}

/// All that stands in a root.
pub(super) fn contents(root: &Dir) -> Result<Contents, DriverError> {
    let mut all = Contents::default();
    let ours = |name: &str| name == MARKER || name == "lost+found" || FOLDERS.contains(&name);
    all.foreign += root.names()?.iter().filter(|n| !ours(n) && !n.starts_with(&format!(".{MARKER}"))).count() as u64;
    for kind in root::KINDS {
        let sample = Backing { kind, id: bmi::model::Id([0; 16]), generation: 0 };
        let Some(dir) = root.find(sample.folder())? else { continue };
        for name in dir.names()? {
            let half = name.strip_prefix('.').and_then(|n| n.strip_suffix(".new"));
            if let Some(what) = root::backing(kind, &name) {
                all.things.extend(thing(&dir, what)?);
            } else if let Some(what) = half.and_then(|n| root::backing(kind, n)) {
                all.half_made.push(what);
            } else if !name.ends_with(".meta") && half.is_none() {
                all.foreign += 1;
            }
        }
    }
    for seen in staging::seen(root)? {
        if let step::Seen::Staging(name, changed) = seen {
            all.staging.push((name, changed));
        }
    }
    Ok(all)
}

fn thing(dir: &Dir, what: Backing) -> Result<Option<Thing>, DriverError> {
    let Some(file) = dir.open(&file_name(&what), OFlag::O_RDONLY)? else { return Ok(None) };
    let size = file.metadata().map_err(|e| DriverError::io(format!("look at {}", what.name()), e))?.len();
    let meta = dir.read(&meta_name(&what))?;
    let imported = meta.and_then(|text| serde_json::from_slice::<Imported>(&text).ok()).filter(|i| i.image == what.id);
    Ok(Some(Thing { what, size: Some(Bytes(size)), note: read(&file), imported, of: None }))
}
