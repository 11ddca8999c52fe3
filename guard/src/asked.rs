//! What machines ask: the headers of their commands, seen when tgtd has read them and before it acts on them.
//!
//! - WRITE SAME has one block written again and again. tgtd does so block by block, each a question to Ceph: a minute for the log of a file system. Here
//!   the run is known from the header by the buffer that tgtd takes for its block, and written at once with the first of its blocks; the others are
//!   answered as that was.
//! - tgtd falls over an answer for which there is no room, and over a block that was not sent. Such a command is made one that it stands.
//!
//! Must never write more than was asked for: whatever does not fit exactly goes the old way, a block at a time.

use std::collections::HashMap;
use std::ffi::c_int;

pub mod ffi;

/// Bytes of a header (RFC 7143, 11.2); the SCSI command stands in the last 16.
pub(crate) const HEAD: usize = 48;
/// Commands whose buffers are known. More are not joined.
const MOST: usize = 1024;

/// Where tgtd keeps each connection's header. It has one place for each, and reads that first of all; and one for what it says, which it
/// writes first of all.
#[derive(Default)]
struct Heads(HashMap<c_int, Option<usize>>);

impl Heads {
    /// A connection was let in.
    fn begun(&mut self, fd: c_int) {
        self.0.insert(fd, None);
    }

    /// The place of a header that is whole with these bytes: `n` of `room` were read to `to`, or written from there.
    fn whole(&mut self, fd: c_int, to: usize, room: usize, n: usize) -> Option<usize> {
        let place = self.0.get_mut(&fd)?;
        if place.is_none() && room != HEAD {
            // No machine's: bmid asks something. The number may come back as anything.
            self.0.remove(&fd);
            return None;
        }
        let at = *place.get_or_insert(to);
        (to >= at && to + room == at + HEAD && n == room).then_some(at)
    }
}

/// A block that shall be written so many times, from that one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    blocks: u64,
}

const MODE_SENSE: [u8; 2] = [0x1a, 0x5a];
const WRITE_SAME: [u8; 2] = [0x41, 0x93];
const READ: [u8; 4] = [0x08, 0x28, 0xa8, 0x88];
/// Of WRITE SAME's second byte: protection, of which tgtd has none and refuses; giving back; what makes each block another.
const PROTECTED: u8 = 0xe0;
const UNMAP: u8 = 0x08;
const NUMBERED: u8 = 0x06;

/// What a header asks for, if that is a run; one that tgtd would fall over is changed.
fn looked(head: &mut [u8; HEAD]) -> Option<Run> {
    // Else no SCSI command.
    if head[0] & 0x3f != 0x01 {
        return None;
    }
    let (reads, writes) = (head[1] & 0x40 != 0, head[1] & 0x20 != 0);
    let room = head[20..24] != [0; 4];
    let (answer, sent) = (room && reads && !writes, room && writes);
    let cdb = &mut head[32..];
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |all, b| all << 8 | u64::from(*b));
    if MODE_SENSE.contains(&cdb[0]) && !answer {
        let wanted = if cdb[0] == MODE_SENSE[0] { number(&cdb[4..5]) } else { number(&cdb[7..9]) };
        if wanted == 0 {
            // All that is left of the question is whether the disk is there: TEST UNIT READY.
            cdb.fill(0);
        }
        return None;
    }
    if !WRITE_SAME.contains(&cdb[0]) || cdb[1] & UNMAP != 0 {
        return None;
    }
    if !sent {
        cdb[1] |= PROTECTED;
        return None;
    }
    let (first, blocks) = if cdb[0] == WRITE_SAME[0] { (&cdb[2..6], &cdb[7..9]) } else { (&cdb[2..10], &cdb[10..14]) };
    let run = Run { first: number(first), blocks: number(blocks) };
    // None means up to the disk's end, which is not known here.
    (run.blocks > 1 && cdb[1] & NUMBERED == 0 && !reads).then_some(run)
}

/// Whether tgtd may send more of its buffer than it has put there: it does for what has no answer. A read's is always full.
fn answers_less(head: &[u8; HEAD]) -> bool {
    head[0] & 0x3f == 0x01 && head[1] & 0x40 != 0 && !READ.contains(&head[32])
}

/// What a block is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Image(usize),
    File(c_int),
}

/// How a write of tgtd's is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// As it is.
    Alone,
    /// As the first of so many bytes, all at once; how that went is told by [`Runs::went`].
    First(u64),
    /// It was written with the first.
    Done,
    /// It would have been written with the first, which failed.
    Failed(c_int),
}

/// A run that has begun.
struct Begun {
    disk: Disk,
    block: usize,
    next: u64,
    end: u64,
    failed: Option<c_int>,
}

/// Runs by where the block lies that is to be written. A buffer is one command's until it is given out anew.
#[derive(Default)]
pub(crate) struct Runs(HashMap<usize, (Run, Option<Begun>)>);

impl Runs {
    /// tgtd has this buffer for a command that asks for this.
    fn given(&mut self, buffer: usize, run: Option<Run>) {
        self.0.remove(&buffer);
        let Some(run) = run else { return };
        if self.0.len() >= MOST {
            // Many of them were refused before anything was written; those that wait yet go a block at a time.
            self.0.retain(|_, (_, begun)| begun.is_some());
        }
        if self.0.len() < MOST {
            self.0.insert(buffer, (run, None));
        }
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    /// How a write of `len` bytes from that buffer is to be done.
    fn turn(&mut self, buffer: usize, disk: Disk, len: usize, offset: u64) -> Turn {
        let Some((run, begun)) = self.0.get_mut(&buffer) else { return Turn::Alone };
        let (turn, last) = match begun {
            None => match bytes_of(*run, len, offset) {
                Some(bytes) => {
                    let (next, end) = (offset + len as u64, offset + bytes);
                    *begun = Some(Begun { disk, block: len, next, end, failed: None });
                    (Turn::First(bytes), false)
                }
                None => (Turn::Alone, true),
            },
            Some(b) if (b.disk, b.block, b.next) == (disk, len, offset) => {
                b.next += len as u64;
                (b.failed.map_or(Turn::Done, Turn::Failed), b.next >= b.end)
            }
            Some(_) => (Turn::Alone, true),
        };
        if last {
            self.0.remove(&buffer);
        }
        turn
    }

    /// The first of a run was written with all the others, or failed so; nothing if it could not be tried.
    fn went(&mut self, buffer: usize, how: Option<Result<(), c_int>>) {
        match (self.0.get_mut(&buffer), how) {
            (Some((_, Some(begun))), Some(how)) => begun.failed = how.err(),
            _ => drop(self.0.remove(&buffer)),
        }
    }
}

/// How many bytes a run has whose first block is this one; none if it is another's, or if tgtd, which counts bytes in 32 bits, would
/// write fewer.
fn bytes_of(run: Run, block: usize, offset: u64) -> Option<u64> {
    let block = u64::try_from(block).ok().filter(|b| b.is_power_of_two() && *b >= 512)?;
    let bytes = run.blocks.checked_mul(block).filter(|b| *b <= u64::from(u32::MAX))?;
    (run.first.checked_mul(block)? == offset && offset.checked_add(bytes).is_some()).then_some(bytes)
}

#[cfg(test)]
mod tests;
