//! Files of this host on their way from or to a pool, and an image's stored bytes in order.
//!
//! Such a file never outlives what it was made for: it is gone with its folder, or emptied by the next of that name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::image::ffi::Image;
use super::pool::failed;
use crate::drivers::storage::file::copy::{CHUNK, cancelled};
use crate::drivers::{DriverError, StepCx};

/// Takes a piece: its offset and bytes.
pub(super) type Take<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), DriverError>;

/// Gives what an image stores, in order, in pieces.
pub(super) fn each(image: &Image, size: u64, cx: &StepCx<'_>, tried: &str, take: Take<'_>) -> Result<(), DriverError> {
    let mut buf = vec![0; CHUNK];
    for extent in image.stored().map_err(|e| failed(tried, e))? {
        let (mut at, end) = (extent.offset, (extent.offset + extent.len).min(size));
        while at < end {
            if (cx.cancelled)() {
                return Err(cancelled(tried));
            }
            let n = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            let read = image.read(at, &mut buf[..n]).map_err(|e| failed(tried, e))?;
            take(at, &buf[..read])?;
            at += n as u64;
            (cx.progress)(at, Some(size));
        }
    }
    (cx.progress)(size, Some(size));
    Ok(())
}

/// Copies an image's stored bytes into a file: zeros stay holes.
pub(super) fn copy_out(image: &Image, into: &File, size: u64, cx: &StepCx<'_>, tried: &str) -> Result<(), DriverError> {
    let io = |e| DriverError::io(tried, e);
    into.set_len(size).map_err(io)?;
    each(image, size, cx, tried, &mut |offset, bytes| into.write_all_at(bytes, offset).map_err(io))
}

/// A folder of this host for files on their way; gone with this value, and emptied by the next that has its name.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(below: &Path, name: &str) -> io::Result<Scratch> {
        let path = below.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Scratch(path))
    }

    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.0.join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is emptied by the next of that name.
        let _ = fs::remove_dir_all(&self.0);
    }
}
