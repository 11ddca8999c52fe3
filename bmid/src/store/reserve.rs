//! The reserve against a full disk: 64 MiB that are ours, given back when nothing else is left.
//!
//! sled does not open on a full disk and refuses every write after it met one. So the store looks for room before each
//! write and refuses while nothing is lost; running operations may use the reserve to come to their end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bmi::model::Fault;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;

use super::raw;

/// Size of the file.
pub(super) const SIZE: u64 = 64 << 20;
/// With less than this left a write is refused: sled takes space in segments of 512 KiB, several of them in a commit that
/// moves pages around.
const LOW: u64 = 8 << 20;

/// Whether a write may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room.
    Enough,
    /// There is none.
    Full,
}

/// The reserve file of a state folder.
pub(super) struct Reserve {
    path: PathBuf,
    dir: File,
    present: AtomicBool,
}

impl Reserve {
    /// Looks whether the file is there, whole.
    pub(super) fn look(dir: &Path) -> io::Result<Reserve> {
        let path = dir.join("reserve");
        let whole = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == SIZE);
        Ok(Reserve { dir: File::open(dir)?, path, present: AtomicBool::new(whole) })
    }

    /// Whether it is there.
    pub(super) fn present(&self) -> bool {
        self.present.load(Ordering::Acquire)
    }

    fn free(&self) -> Option<u64> {
        let s = fstatvfs(self.dir.as_fd()).ok()?;
        Some(s.blocks_available().saturating_mul(s.fragment_size()))
    }

    /// Whether there is room for a write; one that `ends` something begun may have the reserve. A file system that does
    /// not tell how much is free is taken to have room.
    pub(super) fn room(&self, ends: bool) -> Room {
        match self.free() {
            Some(free) if free < LOW => {}
            _ => return Room::Enough,
        }
        if ends && (self.release() || self.free().is_some_and(|f| f > 0)) { Room::Enough } else { Room::Full }
    }

    /// Whether little is left.
    pub(super) fn is_low(&self) -> bool {
        self.free().is_some_and(|f| f < LOW)
    }

    /// Gives the space back if little else is left, so that sled can open and be fed.
    pub(super) fn release_if_low(&self) -> bool {
        self.is_low() && self.release()
    }

    /// Gives the space back; says whether there was any.
    pub(super) fn release(&self) -> bool {
        // A reserve that is no whole file holds nothing worth having; it goes too.
        let gone = std::fs::remove_file(&self.path).is_ok();
        self.present.store(false, Ordering::Release);
        // The space is free for us before the removal is durable; after a crash it is merely there again.
        gone
    }

    /// Makes the file if it is missing and twice its size is free, so that making it does not fill the disk.
    pub(super) fn remake(&self) -> Result<bool, Fault> {
        if self.present() {
            return Ok(true);
        }
        if self.free().is_some_and(|f| f < 2 * SIZE) {
            return Ok(false);
        }
        match self.make() {
            Ok(()) => {
                self.present.store(true, Ordering::Release);
                Ok(true)
            }
            Err(e) if raw::is_full(&e) => {
                let _ = std::fs::remove_file(&self.path);
                Ok(false)
            }
            Err(e) => Err(raw::outside(&format!("make the reserve file {}", self.path.display()), &e.into())),
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        fallocate(&file, FallocateFlags::empty(), 0, SIZE as i64)?;
        file.sync_all()?;
        self.dir.sync_all()
    }
}
