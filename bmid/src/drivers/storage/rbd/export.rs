//! Writes a disk of a pool into a client's descriptor: raw into anything, qcow2 into what can be sought.
//!
//! It changes nothing of ours. What the pool does not store is not read, and stays a hole where the output has some.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use bmi::model::{Format, Kind};
use bmi::step::Export;

use super::disks::{Site, Source};
use super::image::ffi::{Image, Which};
use super::local::{Scratch, copy_out, each};
use super::pool::{absent, failed};
use crate::drivers::storage::file::copy::{CHUNK, cancelled};
use crate::drivers::storage::file::export::through;
use crate::drivers::{Done, DriverError, StepCx};

/// Carries out an [`Export`].
pub(super) fn export(site: &Site<'_>, s: &Export, scratch: &Path, cx: &StepCx<'_>) -> Result<Done, DriverError> {
    let tried = format!("write out {} {} as {}", s.what.folder(), s.what.name(), s.format);
    let Some(output) = cx.input else {
        return Err(
            DriverError::new(Kind::Interrupted, tried, "the file to write to is gone").fix("repeat the same command")
        );
    };
    let gone = || {
        DriverError::new(Kind::Outside, tried.as_str(), "the disk is not there")
            .fix("`bmictl reconcile --check` shows what else is missing")
    };
    let Source { image: name, snap, .. } = site.source(&s.what, &tried)?.ok_or_else(gone)?;
    let image = absent(site.pool.open_read(Which::Name(&name), snap.as_deref()));
    let image = image.map_err(|e| failed(&tried, e))?.ok_or_else(gone)?;
    let size = image.size().map_err(|e| failed(&tried, e))?;
    match s.format {
        Format::Raw => write(&image, size, output, &tried, cx)?,
        Format::Qcow2 => {
            let io = |e| DriverError::io(tried.as_str(), e);
            let place = Scratch::new(scratch, &format!("export-{}", s.what.name())).map_err(io)?;
            let disk = place.file("raw").map_err(io)?;
            copy_out(&image, &disk, size, cx, &tried)?;
            through(&disk, &place.file("disk").map_err(io)?, output, &tried, cx)?;
        }
        other => {
            return Err(DriverError::new(Kind::Invalid, tried, format!("disks are not written as {other}"))
                .fix("use raw or qcow2, and convert that with `qemu-img convert`"));
        }
    }
    Ok(Done::CHANGED)
}

fn write(image: &Image, size: u64, output: &File, tried: &str, cx: &StepCx<'_>) -> Result<(), DriverError> {
    let io = |e: io::Error| match e.kind() {
        io::ErrorKind::BrokenPipe => {
            DriverError::new(Kind::Interrupted, tried, "the reader stopped").fix("repeat the same command")
        }
        _ => DriverError::io(tried, e),
    };
    let kind = output.metadata().map_err(io)?.file_type();
    if kind.is_file() {
        output.set_len(0).and_then(|()| output.set_len(size)).map_err(io)?;
        each(image, size, cx, tried, &mut |offset, bytes| output.write_all_at(bytes, offset).map_err(io))?;
        return output.sync_all().map_err(io);
    }
    let (mut stream, mut at, zeros) = (output, 0, vec![0; CHUNK]);
    let fill = |mut stream: &File, at: &mut u64, until: u64| -> Result<(), DriverError> {
        while *at < until {
            if (cx.cancelled)() {
                return Err(cancelled(tried));
            }
            let n = CHUNK.min(usize::try_from(until - *at).unwrap_or(CHUNK));
            stream.write_all(&zeros[..n]).map_err(io)?;
            *at += n as u64;
        }
        Ok(())
    };
    each(image, size, cx, tried, &mut |offset, bytes| {
        fill(stream, &mut at, offset)?;
        stream.write_all(bytes).map_err(io)?;
        at += bytes.len() as u64;
        Ok(())
    })?;
    fill(stream, &mut at, size)?;
    if kind.is_block_device() { output.sync_all().map_err(io) } else { Ok(()) }
}
