//! An input's bytes into an RBD image: hashed on the way, zeros not written, going on where an earlier try stopped.
//!
//! What came before is not believed: it is read again and compared with what the source gives; from the first difference on
//! the source's bytes replace it. The register is told how far it came only after that is in the cluster.

use std::fs::File;

use bmi::model::{Bytes, Kind};
use bmi::step::Import;
use nix::errno::Errno;

use super::image::ffi::Image;
use super::pool::failed;
use crate::drivers::storage::file::copy::{CHUNK, cancelled};
use crate::drivers::storage::file::receive::{Source, as_declared, beginning, tried, within};
use crate::drivers::storage::file::staging::Arrived;
use crate::drivers::storage::stream::{SECTOR, Sums, data_runs};
use crate::drivers::{DriverError, StepCx};

/// Zeros are left out in pieces of this size.
const BLOCK: usize = 16 << 10;
/// After so many bytes it is noted how far it came.
const NOTE: u64 = 64 << 20;
/// What an image has at first when the input does not tell its length.
const FIRST: u64 = 1 << 30;

/// The image as it fills.
pub(super) struct Sink<'a> {
    image: &'a Image,
    /// The image's size.
    room: u64,
    /// So many bytes are there from an earlier try.
    staged: u64,
    /// Behind what is staged there are only zeros.
    clean: bool,
    at: u64,
    sums: Sums,
    old: Vec<u8>,
}

/// Takes the whole input into `image`, of which `staged` bytes came before. `note` is told how far it came.
pub(super) fn receive(
    s: &Import,
    image: &Image,
    staged: u64,
    input: &File,
    cx: &StepCx<'_>,
    note: &dyn Fn(u64) -> Result<(), DriverError>,
) -> Result<Arrived, DriverError> {
    let tried = tried(s);
    let fail = |e| failed(&tried, e);
    let source = Source::of(input).map_err(|e| DriverError::io(tried.as_str(), e))?;
    let total = source.total.or(s.size.map(|b| b.0));
    let mut sink = Sink::new(image, staged).map_err(fail)?;
    sink.make_room(total.unwrap_or(FIRST).min(s.max_size.0)).map_err(fail)?;
    let (mut buf, mut noted) = (vec![0; CHUNK], staged);
    loop {
        let filled = source.fill(sink.at, &mut buf, cx.cancelled).map_err(|e| {
            DriverError::io(tried.as_str(), e).fix("the input could not be read; repeat the same command with it whole")
        })?;
        let Some(n) = filled else {
            note(sink.keep().map_err(fail)?)?;
            return Err(cancelled(&tried).fix("repeat the same command; it goes on where it stopped"));
        };
        if sink.at == 0 {
            beginning(s, &buf[..n])?;
        }
        within(s, sink.at + n as u64)?;
        sink.take(&buf[..n]).map_err(fail)?;
        (cx.progress)(sink.at, total);
        if n < buf.len() {
            break;
        }
        if sink.at >= noted + NOTE {
            noted = sink.keep().map_err(fail)?;
            note(noted)?;
        }
    }
    let came = sink.at;
    if let Some(Bytes(said)) = s.size
        && came < said
        && !source.seekable
    {
        note(sink.keep().map_err(fail)?)?;
        let why = format!("the sender stopped after {came} of {said} bytes");
        return Err(DriverError::new(Kind::Interrupted, tried, why)
            .fix("repeat the same command, the sender from the start; it goes on where it stopped"));
    }
    let arrived = sink.end().map_err(fail)?;
    as_declared(s, &arrived)?;
    Ok(arrived)
}

impl<'a> Sink<'a> {
    fn new(image: &'a Image, staged: u64) -> Result<Sink<'a>, Errno> {
        let room = image.size()?;
        Ok(Sink { image, room, staged: staged.min(room), clean: room == 0, at: 0, sums: Sums::new(), old: Vec::new() })
    }

    fn make_room(&mut self, wanted: u64) -> Result<(), Errno> {
        if wanted > self.room {
            // A disk is whole sectors.
            let size = wanted.next_multiple_of(SECTOR);
            self.image.resize(size)?;
            self.room = size;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.sums.take(bytes);
        let end = self.at + bytes.len() as u64;
        let known = self.compare(bytes)?;
        if end > self.room {
            self.make_room(end.max(self.room.saturating_mul(2)))?;
        }
        store(self.image, &bytes[known..], self.at + known as u64)?;
        self.at = end;
        Ok(())
    }

    /// How many of these bytes came before. At a difference everything from here on is dropped, and so is, behind what was
    /// noted, what an earlier try may have written.
    fn compare(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let there = usize::try_from(self.staged.saturating_sub(self.at)).unwrap_or(usize::MAX).min(bytes.len());
        self.old.resize(there, 0);
        let read = self.image.read(self.at, &mut self.old)?;
        let same = if read == there && self.old == bytes[..there] { there } else { 0 };
        if same < bytes.len() && !self.clean {
            self.image.resize(self.at + same as u64)?;
            self.image.resize(self.room)?;
            self.clean = true;
            self.staged = self.at + same as u64;
        }
        Ok(same)
    }

    /// What came is in the cluster, for the next try; how much that is.
    fn keep(&self) -> Result<u64, Errno> {
        self.image.flush()?;
        Ok(self.at.max(self.staged))
    }

    /// All is here: gives the image its size and makes it durable.
    fn end(self) -> Result<Arrived, Errno> {
        let size = self.at.next_multiple_of(SECTOR);
        self.image.resize(size)?;
        self.image.flush()?;
        Ok(self.sums.end())
    }
}

/// Writes what is not zero.
pub(super) fn store(image: &Image, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    data_runs(bytes, offset, BLOCK, |run, at| image.write(at, run))
}
