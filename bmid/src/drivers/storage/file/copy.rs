//! Copies of disks: shared bytes where the file system can, else a copy of what is not hole; and reading a disk by its
//! extents.
//!
//! A copy gets its name only when it is whole and durable. Holes stay holes.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use bmi::model::Kind;
use bmi::step::{self, Backing, BackingKind};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::unistd::{Whence, lseek};

use super::dir::Dir;
use super::{ffi, note};
use crate::drivers::{Done, DriverError, StepCx};

/// How much is read or written at once; between two of them cancellation is looked at.
pub(in crate::drivers::storage) const CHUNK: usize = 1 << 20;

pub(super) fn file_name(what: &Backing) -> String {
    format!("{}.raw", what.name())
}

/// The name of a copy that is not whole.
fn temp_name(what: &Backing) -> String {
    format!(".{}.raw.new", what.name())
}

/// The name of what an import found out about an image.
pub(super) fn meta_name(what: &Backing) -> String {
    format!("{}.meta", what.name())
}

/// Carries out a [`step::Clone`].
pub(super) fn clone(root: &Dir, s: &step::Clone, cx: &StepCx<'_>) -> Result<Done, DriverError> {
    let into = root.sub(s.to.folder())?;
    let name = file_name(&s.to);
    if into.stat(&name)?.is_some() {
        return Ok(Done::ALREADY);
    }
    let from_dir = root.sub(s.from.folder())?;
    let tried = || format!("clone {}/{} from {}/{}", s.to.folder(), s.to.name(), s.from.folder(), s.from.name());
    let Some(from) = from_dir.open(&file_name(&s.from), OFlag::O_RDONLY)? else {
        return Err(DriverError::new(Kind::Outside, tried(), "the disk to copy is not there")
            .fix("`bmictl reconcile --check` shows what else is missing"));
    };
    let temp = temp_name(&s.to);
    let to = into.create(&temp)?;
    let whole = || -> Result<(), DriverError> {
        bytes(&from, &to, cx)?;
        note::write(&to, s.note.as_ref())?;
        let mode = if s.to.kind == BackingKind::Volume { 0o600 } else { 0o400 };
        to.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| to.sync_all())
            .map_err(|e| io_error(&tried(), e))?;
        into.publish(&temp, &into, &name)
    };
    whole().inspect_err(|_| {
        // What is not whole is not kept; the failure itself is what is told.
        let _ = into.unlink(&temp);
    })?;
    Ok(Done::CHANGED)
}

/// Carries out a [`step::Remove`].
pub(super) fn remove(root: &Dir, what: &Backing) -> Result<Done, DriverError> {
    let Some(dir) = root.find(what.folder())? else { return Ok(Done::ALREADY) };
    let mut changed = dir.unlink(&file_name(what))?;
    changed |= dir.unlink(&temp_name(what))?;
    if what.kind == BackingKind::Image {
        changed |= dir.unlink(&meta_name(what))?;
    }
    if changed {
        dir.sync()?;
    }
    Ok(Done::changed(changed))
}

/// Gives `to`, an empty file, the bytes of `from`.
fn bytes(from: &File, to: &File, cx: &StepCx<'_>) -> Result<(), DriverError> {
    match ffi::reflink(from, to) {
        Ok(()) => Ok(()),
        Err(e) if cannot_share(&e) => sparse(from, to, cx),
        Err(e) => Err(io_error("share the bytes of a disk", e)),
    }
}

/// Whether a failed reflink only says that these two files cannot share bytes.
pub(super) fn cannot_share(e: &io::Error) -> bool {
    const WORDS: [Errno; 6] =
        [Errno::EOPNOTSUPP, Errno::ENOTTY, Errno::EXDEV, Errno::EINVAL, Errno::ENOSYS, Errno::ETXTBSY];
    e.raw_os_error().is_some_and(|n| WORDS.contains(&Errno::from_raw(n)))
}

/// Copies the extents of `from` to `to`.
pub(super) fn sparse(from: &File, to: &File, cx: &StepCx<'_>) -> Result<(), DriverError> {
    let tried = "copy a disk's bytes";
    let size = from.metadata().map_err(|e| io_error(tried, e))?.len();
    to.set_len(size).map_err(|e| io_error(tried, e))?;
    walk(from, size, cx, &mut |offset, part| match part {
        Part::Bytes(b) => to.write_all_at(b, offset).map_err(|e| io_error(tried, e)),
        Part::Hole(_) => Ok(()),
    })
}

/// A piece of a disk.
pub(in crate::drivers::storage) enum Part<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// So many zeros, not stored.
    Hole(u64),
}

/// Gives a disk's pieces in order, each with its offset, the holes as holes.
pub(in crate::drivers::storage) fn walk(
    file: &File,
    size: u64,
    cx: &StepCx<'_>,
    each: &mut dyn FnMut(u64, Part<'_>) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let read = |e| DriverError::io("read a disk's bytes", e);
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let (start, end) = extent(file, at, size).map_err(read)?;
        if start > at {
            each(at, Part::Hole(start - at))?;
        }
        at = start;
        while at < end {
            if (cx.cancelled)() {
                return Err(cancelled("copy a disk's bytes"));
            }
            let n = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            file.read_exact_at(&mut buf[..n], at).map_err(read)?;
            each(at, Part::Bytes(&buf[..n]))?;
            at += n as u64;
            (cx.progress)(at, Some(size));
        }
    }
    (cx.progress)(size, Some(size));
    Ok(())
}

/// The next run of stored bytes at or behind `at`: start and end, both `size` if there is none.
fn extent(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |at: u64, whence| -> io::Result<Option<u64>> {
        match lseek(file, i64::try_from(at).unwrap_or(i64::MAX), whence) {
            Ok(n) => Ok(Some(u64::try_from(n).unwrap_or(size).min(size))),
            Err(Errno::ENXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    };
    let Some(start) = seek(at, Whence::SeekData)? else { return Ok((size, size)) };
    let end = seek(start, Whence::SeekHole)?.unwrap_or(size);
    Ok((start, end))
}

/// Gives space back that lies in a file's holes: XFS reserves some ahead of a growing file, and what was reserved where a
/// hole came to be would stay.
pub(super) fn trim(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    let size = meta.len();
    let mut holes = Vec::new();
    let (mut at, mut stored) = (0, 0);
    while at < size {
        let (start, end) = extent(file, at, size)?;
        if start > at {
            holes.push((at, start - at));
        }
        stored += end - start;
        at = end;
    }
    if meta.blocks() * 512 <= stored + CHUNK as u64 {
        return Ok(());
    }
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for (at, len) in holes {
        let offset = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match fallocate(file, punch, offset(at), offset(len)) {
            // Where holes cannot be made none hold space.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Like [`DriverError::io`], for writing to a datastore.
pub(in crate::drivers::storage) fn io_error(tried: &str, e: io::Error) -> DriverError {
    DriverError::io(tried, e)
}

pub(in crate::drivers::storage) fn cancelled(tried: &str) -> DriverError {
    DriverError::new(Kind::Cancelled, tried, "it was cancelled")
}
