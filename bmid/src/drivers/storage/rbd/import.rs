//! Takes a golden image in: the input into a staging image, our own look at it, conversion if it is not raw, then its snapshot,
//! its mark and its final name.
//!
//! Nothing gets the final name before it is whole, in the cluster, and what it was said to be. A refused input leaves nothing; a
//! cut-off one leaves its staging, which the register knows by name.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bmi::model::{Bytes, Format, Kind};
use bmi::step::{Backing, Import, Imported};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::disks::Site;
use super::found;
use super::image::ffi::{Image, Which};
use super::local::{Scratch, copy_out};
use super::names::{self, BASE, Mark};
use super::pool::{Pool, absent, failed};
use super::receive::{receive, store};
use crate::drivers::storage::file::copy::{CHUNK, Part, cancelled, walk};
use crate::drivers::storage::file::receive::{another_format, tried};
use crate::drivers::storage::file::staging::Arrived;
use crate::drivers::storage::file::{Convert, Job};
use crate::drivers::storage::probe::{self, Bad, Probed, probe};
use crate::drivers::storage::stream::{SECTOR, hex};
use crate::drivers::{Done, DriverError, StepCx};

/// What the register says of an unfinished import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stage {
    /// Last change, in seconds since the epoch.
    pub(super) touched: u64,
    /// So many bytes are there for certain.
    came: u64,
    /// Known once all bytes are there.
    arrived: Option<Arrived>,
}

/// Imports of this bmid that run now: two of the same bytes would write into one image.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashSet<String>>);

pub(super) struct Held<'a>(&'a Running, String);

impl Running {
    pub(super) fn hold(&self, key: &str, tried: &str) -> Result<Held<'_>, DriverError> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned()) {
            return Ok(Held(self, key.to_owned()));
        }
        Err(DriverError::new(Kind::Busy, tried, "another import of the same bytes runs")
            .fix("wait for that one; `bmictl op ls` shows it"))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// The images of a staging: the input's bytes, and the disk converted from them.
pub(super) fn staged(pool: &Pool, staging: &str) -> [String; 2] {
    let digest = hex(&Sha256::digest(staging.as_bytes()));
    let data = names::staging(&pool.place.prefix(), &digest);
    let disk = format!("{data}.d");
    [data, disk]
}

/// Takes an unfinished import's images away; its entry in the register is the caller's.
pub(super) fn discard(pool: &Pool, staging: &str) -> Result<(), Errno> {
    for name in staged(pool, staging) {
        absent(pool.trash(&name))?;
    }
    Ok(())
}

/// One import.
struct Work<'a> {
    site: &'a Site<'a>,
    s: &'a Import,
    cx: &'a StepCx<'a>,
    key: String,
    /// The input's bytes.
    data: String,
    /// The disk converted from them.
    disk: String,
}

/// Carries out an [`Import`].
pub(super) fn import(
    site: &Site<'_>,
    s: &Import,
    by: (&dyn Convert, &Path, &Running),
    cx: &StepCx<'_>,
) -> Result<Done, DriverError> {
    let tried = tried(s);
    let [data, disk] = staged(site.pool, &s.staging);
    let work = Work { site, s, cx, key: format!("stage.{}.{}", s.datastore, s.staging), disk, data };
    if let Some((_, mark)) = site.whole(&Backing::image(s.image), &tried, true)? {
        work.forget()?;
        let imported = mark.imported.filter(|i| i.image == s.image).ok_or_else(|| {
            let why = "a disk of that id is there, and it was not imported";
            DriverError::new(Kind::Conflict, tried.as_str(), why).fix("remove that image first")
        })?;
        return Ok(Done { changed: false, imported: Some(imported) });
    }
    let _held = by.2.hold(&work.key, &tried)?;
    match work.arrive().and_then(|arrived| work.finish(&arrived, by.0, by.1)) {
        Ok(imported) => {
            work.forget()?;
            Ok(Done { changed: true, imported: Some(imported) })
        }
        Err(e) => {
            if matches!(e.kind, Kind::Invalid | Kind::Corrupt | Kind::Limit | Kind::Full) {
                // These bytes will not be asked for again. The refusal says more than a failure to remove them.
                let _ = work.forget();
            }
            Err(e)
        }
    }
}

impl Work<'_> {
    fn fail(&self, e: Errno) -> DriverError {
        failed(&tried(self.s), e)
    }

    fn note(&self, came: u64, arrived: Option<Arrived>) -> Result<(), DriverError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.site.pool.set_entry(&self.key, &Stage { touched: now, came, arrived }).map_err(|e| self.fail(e))
    }

    /// Takes staging away.
    fn forget(&self) -> Result<(), DriverError> {
        for name in [&self.data, &self.disk] {
            self.site.pool.discard(name).map_err(|e| self.fail(e))?;
        }
        self.site.pool.remove_entry(&self.key).map_err(|e| self.fail(e))
    }

    /// The input, from the client or, when that is gone, from a staging that has all of it.
    fn arrive(&self) -> Result<Arrived, DriverError> {
        let stage: Option<Stage> = self.site.pool.entry(&self.key).map_err(|e| self.fail(e))?;
        let Some(input) = self.cx.input else {
            return stage.and_then(|s| s.arrived).ok_or_else(|| self.interrupted());
        };
        if stage.is_none() {
            // So that it is known what the image is, should nobody come back for it.
            self.note(0, None)?;
        }
        let (image, new) = self.staging()?;
        let came = stage.as_ref().filter(|_| !new).map_or(0, |s| s.came);
        if stage.is_some() {
            self.note(came, None)?;
        }
        let arrived = receive(self.s, &image, came, input, self.cx, &|came| self.note(came, None))?;
        self.note(arrived.bytes, Some(arrived.clone()))?;
        Ok(arrived)
    }

    /// The image for the input's bytes, and whether it is new. One whose maker died in its first moment is listed and leads nowhere.
    fn staging(&self) -> Result<(Image, bool), DriverError> {
        let (pool, fail) = (self.site.pool, |e| self.fail(e));
        let open = || pool.open(Which::Name(&self.data));
        if let Some(image) = absent(open()).map_err(fail)? {
            return Ok((image, false));
        }
        match pool.io.create(&self.data, 0) {
            Err(Errno::EEXIST) => {
                pool.discard(&self.data).map_err(fail)?;
                pool.io.create(&self.data, 0).map_err(fail)?;
            }
            made => made.map_err(fail)?,
        }
        Ok((open().map_err(fail)?, true))
    }

    fn interrupted(&self) -> DriverError {
        DriverError::new(Kind::Interrupted, tried(self.s), "the input is gone, and not all of it had come")
            .fix("repeat the same command; it goes on where it stopped")
    }

    fn finish(&self, arrived: &Arrived, by: &dyn Convert, scratch: &Path) -> Result<Imported, DriverError> {
        let pool = self.site.pool;
        let data = absent(pool.open_read(Which::Name(&self.data), None)).map_err(|e| self.fail(e))?;
        let data = data.ok_or_else(|| self.interrupted())?;
        let probed = self.judge(&data, arrived)?;
        let (name, size, raw_sha256) = if probed.format == Format::Raw {
            drop(data);
            (&self.data, arrived.bytes.next_multiple_of(SECTOR), arrived.disk_sha256.clone())
        } else {
            let (size, sum) = self.convert(&data, arrived, probed, by, scratch)?;
            (&self.disk, size, sum)
        };
        let imported = Imported {
            image: self.s.image,
            source_format: probed.format,
            size_bytes: Bytes(size),
            md5: arrived.md5.clone(),
            sha256: arrived.sha256.clone(),
            raw_sha256,
        };
        let (what, fail) = (Backing::image(self.s.image), |e| self.fail(e));
        let image = pool.open(Which::Name(name)).map_err(fail)?;
        match image.snap(BASE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(fail(e)),
        }
        drop(image);
        let id = pool.id_of(name).map_err(fail)?.ok_or_else(|| self.interrupted())?;
        let note = found::written(self.s.note.as_ref().map(|n| imported.told_in(n)).as_ref());
        let mark = Mark { imported: Some(imported.clone()), note, ..self.site.mark(&what, 0) };
        pool.set_mark(&id, &mark).map_err(fail)?;
        pool.rename(name, &self.site.name(&what)).map_err(fail)?;
        Ok(imported)
    }

    /// What our copy is, if it may be taken.
    fn judge(&self, data: &Image, arrived: &Arrived) -> Result<Probed, DriverError> {
        let s = self.s;
        if s.format == Some(Format::Raw) {
            return Ok(Probed { format: Format::Raw, size: arrived.bytes });
        }
        let probed = probe(&Staged { image: data, size: arrived.bytes }, s.max_size.0).map_err(|bad| match bad {
            Bad::Io(e) => DriverError::io(tried(s), e),
            Bad::Refused(kind, why, fix) => DriverError::new(kind, tried(s), why).fix(fix),
        })?;
        match s.format {
            Some(said) if said != probed.format => Err(another_format(s, said, probed.format)),
            _ => Ok(probed),
        }
    }

    /// Has our copy converted, in files of this host, and the disk written into an image: its size and SHA-256.
    fn convert(
        &self,
        data: &Image,
        arrived: &Arrived,
        probed: Probed,
        by: &dyn Convert,
        scratch: &Path,
    ) -> Result<(u64, String), DriverError> {
        let (s, io) = (self.s, |e| DriverError::io(tried(self.s), e));
        let place = Scratch::new(scratch, &s.image.to_string()).map_err(io)?;
        let (from_path, into_path) = (place.0.join("data"), place.0.join("disk"));
        let from = place.file("data").map_err(io)?;
        copy_out(data, &from, arrived.bytes, self.cx, &tried(s))?;
        drop(from);
        let from = File::open(&from_path).map_err(io)?;
        let into = place.file("disk").map_err(io)?;
        let size = probed.size.next_multiple_of(SECTOR);
        into.set_len(size).map_err(io)?;
        by.convert(
            &Job { image: s.image, format: probed.format, from: (&from_path, &from), into: (&into_path, &into), size },
            self.cx,
        )?;
        let came = into.metadata().map_err(io)?.len();
        if came != size {
            let why = format!("{came} bytes were converted from a disk of {size}");
            return Err(DriverError::new(Kind::Corrupt, tried(s), why).fix("check the image with `qemu-img check`"));
        }
        let sum = self.write_in(&into, size)?;
        Ok((size, sum))
    }

    /// Writes a disk's file into the second staging image; its SHA-256, holes as zeros.
    fn write_in(&self, from: &File, size: u64) -> Result<String, DriverError> {
        let fail = |e| self.fail(e);
        self.site.pool.discard(&self.disk).map_err(fail)?;
        self.site.pool.io.create(&self.disk, size).map_err(fail)?;
        let image = self.site.pool.open(Which::Name(&self.disk)).map_err(fail)?;
        let (zeros, mut sha) = (vec![0; CHUNK], Sha256::new());
        walk(from, size, self.cx, &mut |offset, part| {
            match part {
                Part::Bytes(b) => {
                    sha.update(b);
                    store(&image, b, offset).map_err(fail)?;
                }
                Part::Hole(mut n) => {
                    while n > 0 && !(self.cx.cancelled)() {
                        let now = CHUNK.min(usize::try_from(n).unwrap_or(CHUNK));
                        sha.update(&zeros[..now]);
                        n -= now as u64;
                    }
                }
            }
            if (self.cx.cancelled)() { Err(cancelled(&tried(self.s))) } else { Ok(()) }
        })?;
        image.flush().map_err(fail)?;
        Ok(hex(&sha.finalize()))
    }
}

/// Our copy of an input, in the pool, for the parser.
struct Staged<'a> {
    image: &'a Image,
    size: u64,
}

impl probe::Source for Staged<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.size.saturating_sub(offset);
        let n = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        Ok(self.image.read(offset, &mut buf[..n])?)
    }
}
