//! What a machine may say to tgtd, a header at a time. tgtd takes a machine's word for where data goes, how much of it there is and whose it is: it
//! reads over the ends of its buffers, into buffers that it has given back, and does a command twice. Here each connection's part of
//! the protocol (RFC 7143) is kept, as far as tgtd's memory hangs on it, and whoever leaves it is cut off. What initiators send goes through.
//!
//! Must never wait, or know what is on a disk. Must never end what an initiator may do that keeps to the protocol.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use crate::asked::HEAD;

/// One command's data: far above what any initiator asks for at once. tgtd counts it in 31 bits.
pub(crate) const DATA: u32 = 64 << 20;
/// Commands of one connection that have no answer yet. tgtd tells initiators that it takes 128; those that do not listen have some thousands.
const UNANSWERED: u32 = 4_096;
/// Of all connections together, each about 700 bytes of tgtd's, beyond which none may have more than a few.
const ALL_UNANSWERED: u32 = 65_536;
const FEW: u32 = 64;
/// Pings that want no answer: so many at once, and one more each so often. tgtd asks every 20 s whether a machine is there.
const PINGS: u32 = 256;
const PING: Duration = Duration::from_millis(100);
/// What stands for no tag.
const NONE: [u8; 4] = [0xff; 4];

mod op {
    pub(super) const PING: u8 = 0x00;
    pub(super) const COMMAND: u8 = 0x01;
    pub(super) const MANAGE: u8 = 0x02;
    pub(super) const LOGIN: u8 = 0x03;
    pub(super) const TEXT: u8 = 0x04;
    pub(super) const DATA: u8 = 0x05;
    pub(super) const LOGOUT: u8 = 0x06;
    /// What tgtd says.
    pub(super) const PINGED: u8 = 0x20;
    pub(super) const DONE: u8 = 0x21;
    pub(super) const MANAGED: u8 = 0x22;
    pub(super) const LOGGED_IN: u8 = 0x23;
    pub(super) const READ: u8 = 0x25;
    pub(super) const LOGGED_OUT: u8 = 0x26;
    pub(super) const READY: u8 = 0x31;
}
const KIND: u8 = 0x3f;
const IMMEDIATE: u8 = 0x40;
/// Of the second byte.
const FINAL: u8 = 0x80;
const WRITES: u8 = 0x20;
/// How a command stands among others: SIMPLE is the common one.
const ORDER: u8 = 0x07;
const SIMPLE: u8 = 0x01;

/// Of persistent reservations: tgtd moves one that nobody has, and falls.
const RESERVE_OUT: u8 = 0x5f;
const ACTION: u8 = 0x1f;
const REGISTER_AND_MOVE: u8 = 7;

/// A write whose data is not all there yet.
#[derive(Debug)]
struct Write {
    /// Bytes that were announced, and those that have come or are coming.
    all: u32,
    got: u32,
    turn: Turn,
}

/// Who has the word.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The machine, which sends on its own.
    Sends,
    /// tgtd, which will ask.
    Waits,
    /// tgtd is asking, by this tag, for what lies between these two places.
    Asking([u8; 4], u32, u32),
    /// The machine, which was asked.
    Asked([u8; 4], u32, u32),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Talk {
    logged_in: bool,
    /// The number of the next command.
    next: u32,
    /// What comes yet of what follows a header and is no data.
    more: usize,
    writes: HashMap<[u8; 4], Write>,
    unanswered: u32,
    pings: u32,
    since: Option<Instant>,
    /// Pings without an answer that tgtd has not come to.
    silent: u32,
}

impl Default for Talk {
    fn default() -> Talk {
        Talk {
            logged_in: false,
            next: 0,
            more: 0,
            writes: HashMap::new(),
            unanswered: 0,
            pings: PINGS,
            since: None,
            silent: 0,
        }
    }
}

fn word(head: &[u8; HEAD], at: usize) -> [u8; 4] {
    [head[at], head[at + 1], head[at + 2], head[at + 3]]
}

fn padded(length: u32) -> u32 {
    length.next_multiple_of(4)
}

impl Talk {
    /// A machine's header: whether it goes on to tgtd, perhaps as another that tgtd stands. `others` are the commands of other connections that have no answer.
    pub(crate) fn says(&mut self, head: &mut [u8; HEAD], others: u32, now: impl FnOnce() -> Instant) -> bool {
        self.may_say(head, others, now).is_some()
    }

    fn may_say(&mut self, head: &mut [u8; HEAD], others: u32, now: impl FnOnce() -> Instant) -> Option<()> {
        let ok = |it: bool| it.then_some(());
        let (kind, immediate) = (head[0] & KIND, head[0] & IMMEDIATE != 0);
        let (tag, length) = (word(head, 16), u32::from_be_bytes([0, head[5], head[6], head[7]]));
        let sequence = u32::from_be_bytes(word(head, 24));
        // What else follows a header tgtd reads to where the last command had it.
        ok(head[4] == 0 || (self.logged_in && kind == op::COMMAND))?;
        if !self.logged_in {
            ok(kind == op::LOGIN && immediate)?;
            // One connection is a session: another one would have its commands, too. tgtd says that it takes no second one.
            head[14..16].fill(0);
            self.next = sequence;
            return Some(());
        }
        if matches!(kind, op::PING | op::COMMAND | op::MANAGE) && !immediate {
            // One that comes early waits in a list which tgtd's other parts know nothing of.
            ok(sequence == self.next)?;
        }
        if !immediate && sequence == self.next && matches!(kind, op::PING | op::COMMAND | op::MANAGE | op::LOGOUT) {
            self.next = self.next.wrapping_add(1);
        }
        match kind {
            op::PING if tag == NONE => {
                ok(self.pings_again(now()))?;
                // One with data is not all there yet.
                self.silent += u32::from(length == 0);
                return Some(());
            }
            op::PING => {}
            op::COMMAND => self.commands(head, tag, length)?,
            op::MANAGE | op::LOGOUT => ok(length == 0)?,
            // Where they are none of its business tgtd ends the connection itself.
            op::TEXT | op::LOGIN => {
                self.next = sequence.wrapping_add(u32::from(!immediate));
                return Some(());
            }
            op::DATA => return self.sends(head, tag, length),
            _ => return None,
        }
        self.unanswered += 1;
        ok(self.unanswered <= UNANSWERED && (self.unanswered <= FEW || others + self.unanswered <= ALL_UNANSWERED))
    }

    /// Whether another ping without an answer is no flood.
    fn pings_again(&mut self, now: Instant) -> bool {
        let since = self.since.get_or_insert(now);
        let due = now.saturating_duration_since(*since).as_millis() / PING.as_millis();
        if let Some(due) = u32::try_from(due).ok().filter(|d| *d > 0) {
            self.since = Some(now);
            self.pings = self.pings.saturating_add(due).min(PINGS);
        }
        self.pings.checked_sub(1).inspect(|left| self.pings = *left).is_some()
    }

    fn commands(&mut self, head: &mut [u8; HEAD], tag: [u8; 4], length: u32) -> Option<()> {
        let all = u32::from_be_bytes(word(head, 20));
        let writes = head[1] & WRITES != 0;
        if all > DATA || length > if writes { all } else { 0 } {
            return None;
        }
        self.more = usize::from(head[4]) * 4;
        if head[1] & ORDER > SIMPLE {
            // Of commands that wait for others tgtd loses track when they are to be given up.
            head[1] = head[1] & !ORDER | SIMPLE;
        }
        if head[32] == RESERVE_OUT && head[33] & ACTION == REGISTER_AND_MOVE {
            // There is none of that number, and tgtd says so.
            head[33] |= ACTION;
        }
        match self.writes.entry(tag) {
            // Whose the data is that comes would be known to neither.
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) if writes && length < all => {
                let turn = if head[1] & FINAL == 0 { Turn::Sends } else { Turn::Waits };
                free.insert(Write { all, got: length, turn });
            }
            // All is there: else tgtd would begin now, and again when it is told that this was all.
            Entry::Vacant(_) => head[1] |= if writes { FINAL } else { 0 },
        }
        Some(())
    }

    /// Data of a write: it must be what the machine may send now, and lie where tgtd has room for it.
    fn sends(&mut self, head: &[u8; HEAD], tag: [u8; 4], length: u32) -> Option<()> {
        let (by, at) = (word(head, 20), u32::from_be_bytes(word(head, 40)));
        let write = self.writes.get_mut(&tag)?;
        let (from, to) = match write.turn {
            Turn::Sends if by == NONE => (0, write.all),
            Turn::Asked(asked, from, to) if asked == by => (from, to),
            _ => return None,
        };
        let end = at.checked_add(length)?;
        write.got = write.got.checked_add(length).filter(|got| *got <= write.all)?;
        if at < from || end > to || at.checked_add(padded(length))? > padded(write.all) {
            return None;
        }
        let ends = head[1] & FINAL != 0;
        match (ends, write.got == write.all) {
            (true, true) => drop(self.writes.remove(&tag)),
            (true, false) => write.turn = Turn::Waits,
            // tgtd would begin, and again with the next.
            (false, true) => return None,
            (false, false) => {}
        }
        Some(())
    }

    /// Bytes that follow a header and are no data were read, so many of which may be such: how many of them are. tgtd trusts the lengths in them, and
    /// nobody uses them for what tgtd can do; they are blanked.
    pub(crate) fn follows(&mut self, n: usize) -> usize {
        let of = n.min(self.more);
        self.more -= of;
        of
    }

    /// tgtd has said this.
    pub(crate) fn heard(&mut self, head: &[u8; HEAD]) {
        let tag = word(head, 16);
        match head[0] & KIND {
            op::LOGGED_IN => self.logged_in |= head[36] == 0 && head[1] & 0x83 == 0x83,
            op::DONE | op::MANAGED | op::LOGGED_OUT => self.answered(),
            op::READ if head[1] & 1 != 0 => self.answered(),
            op::PINGED if tag != NONE => self.answered(),
            op::READY => {
                if let Some(write) = self.writes.get_mut(&tag) {
                    let from = u32::from_be_bytes(word(head, 40));
                    let to = from.saturating_add(u32::from_be_bytes(word(head, 44)));
                    write.turn = Turn::Asking(word(head, 20), from, to.min(write.all));
                }
            }
            _ => {}
        }
    }

    /// tgtd is done with saying what it said last. Until then what it asks for is in two of its lists.
    pub(crate) fn said(&mut self) {
        for write in self.writes.values_mut() {
            if let Turn::Asking(by, from, to) = write.turn {
                write.turn = Turn::Asked(by, from, to);
            }
        }
    }

    /// tgtd has nothing more to say, it says. So it does, too, when it comes to a ping that wants no answer, whatever is behind that: a
    /// command that came with such a ping would be answered when something else happens.
    pub(crate) fn has_more_to_say(&mut self) -> bool {
        self.silent.checked_sub(1).inspect(|left| self.silent = *left).is_some()
    }

    fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    pub(crate) fn unanswered(&self) -> u32 {
        self.unanswered
    }
}

pub mod ffi;

/// Whether tgtd's loop asks of its own input, which is no disk, where it has holes. So it does for a disk in a pool, for which it has no file, and would ask for ever.
pub(crate) fn no_disk(fd: i32, whence: i32) -> bool {
    fd == 0 && matches!(whence, libc::SEEK_HOLE | libc::SEEK_DATA)
}

#[cfg(test)]
mod tests;
