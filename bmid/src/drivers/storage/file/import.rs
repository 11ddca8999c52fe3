//! Takes a golden image in: input to staging, our own look at it, conversion if it is not raw, then its final name.
//!
//! Nothing gets the final name before it is whole, durable and what it was said to be. The description is written before
//! it, so that a repeat after a crash can answer. A refused input leaves nothing; a cut-off one leaves its staging.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

use bmi::model::{Bytes, Format, Kind};
use bmi::step::{Backing, Import, Imported};
use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::convert::{Convert, Job};
use super::copy::{CHUNK, Part, file_name, io_error, meta_name, trim, walk};
use super::dir::Dir;
use super::note;
use super::receive::{another_format, receive, tried};
use super::staging::{Arrived, DATA, DISK, Staging};
use crate::drivers::storage::probe::{Bad, Probed, Whole, probe};
use crate::drivers::storage::stream::{SECTOR, hex};
use crate::drivers::{Done, DriverError, StepCx};

/// Carries out an [`Import`].
pub(super) fn import(root: &Dir, s: &Import, by: &dyn Convert, cx: &StepCx<'_>) -> Result<Done, DriverError> {
    let images = root.sub("images")?;
    let what = Backing::image(s.image);
    if images.stat(&file_name(&what))?.is_some() {
        let imported = described(&images, s)?;
        if let Some(left) = Staging::open(root, &s.staging, false)? {
            left.remove()?;
        }
        return Ok(Done { changed: false, imported: Some(imported) });
    }
    let Some(staging) = Staging::open(root, &s.staging, cx.input.is_some())? else { return Err(interrupted(s)) };
    let finished = arrive(s, &staging, cx).and_then(|arrived| finish(s, &images, &staging, &arrived, by, cx));
    match finished {
        Ok(imported) => {
            staging.remove()?;
            Ok(Done { changed: true, imported: Some(imported) })
        }
        Err(e) => {
            if matches!(e.kind, Kind::Invalid | Kind::Corrupt | Kind::Limit | Kind::Full) {
                // These bytes will not be asked for again, or take the space that is missing. The refusal says more
                // than a failure to remove them, and what stays is collected later.
                let _ = staging.remove();
            }
            Err(e)
        }
    }
}

fn interrupted(s: &Import) -> DriverError {
    DriverError::new(Kind::Interrupted, tried(s), "the input is gone, and not all of it had come")
        .fix("repeat the same command; it goes on where it stopped")
}

/// The input, from the client or, when that is gone, from a staging that has all of it.
fn arrive(s: &Import, staging: &Staging, cx: &StepCx<'_>) -> Result<Arrived, DriverError> {
    match cx.input {
        Some(input) => receive(s, staging, input, cx),
        None => staging.arrived()?.ok_or_else(|| interrupted(s)),
    }
}

/// What an earlier, finished try found out.
fn described(images: &Dir, s: &Import) -> Result<Imported, DriverError> {
    let text = images.read(&meta_name(&Backing::image(s.image)))?;
    text.and_then(|t| serde_json::from_slice(&t).ok()).filter(|i: &Imported| i.image == s.image).ok_or_else(|| {
        let why = "a disk of that id is there, and no description of an import beside it";
        DriverError::new(Kind::Conflict, tried(s), why).fix("remove that image first")
    })
}

fn finish(
    s: &Import,
    images: &Dir,
    staging: &Staging,
    arrived: &Arrived,
    by: &dyn Convert,
    cx: &StepCx<'_>,
) -> Result<Imported, DriverError> {
    let gone = || interrupted(s);
    let data = staging.writable(DATA, false)?.ok_or_else(gone)?;
    let probed = judge(s, &data, arrived)?;
    let (name, size, raw_sha256) = if probed.format == Format::Raw {
        let size = arrived.bytes.next_multiple_of(SECTOR);
        settle(s, &data, size)?;
        (DATA, size, arrived.disk_sha256.clone())
    } else {
        let (size, sum) = convert(s, staging, probed, by, cx)?;
        (DISK, size, sum)
    };
    let imported = Imported {
        image: s.image,
        source_format: probed.format,
        size_bytes: Bytes(size),
        md5: arrived.md5.clone(),
        sha256: arrived.sha256.clone(),
        raw_sha256,
    };
    let what = Backing::image(s.image);
    let internal = |e: serde_json::Error| DriverError::new(Kind::Internal, tried(s), e.to_string());
    images.write(&meta_name(&what), &serde_json::to_vec_pretty(&imported).map_err(internal)?, 0o600)?;
    if let (Some(note), Some(disk)) = (&s.note, staging.dir.open(name, OFlag::O_RDONLY)?) {
        note::put(&disk, &imported.told_in(note))?;
    }
    staging.dir.publish(name, images, &file_name(&what)).inspect_err(|_| {
        // A description without a disk would only be litter.
        let _ = images.unlink(&meta_name(&what));
    })?;
    Ok(imported)
}

/// What our copy is, if it may be taken.
fn judge(s: &Import, data: &File, arrived: &Arrived) -> Result<Probed, DriverError> {
    let io = |e| io_error(&tried(s), e);
    let whole = Whole::new(data).map_err(io)?;
    if s.format == Some(Format::Raw) {
        return Ok(Probed { format: Format::Raw, size: arrived.bytes });
    }
    let probed = probe(&whole, s.max_size.0).map_err(|bad| match bad {
        Bad::Io(e) => io(e),
        Bad::Refused(kind, why, fix) => DriverError::new(kind, tried(s), why).fix(fix),
    })?;
    match s.format {
        Some(said) if said != probed.format => Err(another_format(s, said, probed.format)),
        _ => Ok(probed),
    }
}

/// Has our copy converted; the size of the disk and the SHA-256 of its bytes.
fn convert(
    s: &Import,
    staging: &Staging,
    probed: Probed,
    by: &dyn Convert,
    cx: &StepCx<'_>,
) -> Result<(u64, String), DriverError> {
    let dir = &staging.dir;
    let from = dir.open(DATA, OFlag::O_RDONLY)?.ok_or_else(|| interrupted(s))?;
    let into = dir.create(DISK)?;
    let size = probed.size.next_multiple_of(SECTOR);
    into.set_len(size).map_err(|e| io_error(&tried(s), e))?;
    let (from_path, into_path) = (dir.path().join(DATA), dir.path().join(DISK));
    let (from, to) = ((&*from_path, &from), (&*into_path, &into));
    by.convert(&Job { image: s.image, format: probed.format, from, into: to, size }, cx)?;
    let came = into.metadata().map_err(|e| io_error(&tried(s), e))?.len();
    if came != size {
        let why = format!("{came} bytes were converted from a disk of {size}");
        return Err(DriverError::new(Kind::Corrupt, tried(s), why).fix("check the image with `qemu-img check`"));
    }
    settle(s, &into, size)?;
    Ok((size, sum(&into, size, cx)?))
}

/// Gives a whole disk its size and makes it read-only and durable.
fn settle(s: &Import, disk: &File, size: u64) -> Result<(), DriverError> {
    disk.set_len(size)
        .and_then(|()| trim(disk))
        .and_then(|()| disk.set_permissions(Permissions::from_mode(0o400)))
        .and_then(|()| disk.sync_all())
        .map_err(|e| io_error(&tried(s), e))
}

/// The SHA-256 of a disk, its holes as zeros.
fn sum(disk: &File, size: u64, cx: &StepCx<'_>) -> Result<String, DriverError> {
    let zeros = vec![0; CHUNK];
    let mut sha = Sha256::new();
    walk(disk, size, cx, &mut |_, part| {
        match part {
            Part::Bytes(b) => sha.update(b),
            Part::Hole(mut n) => {
                while n > 0 && !(cx.cancelled)() {
                    let now = CHUNK.min(usize::try_from(n).unwrap_or(CHUNK));
                    sha.update(&zeros[..now]);
                    n -= now as u64;
                }
            }
        }
        if (cx.cancelled)() { Err(super::copy::cancelled("sum a disk's bytes")) } else { Ok(()) }
    })?;
    Ok(hex(&sha.finalize()))
}
