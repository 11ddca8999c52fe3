//! Writes a disk's bytes into a client's descriptor: raw into anything, qcow2 into what can be sought.
//!
//! It changes nothing of ours. The client opened the descriptor with its own rights; it is never opened again here.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::time::Duration;

use bmi::model::{Format, Kind};
use bmi::step::Export;
use nix::fcntl::OFlag;

use super::copy::{CHUNK, Part, file_name, walk};
use super::dir::Dir;
use super::staging::Staging;
use super::tool;
use crate::drivers::{Done, DriverError, StepCx};

const TIME: Duration = Duration::from_secs(6 * 3_600);

/// Carries out an [`Export`].
pub(super) fn export(root: &Dir, s: &Export, cx: &StepCx<'_>) -> Result<Done, DriverError> {
    let tried = format!("write out {} {} as {}", s.what.folder(), s.what.name(), s.format);
    let Some(output) = cx.input else {
        return Err(
            DriverError::new(Kind::Interrupted, tried, "the file to write to is gone").fix("repeat the same command")
        );
    };
    let Some(disk) = root.sub(s.what.folder())?.open(&file_name(&s.what), OFlag::O_RDONLY)? else {
        return Err(DriverError::new(Kind::Outside, tried, "the disk is not there")
            .fix("`bmictl reconcile --check` shows what else is missing"));
    };
    match s.format {
        Format::Raw => write(&disk, output, &tried, cx)?,
        Format::Qcow2 => qcow2(root, s, &disk, output, &tried, cx)?,
        other => {
            return Err(DriverError::new(Kind::Invalid, tried, format!("disks are not written as {other}"))
                .fix("use raw or qcow2, and convert that with `qemu-img convert`"));
        }
    }
    Ok(Done::CHANGED)
}

/// Has qemu-img make a qcow2 in staging, then writes that. Our disk is raw: nothing in it is parsed, so nothing needs to
/// be confined.
fn qcow2(root: &Dir, s: &Export, disk: &File, output: &File, tried: &str, cx: &StepCx<'_>) -> Result<(), DriverError> {
    let name = format!("export-{}-{}", s.what.id, s.what.generation);
    let missing = || DriverError::new(Kind::Outside, tried, "the staging folder went away");
    let staging = Staging::open(root, &name, true)?.ok_or_else(missing)?;
    let made = staging.dir.create("disk").and_then(|temp| through(disk, &temp, output, tried, cx));
    let cleared = staging.remove();
    made.and(cleared)
}

/// Has qemu-img make a qcow2 of `disk` in `temp`, an empty file, and writes that.
pub(in crate::drivers::storage) fn through(
    disk: &File,
    temp: &File,
    output: &File,
    tried: &str,
    cx: &StepCx<'_>,
) -> Result<(), DriverError> {
    let failed = |e| DriverError::io(tried, e);
    let mut c = tool::command("qemu-img");
    c.args(["convert", "-f", "raw", "-O", "qcow2", "/dev/stdin", "/dev/stdout"]);
    c.stdin(disk.try_clone().map_err(failed)?).stdout(temp.try_clone().map_err(failed)?);
    let cancelled = || super::copy::cancelled(tried);
    let watch = &mut || if (cx.cancelled)() { Err(cancelled()) } else { Ok(()) };
    let ended = tool::run(&mut c, "qemu-utils", TIME, watch)?;
    if ended.status.success() {
        return write(temp, output, tried, cx);
    }
    let why = tool::said(&ended);
    let kind = if why.contains("No space left") { Kind::Full } else { Kind::Outside };
    Err(DriverError::new(kind, tried, why).fix("look at the datastore's free space: a qcow2 is made there first"))
}

/// Writes a file's bytes: holes as holes where the output has some, else as zeros.
fn write(from: &File, output: &File, tried: &str, cx: &StepCx<'_>) -> Result<(), DriverError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::BrokenPipe => {
            DriverError::new(Kind::Interrupted, tried, "the reader stopped").fix("repeat the same command")
        }
        _ => DriverError::io(tried, e),
    };
    let size = from.metadata().map_err(failed)?.len();
    let kind = output.metadata().map_err(failed)?.file_type();
    let zeros = vec![0; CHUNK];
    let fill = |mut n: u64, put: &mut dyn FnMut(&[u8]) -> io::Result<()>| -> Result<(), DriverError> {
        while n > 0 {
            if (cx.cancelled)() {
                return Err(super::copy::cancelled(tried));
            }
            let now = CHUNK.min(usize::try_from(n).unwrap_or(CHUNK));
            put(&zeros[..now]).map_err(failed)?;
            n -= now as u64;
        }
        Ok(())
    };
    if kind.is_file() {
        output.set_len(0).and_then(|()| output.set_len(size)).map_err(failed)?;
        walk(from, size, cx, &mut |offset, part| match part {
            Part::Bytes(b) => output.write_all_at(b, offset).map_err(failed),
            Part::Hole(_) => Ok(()),
        })?;
        return output.sync_all().map_err(failed);
    }
    let mut stream = output;
    walk(from, size, cx, &mut |_, part| match part {
        Part::Bytes(b) => stream.write_all(b).map_err(failed),
        Part::Hole(n) => fill(n, &mut |z| stream.write_all(z)),
    })?;
    if kind.is_block_device() { output.sync_all().map_err(failed) } else { Ok(()) }
}
