//! What is this disk image, how large is its disk, and is it whole? Our own strict reading of foreign headers.
//!
//! It must never trust a byte: whatever stands in the input, it ends with an answer, in memory and time bound by the
//! input's length. It must never open another file that a header names; a disk that needs one is refused. It is pure: the
//! bytes come through [`Source`], so that a fuzzer can feed it. Converting comes after it and is somebody else's.

mod old;
mod qcow2;
mod vhdx;
mod vmdk;

use std::io;
use std::os::unix::fs::FileExt;

use bmi::model::{Bytes, Format, Kind};

/// Bytes to be looked at.
pub trait Source {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset` on; less only at the end.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// A file of known length, which nobody else writes.
#[derive(Debug)]
pub struct Whole<'a> {
    file: &'a std::fs::File,
    size: u64,
}

impl<'a> Whole<'a> {
    /// The file as it is now.
    pub fn new(file: &'a std::fs::File) -> io::Result<Whole<'a>> {
        Ok(Whole { file, size: file.metadata()?.len() })
    }
}

impl Source for Whole<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// The format.
    pub format: Format,
    /// Size of the disk in it.
    pub size: u64,
}

/// Why an image cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// Our copy could not be read.
    #[error("the staged copy cannot be read")]
    Io(#[from] io::Error),
    /// The image is at fault: kind, why, what to do.
    #[error("{1}")]
    Refused(Kind, String, String),
}

impl Bad {
    /// Bytes that contradict themselves or are missing.
    fn corrupt(why: impl Into<String>) -> Bad {
        let fix = "the file is damaged or was not copied whole; fetch it again and compare its checksum";
        Bad::Refused(Kind::Corrupt, why.into(), fix.to_owned())
    }

    /// A thing that is no disk of its own.
    fn unfit(why: impl Into<String>, fix: &str) -> Bad {
        Bad::Refused(Kind::Invalid, why.into(), fix.to_owned())
    }
}

/// The format by its first bytes alone; none for what has no known magic, as a raw disk.
#[must_use]
pub fn magic(head: &[u8]) -> Option<Format> {
    match head {
        [b'Q', b'F', b'I', 0xfb, ..] => Some(Format::Qcow2),
        [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Some(Format::Vmdk),
        _ if head.starts_with(b"# Disk DescriptorFile") => Some(Format::Vmdk),
        _ if head.starts_with(b"vhdxfile") => Some(Format::Vhdx),
        _ if head.starts_with(b"conectix") => Some(Format::Vhd),
        _ if le32(head, 0x40) == old::VDI_SIGNATURE => Some(Format::Vdi),
        _ => None,
    }
}

/// Reads the headers of an image whose disk may have at most `max` bytes. What has no known magic is raw.
pub fn probe(src: &(impl Source + ?Sized), max: u64) -> Result<Probed, Bad> {
    let src: &dyn Source = &src;
    let mut head = [0; 512];
    let n = src.read(0, &mut head)?;
    if n == 0 {
        return Err(Bad::unfit("it is empty", "give the image's bytes"));
    }
    let (format, size) = match magic(&head[..n]) {
        Some(Format::Qcow2) => (Format::Qcow2, qcow2::check(src, max)?),
        Some(Format::Vmdk) => (Format::Vmdk, vmdk::check(src, max)?),
        Some(Format::Vdi) => (Format::Vdi, old::check_vdi(src)?),
        Some(Format::Vhdx) => (Format::Vhdx, vhdx::check(src, max)?),
        Some(Format::Vhd) => (Format::Vhd, old::check_vhd(src)?),
        Some(Format::Raw) | None => match old::check_fixed_vhd(src)? {
            Some(size) => (Format::Vhd, size),
            None => (Format::Raw, src.size()),
        },
    };
    fits(size, max)?;
    Ok(Probed { format, size })
}

/// A header may promise any size: it is judged before anything is done about it.
fn fits(size: u64, max: u64) -> Result<(), Bad> {
    if size == 0 {
        return Err(Bad::unfit("its disk has no bytes", "give an image with a disk in it"));
    }
    if size > max {
        let why = format!("its disk has {size} bytes ({}); at most {} are taken here", Bytes(size), Bytes(max));
        let fix = "shrink the disk, choose a larger datastore, or raise `max_image` in the configuration if the size is meant";
        return Err(Bad::Refused(Kind::Limit, why, fix.to_owned()));
    }
    Ok(())
}

/// `len` bytes at `offset`, or the refusal of a file that ends before them.
fn part(src: &dyn Source, what: &str, offset: u64, len: usize) -> Result<Vec<u8>, Bad> {
    within(src, what, offset, len as u64)?;
    let mut buf = vec![0; len];
    if src.read(offset, &mut buf)? < len {
        return Err(Bad::corrupt(format!("it ends inside its {what}")));
    }
    Ok(buf)
}

/// Refuses what lies behind the end of the file.
fn within(src: &dyn Source, what: &str, offset: u64, len: u64) -> Result<(), Bad> {
    match offset.checked_add(len) {
        Some(end) if end <= src.size() => Ok(()),
        _ => Err(Bad::corrupt(format!(
            "it is truncated: its {what} lies at byte {offset}, and the file ends at {}",
            src.size()
        ))),
    }
}

// Numbers in headers. A field behind the end of the bytes reads as 0: callers have checked the length of what they need.

fn be32(b: &[u8], at: usize) -> u32 {
    b.get(at..).and_then(|s| s.first_chunk()).map_or(0, |c| u32::from_be_bytes(*c))
}

fn be64(b: &[u8], at: usize) -> u64 {
    b.get(at..).and_then(|s| s.first_chunk()).map_or(0, |c| u64::from_be_bytes(*c))
}

fn le32(b: &[u8], at: usize) -> u32 {
    b.get(at..).and_then(|s| s.first_chunk()).map_or(0, |c| u32::from_le_bytes(*c))
}

fn le64(b: &[u8], at: usize) -> u64 {
    b.get(at..).and_then(|s| s.first_chunk()).map_or(0, |c| u64::from_le_bytes(*c))
}

impl<T: Source + ?Sized> Source for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read(offset, buf)
    }
}

#[cfg(test)]
mod tests;
