//! Where an import's bytes wait until they are whole: `staging/<name>/`, with the bytes in `data`, the converted disk in
//! `disk`, and in `record` what is known once all bytes are there.
//!
//! A staging folder is used by one import at a time (a lock, gone with its holder). It is kept when an import is cut off, so
//! that a repeat goes on, and collected when nobody came for it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

use bmi::model::{Kind, Place};
use bmi::step::Seen;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};

use super::dir::{Dir, errno};
use super::place;
use crate::drivers::DriverError;

/// The bytes as they came.
pub(super) const DATA: &str = "data";
/// The disk converted from them.
pub(super) const DISK: &str = "disk";
const RECORD: &str = "record";
const LOCK: &str = "lock";

/// What is known of an input that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::drivers::storage) struct Arrived {
    /// How many bytes were given.
    pub(in crate::drivers::storage) bytes: u64,
    /// Their MD5.
    pub(in crate::drivers::storage) md5: String,
    /// Their SHA-256.
    pub(in crate::drivers::storage) sha256: String,
    /// The SHA-256 of them as a disk: filled up to a whole sector.
    pub(in crate::drivers::storage) disk_sha256: String,
}

/// One import's folder, held.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) dir: Dir,
    parent: Dir,
    name: String,
    _lock: Flock<File>,
}

impl Staging {
    /// The folder of that name; none if there is none and `make` is not asked for.
    pub(super) fn open(root: &Dir, name: &str, make: bool) -> Result<Option<Staging>, DriverError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.bytes().all(plain) {
            let why = "its name is more than letters, digits, `-`, `_` and `.`";
            return Err(DriverError::new(Kind::Invalid, format!("stage {name:?}"), why));
        }
        let parent = root.sub("staging")?;
        if make {
            parent.make(name)?;
        }
        let Some(dir) = parent.find(name)? else { return Ok(None) };
        let Some(lock) = lock(&dir)? else {
            let tried = format!("use {}", dir.path().display());
            return Err(DriverError::new(Kind::Busy, tried, "another import of the same bytes is using it")
                .fix("wait for that one; `bmictl op ls` shows it"));
        };
        Ok(Some(Staging { dir, parent, name: name.to_owned(), _lock: lock }))
    }

    /// What is known of the input, once it is whole.
    pub(super) fn arrived(&self) -> Result<Option<Arrived>, DriverError> {
        // A damaged record is none: the bytes are read again.
        Ok(self.dir.read(RECORD)?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Notes that the input is whole.
    pub(super) fn note(&self, arrived: &Arrived) -> Result<(), DriverError> {
        let internal = |e: serde_json::Error| DriverError::new(Kind::Internal, "write a record", e.to_string());
        self.dir.write(RECORD, &serde_json::to_vec_pretty(arrived).map_err(internal)?, 0o600)
    }

    /// A file in it, to be written to. One that an earlier try made read-only is ours and made writable again: bmid as a
    /// service has no right to override modes.
    pub(super) fn writable(&self, name: &str, make: bool) -> Result<Option<File>, DriverError> {
        if let Some(file) = self.dir.open(name, OFlag::O_RDONLY)? {
            let tried = || format!("make {} writable", self.dir.path().join(name).display());
            file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| DriverError::io(tried(), e))?;
        } else if !make {
            return Ok(None);
        }
        self.dir.open(name, OFlag::O_RDWR | OFlag::O_CREAT)
    }

    /// Forgets it: bytes may change now.
    pub(super) fn forget(&self) -> Result<(), DriverError> {
        if self.dir.unlink(RECORD)? { self.dir.sync() } else { Ok(()) }
    }

    /// Takes the folder away with everything in it.
    pub(super) fn remove(self) -> Result<(), DriverError> {
        empty(&self.dir)?;
        drop(self.dir);
        self.parent.rmdir(&self.name)?;
        self.parent.sync()
    }
}

/// The lock of a folder, unless somebody has it.
fn lock(dir: &Dir) -> Result<Option<Flock<File>>, DriverError> {
    let Some(file) = dir.open(LOCK, OFlag::O_RDWR | OFlag::O_CREAT)? else { return Ok(None) };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EAGAIN)) => Ok(None),
        Err((_, e)) => Err(DriverError::io(format!("lock {}", dir.path().display()), errno(e))),
    }
}

fn empty(dir: &Dir) -> Result<(), DriverError> {
    for name in dir.names()? {
        dir.unlink(&name)?;
    }
    Ok(())
}

/// Last change of a folder or of anything in it, in seconds since the epoch.
fn changed(dir: &Dir) -> Result<u64, DriverError> {
    let mut last = 0;
    for name in dir.names()?.iter().map(String::as_str).filter(|n| *n != LOCK).chain(["."]) {
        if let Some(stat) = dir.stat(name)? {
            last = last.max(u64::try_from(stat.st_mtime).unwrap_or(0));
        }
    }
    Ok(last)
}

/// All unfinished imports of a datastore.
pub(super) fn seen(root: &Dir) -> Result<Vec<Seen>, DriverError> {
    let Some(parent) = root.find("staging")? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in parent.names()? {
        // One may end meanwhile; what is no folder is none of ours.
        if let Ok(Some(dir)) = parent.find(&name) {
            found.push(Seen::Staging(name, changed(&dir)?));
        }
    }
    Ok(found)
}

/// Removes everything that waits; for a datastore that is taken away.
pub(super) fn clear(parent: &Dir) -> Result<(), DriverError> {
    for name in parent.names()? {
        if let Ok(Some(dir)) = parent.find(&name) {
            empty(&dir)?;
            parent.rmdir(&name)?;
        }
    }
    Ok(())
}

/// Removes what nobody came for: unfinished imports that did not change for `older_than_secs` before `now` (seconds since
/// the epoch) and that nobody is using. How many went. A place that is not available is left alone.
#[must_use]
pub fn collect_staging(place: &Place, older_than_secs: u64, now: u64) -> usize {
    let Ok(path) = place::path(place) else { return 0 };
    let Ok(Some(dir)) = Dir::at(&path) else { return 0 };
    if !matches!(dir.stat(place::MARKER), Ok(Some(_))) {
        return 0;
    }
    let Ok(found) = seen(&dir) else { return 0 };
    let mut gone = 0;
    for seen in found {
        let Seen::Staging(name, last) = seen else { continue };
        if last.saturating_add(older_than_secs) > now {
            continue;
        }
        // One in use is busy; one that cannot be removed stays for the next time.
        if let Ok(Some(staging)) = Staging::open(&dir, &name, false)
            && staging.remove().is_ok()
        {
            gone += 1;
        }
    }
    gone
}
