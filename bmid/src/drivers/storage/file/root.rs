//! A datastore's root: the file with its id, the folders, and when it may be believed.
//!
//! Unless the id file is read and matches, nothing in the folder is planned, written or believed gone: a disk that is not
//! mounted looks exactly like an empty datastore. What is not ours is never removed.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bmi::model::{Id, Kind, Place};
use bmi::step::{Backing, BackingKind, MakeStore, UnmakeStore};
use serde::{Deserialize, Serialize};

use super::dir::{Dir, make_all};
use super::loopfile::LoopFile;
use super::place::{MARKER, path};
use super::{Manager, staging};
use crate::drivers::DriverError;

/// Where backings are, and where imports arrive.
pub(super) const FOLDERS: [&str; 4] = ["images", "volumes", "snapshots", "staging"];
pub(super) const KINDS: [BackingKind; 3] = [BackingKind::Image, BackingKind::Volume, BackingKind::Snapshot];

/// What the marker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) datastore: Id,
    pub(super) engine: Id,
    /// bmid made the folder itself and takes it away again.
    pub(super) made: bool,
    /// What it says of itself; another release's must not make it unreadable.
    pub(super) note: Option<serde_json::Value>,
}

/// What the marker says; none if there is none.
pub(super) fn marker(dir: &Dir) -> Result<Option<Marker>, DriverError> {
    let Some(text) = dir.read(MARKER)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        let tried = format!("read {}", dir.path().join(MARKER).display());
        DriverError::new(Kind::Unavailable, tried, e.to_string())
            .fix("the datastore's id file is damaged: restore it from a backup, the bytes beside it may be whole")
    })
}

/// The root of a datastore, or why it is not available.
pub(super) fn open(datastore: Id, place: &Place) -> Result<Dir, DriverError> {
    let path = path(place)?;
    let unavailable = |why: String, fix: &str| {
        let tried = format!("use datastore {datastore} in {}", path.display());
        Err(DriverError::new(Kind::Unavailable, tried, why).fix(fix))
    };
    let mount = "mount its disk there; `bmictl reconcile` looks again";
    let Some(dir) = Dir::at(&path)? else { return unavailable("the folder is not there".to_owned(), mount) };
    match marker(&dir)? {
        None => unavailable(format!("the folder has no {MARKER}"), mount),
        Some(m) if m.datastore != datastore => unavailable(
            format!("the folder is that of datastore {}", m.datastore),
            "mount the right disk there; `bmictl reconcile` looks again",
        ),
        Some(_) => Ok(dir),
    }
}

/// Makes it, or says whose it is. True: something was made.
pub(super) fn make(step: &MakeStore, manager: &Manager) -> Result<bool, DriverError> {
    let path = path(&step.place)?;
    if no_folder(&path) {
        let tried = format!("make a datastore in {}", path.display());
        return Err(DriverError::new(Kind::Conflict, tried, "something that is no folder is there")
            .fix("choose a folder itself, or a path where nothing is"));
    }
    let existed = Dir::at(&path)?;
    if let Some(dir) = &existed
        && let Some(m) = marker(dir)?
    {
        ours(&path, &m, step)?;
        return folders(dir);
    }
    if let Some(dir) = &existed {
        vacant(dir)?;
    }
    let disk = LoopFile::of(&step.place)?;
    if let Some(disk) = &disk {
        disk.make()?;
    }
    let made = make_all(&path)?;
    let Some(disk) = disk else { return fill(&path, step, made, made) };
    let mounted = disk.mount(manager)?;
    let filled = fill(&path, step, made, true);
    if filled.is_err() && mounted {
        // It may be somebody's: what was refused is not kept mounted. The refusal says more than a failure here would.
        let _ = disk.unmount(manager);
    }
    filled
}

/// A file, a link or the like.
fn no_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| !m.is_dir())
}

/// Puts the id file and the folders into a vacant root. What an interrupted try left there is completed.
fn fill(path: &Path, step: &MakeStore, made: bool, own: bool) -> Result<bool, DriverError> {
    let missing = || DriverError::new(Kind::Outside, format!("open {}", path.display()), "it went away again");
    let dir = Dir::at(path)?.ok_or_else(missing)?;
    match marker(&dir)? {
        Some(m) => ours(path, &m, step)?,
        None => {
            if own {
                private(path)?;
            }
            vacant(&dir)?;
            let note = serde_json::to_value(&step.note).ok();
            let text = Marker { datastore: step.datastore, engine: step.engine, made, note };
            let internal = |e: serde_json::Error| DriverError::new(Kind::Internal, "write a marker", e.to_string());
            dir.write(MARKER, &serde_json::to_vec_pretty(&text).map_err(internal)?, 0o600)?;
        }
    }
    folders(&dir)?;
    Ok(true)
}

fn private(path: &Path) -> Result<(), DriverError> {
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|e| DriverError::io(format!("make {} private", path.display()), e))
}

/// Refuses a root that holds another datastore's or another engine's id.
fn ours(path: &Path, m: &Marker, step: &MakeStore) -> Result<(), DriverError> {
    if m.datastore == step.datastore && m.engine == step.engine {
        return Ok(());
    }
    let tried = format!("make a datastore in {}", path.display());
    let why = format!("it is that of datastore {} of engine {}", m.datastore, m.engine);
    Err(DriverError::new(Kind::Conflict, tried, why)
        .fix("choose an empty folder; if that engine is gone for good, `--adopt` takes the datastore over"))
}

/// Refuses a folder with foreign content, or one that others may write to.
fn vacant(dir: &Dir) -> Result<(), DriverError> {
    let refuse = |why: String, fix: &str| {
        let tried = format!("make a datastore in {}", dir.path().display());
        Err(DriverError::new(Kind::Conflict, tried, why).fix(fix))
    };
    let harmless = |name: &&String| name.as_str() != "lost+found" && name.as_str() != format!(".{MARKER}.new");
    let names = dir.names()?;
    let foreign: Vec<&String> = names.iter().filter(harmless).collect();
    if let Some(first) = foreign.first() {
        let why = format!("the folder is not empty: {} entries, the first is {first:?}", foreign.len());
        return refuse(why, "choose an empty folder or one that is not there yet");
    }
    let look = |e| DriverError::io(format!("look at {}", dir.path().display()), e);
    let about = std::fs::metadata(dir.path()).map_err(look)?;
    if about.uid() != nix::unistd::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        let why = format!("others may write to the folder (owner {}, mode {:o})", about.uid(), about.mode() & 0o7777);
        return refuse(why, "make it root's alone: `chown root FOLDER; chmod go-w FOLDER`");
    }
    Ok(())
}

fn folders(dir: &Dir) -> Result<bool, DriverError> {
    let mut changed = false;
    for name in FOLDERS {
        changed |= dir.make(name)?;
    }
    Ok(changed)
}

/// Brings a datastore that was made before within reach. True: something was mounted.
pub(super) fn reopen(datastore: Id, place: &Place, manager: &Manager) -> Result<bool, DriverError> {
    let mounted = match LoopFile::of(place)? {
        Some(disk) => disk.mount(manager)?,
        None => false,
    };
    open(datastore, place)?;
    Ok(mounted)
}

/// Takes it away if it is ours and empty; another datastore's, and what is no folder, stays as it is. True: something went.
pub(super) fn unmake(step: &UnmakeStore, manager: &Manager) -> Result<bool, DriverError> {
    let path = path(&step.place)?;
    if no_folder(&path) {
        return Ok(false);
    }
    let disk = LoopFile::of(&step.place)?;
    let mut changed = disk.as_ref().map_or(Ok(false), LoopFile::drop_half_made)?;
    let mut mounted = false;
    if let Some(disk) = &disk
        && disk.exists()
    {
        // Whose it is and what is in it stands inside.
        mounted = disk.mount(manager)?;
        changed |= mounted;
    }
    let Some(dir) = Dir::at(&path)? else { return Ok(changed) };
    let found = marker(&dir)?;
    if let Some(m) = &found {
        if m.datastore != step.datastore {
            drop(dir);
            if let Some(disk) = disk.filter(|_| mounted) {
                disk.unmount(manager)?;
            }
            return Ok(false);
        }
        empty(&dir, step.datastore)?;
        clear(&dir)?;
        changed = true;
    }
    // A file system of ours without the id file is half-made or half taken away; with other things in it, it stays.
    if let Some(disk) = disk.filter(LoopFile::exists) {
        vacant(&dir)?;
        drop(dir);
        disk.unmount(manager)?;
        disk.delete()?;
        changed = true;
    }
    if found.is_some_and(|m| m.made) {
        rmdir(&path)?;
    }
    Ok(changed)
}

/// Refuses while a backing is there.
fn empty(dir: &Dir, datastore: Id) -> Result<(), DriverError> {
    let held = backings(dir)?;
    let Some(first) = held.first() else { return Ok(()) };
    let tried = format!("take datastore {datastore} away from {}", dir.path().display());
    let why = format!("{} disks are in it, the first is {}/{}", held.len(), first.folder(), first.name());
    Err(DriverError::new(Kind::Conflict, tried, why).fix("remove its images, volumes and snapshots first"))
}

/// Removes what is ours, the marker last: until then a repeat goes on where this stopped.
fn clear(dir: &Dir) -> Result<(), DriverError> {
    if let Some(arrivals) = dir.find("staging")? {
        staging::clear(&arrivals)?;
    }
    for name in FOLDERS {
        let Some(folder) = dir.find(name)? else { continue };
        for left in folder.names()? {
            // Descriptions of images and half-made copies; everything else is foreign and stays, with its folder.
            if left.ends_with(".meta") || left.ends_with(".new") {
                folder.unlink(&left)?;
            }
        }
        drop(folder);
        dir.rmdir(name)?;
    }
    dir.unlink(&format!(".{MARKER}.new"))?;
    dir.sync()?;
    dir.unlink(MARKER)?;
    dir.sync()
}

/// Removes the folder that bmid made, unless something foreign is in it.
fn rmdir(path: &Path) -> Result<(), DriverError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return Ok(()) };
    // The parent may be a link of the administrator's, so it is not opened as one of our folders.
    match std::fs::remove_dir(path) {
        Ok(()) => std::fs::File::open(parent)
            .and_then(|p| p.sync_all())
            .map_err(|e| DriverError::io(format!("remove folder {name}"), e)),
        Err(_) => Ok(()),
    }
}

/// All whole backings.
pub(super) fn backings(dir: &Dir) -> Result<Vec<Backing>, DriverError> {
    let mut found = Vec::new();
    for kind in KINDS {
        let folder = Backing { kind, id: Id([0; 16]), generation: 0 }.folder();
        let Some(folder) = dir.find(folder)? else { continue };
        found.extend(folder.names()?.iter().filter_map(|name| backing(kind, name)));
    }
    Ok(found)
}

/// The backing behind a file name `<id>.<generation>.raw`; none for what is not written exactly so.
pub(super) fn backing(kind: BackingKind, name: &str) -> Option<Backing> {
    let (id, generation) = name.strip_suffix(".raw")?.split_once('.')?;
    let found = Backing { kind, id: id.parse().ok()?, generation: generation.parse().ok()? };
    (format!("{}.raw", found.name()) == name).then_some(found)
}
