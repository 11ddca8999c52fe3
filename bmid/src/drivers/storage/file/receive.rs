//! An input's bytes into staging: hashed on the way, zeros not stored, going on where an earlier try stopped.
//!
//! What is staged already is not believed: it is read again and compared with what the source gives; from the first
//! difference on, the source's bytes replace it. So a pipe resumes if its sender repeats from the start.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

use bmi::model::{Bytes, Format, Kind};
use bmi::step::Import;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::copy::{CHUNK, io_error};
use super::staging::{Arrived, DATA, Staging};
use crate::drivers::storage::probe;
use crate::drivers::storage::stream::{Sums, data_runs};
use crate::drivers::{DriverError, StepCx};

/// Zeros are left out in pieces of this size, a file system's usual block.
const BLOCK: usize = 4_096;

/// A client's descriptor.
pub(in crate::drivers::storage) struct Source<'a> {
    file: &'a File,
    /// Read by offset; a pipe is read as it comes.
    pub(in crate::drivers::storage) seekable: bool,
    pub(in crate::drivers::storage) total: Option<u64>,
}

impl<'a> Source<'a> {
    pub(in crate::drivers::storage) fn of(file: &'a File) -> io::Result<Source<'a>> {
        let meta = file.metadata()?;
        let kind = meta.file_type();
        if kind.is_file() {
            return Ok(Source { file, seekable: true, total: Some(meta.len()) });
        }
        if kind.is_block_device() {
            let end = nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekEnd)?;
            return Ok(Source { file, seekable: true, total: u64::try_from(end).ok() });
        }
        if kind.is_fifo() {
            return Ok(Source { file, seekable: false, total: None });
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "only regular files, pipes and block devices are read"))
    }

    /// Fills `buf` from `offset` on; less only at the end. `None`: cancelled.
    pub(in crate::drivers::storage) fn fill(
        &self,
        offset: u64,
        buf: &mut [u8],
        cancelled: &dyn Fn() -> bool,
    ) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < buf.len() {
            if cancelled() {
                return Ok(None);
            }
            let read = if self.seekable {
                self.file.read_at(&mut buf[done..], offset + done as u64)
            } else if self.ready()? {
                io::Read::read(&mut &*self.file, &mut buf[done..])
            } else {
                continue;
            };
            match read {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Some(done))
    }

    /// Waits a little for a pipe, so that a silent sender can be cancelled.
    fn ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(200u16)) {
            Ok(n) => Ok(n > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Takes the whole input into `staging`. On cancellation what came stays there.
pub(super) fn receive(s: &Import, staging: &Staging, input: &File, cx: &StepCx<'_>) -> Result<Arrived, DriverError> {
    let tried = tried(s);
    let source = Source::of(input).map_err(|e| DriverError::io(tried.as_str(), e))?;
    staging.forget()?;
    let missing = || DriverError::new(Kind::Outside, tried.as_str(), "the staging file went away");
    let data = staging.writable(DATA, true)?.ok_or_else(missing)?;
    let mut sink = Sink::new(&data).map_err(|e| io_error(&tried, e))?;
    let mut buf = vec![0; CHUNK];
    loop {
        let filled = source.fill(sink.at, &mut buf, cx.cancelled).map_err(|e| {
            DriverError::io(tried.as_str(), e).fix("the input could not be read; repeat the same command with it whole")
        })?;
        let Some(n) = filled else {
            sink.keep().map_err(|e| io_error(&tried, e))?;
            return Err(super::copy::cancelled(&tried).fix("repeat the same command; it goes on where it stopped"));
        };
        if sink.at == 0 {
            beginning(s, &buf[..n])?;
        }
        sink.take(&buf[..n]).map_err(|e| io_error(&tried, e))?;
        within(s, sink.at)?;
        (cx.progress)(sink.at, source.total.or(s.size.map(|b| b.0)));
        if n < buf.len() {
            break;
        }
    }
    let came = sink.at;
    if let Some(Bytes(said)) = s.size
        && came < said
        && !source.seekable
    {
        sink.keep().map_err(|e| io_error(&tried, e))?;
        let why = format!("the sender stopped after {came} of {said} bytes");
        return Err(DriverError::new(Kind::Interrupted, tried, why)
            .fix("repeat the same command, the sender from the start; it goes on where it stopped"));
    }
    let arrived = sink.end().map_err(|e| io_error(&tried, e))?;
    as_declared(s, &arrived)?;
    staging.note(&arrived)?;
    Ok(arrived)
}

pub(in crate::drivers::storage) fn tried(s: &Import) -> String {
    // A folder that is none is another's to refuse.
    let into = super::place::path(&s.place).map(|p| format!(" into {}", p.display())).unwrap_or_default();
    format!("take in image {}{into}", s.image)
}

/// Refuses what is empty, or said to be raw and starting like another format.
pub(in crate::drivers::storage) fn beginning(s: &Import, head: &[u8]) -> Result<(), DriverError> {
    if head.is_empty() {
        return Err(DriverError::new(Kind::Invalid, tried(s), "the input is empty").fix("give the image's bytes"));
    }
    match (s.format, probe::magic(head)) {
        (Some(Format::Raw), Some(found)) => Err(another_format(s, Format::Raw, found)),
        _ => Ok(()),
    }
}

pub(in crate::drivers::storage) fn another_format(s: &Import, said: Format, found: Format) -> DriverError {
    DriverError::new(Kind::Corrupt, tried(s), format!("it is said to be {said}, and it is {found}"))
        .fix(format!("say --format {found}, or leave the format out"))
}

/// Refuses more than was declared or is allowed, as soon as it has come.
pub(in crate::drivers::storage) fn within(s: &Import, came: u64) -> Result<(), DriverError> {
    if let Some(Bytes(said)) = s.size
        && came > said
    {
        let why = format!("it is said to have {said} bytes, and more came");
        return Err(DriverError::new(Kind::Corrupt, tried(s), why).fix("say the right size, or give the right file"));
    }
    // Headers and tables of a full disk in another format take a little more than the disk.
    let most = match s.format {
        Some(Format::Raw) => s.max_size.0,
        _ => s.max_size.0.saturating_add(s.max_size.0 / 8).saturating_add(64 << 20),
    };
    if came > most {
        return Err(too_large(s, format!("more than {most} bytes came")));
    }
    Ok(())
}

fn too_large(s: &Import, what: String) -> DriverError {
    let why = format!("{what}; a disk of at most {} ({}) is taken here", s.max_size.0, s.max_size);
    DriverError::new(Kind::Limit, tried(s), why)
        .fix("choose a larger datastore, or raise `max_image` in the configuration if the size is meant")
}

/// Refuses what is not what it was said to be.
pub(in crate::drivers::storage) fn as_declared(s: &Import, arrived: &Arrived) -> Result<(), DriverError> {
    let corrupt = |why: String| {
        Err(DriverError::new(Kind::Corrupt, tried(s), why)
            .fix("the file is damaged or another one; fetch it again, or say what it really is"))
    };
    if let Some(Bytes(said)) = s.size
        && said != arrived.bytes
    {
        return corrupt(format!("it is said to have {said} bytes, and {} came: it is truncated", arrived.bytes));
    }
    match &s.sha256 {
        Some(said) if !said.eq_ignore_ascii_case(&arrived.sha256) => {
            corrupt(format!("it is said to have the SHA-256 {said}, and it has {}", arrived.sha256))
        }
        _ => Ok(()),
    }
}

/// The staging file as it fills.
struct Sink<'a> {
    file: &'a File,
    /// So many bytes are there from an earlier try.
    staged: u64,
    /// So many bytes came in this one.
    at: u64,
    sums: Sums,
    old: Vec<u8>,
}

impl<'a> Sink<'a> {
    fn new(file: &'a File) -> io::Result<Sink<'a>> {
        let staged = file.metadata()?.len();
        Ok(Sink { file, staged, at: 0, sums: Sums::new(), old: Vec::new() })
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sums.take(bytes);
        let known = self.compare(bytes)?;
        self.store(&bytes[known..], self.at + known as u64)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// How many of these bytes are staged already. At a difference everything from here on is dropped.
    fn compare(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let there = usize::try_from(self.staged.saturating_sub(self.at)).unwrap_or(usize::MAX).min(bytes.len());
        self.old.resize(there, 0);
        self.file.read_exact_at(&mut self.old, self.at)?;
        if self.old == bytes[..there] {
            return Ok(there);
        }
        self.file.set_len(self.at)?;
        self.staged = self.at;
        Ok(0)
    }

    /// Writes what is not zero. Nothing is stored behind `offset` yet.
    fn store(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        data_runs(bytes, offset, BLOCK, |run, at| self.file.write_all_at(run, at))
    }

    /// Leaves what came for the next try.
    fn keep(&self) -> io::Result<()> {
        if self.at > self.staged { self.file.set_len(self.at) } else { Ok(()) }
    }

    /// All is here: makes it durable.
    fn end(self) -> io::Result<Arrived> {
        self.file.set_len(self.at)?;
        self.file.sync_all()?;
        Ok(self.sums.end())
    }
}
