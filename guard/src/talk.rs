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

/// Of persistent reservations: tgtd moves one that nobody has, and falls. One that all have it takes from who made it and keeps a hold of
/// his, which it has given back.
const RESERVE_OUT: u8 = 0x5f;
const ACTION: u8 = 0x1f;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const PREEMPT: u8 = 4;
const REGISTER_AND_MOVE: u8 = 7;
const OF_ALL: [u8; 2] = [7, 8];

/// What is to be done with commands that are under way: these wait for them, and tgtd never answers one when another comes to wait for the
/// same command. The third reaches all connections.
const GIVES_UP: [u8; 3] = [1, 2, RESETS];
const RESETS: u8 = 5;
/// What tgtd answers that it cannot do.
const NOTHING: u8 = 8;

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

/// What connections have together that is bounded together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Commands without an answer.
    unanswered: u32,
    /// Reservations that all may have.
    of_all: u32,
    /// What waits for commands to be given up, and what of that reaches all.
    gives_up: u32,
    resets: u32,
}

impl Load {
    pub(crate) fn and(self, other: Load) -> Load {
        Load {
            unanswered: self.unanswered + other.unanswered,
            of_all: self.of_all + other.of_all,
            gives_up: self.gives_up + other.gives_up,
            resets: self.resets + other.resets,
        }
    }

    pub(crate) fn without(self, other: Load) -> Load {
        Load {
            unanswered: self.unanswered.saturating_sub(other.unanswered),
            of_all: self.of_all.saturating_sub(other.of_all),
            gives_up: self.gives_up.saturating_sub(other.gives_up),
            resets: self.resets.saturating_sub(other.resets),
        }
    }

    /// When its connection has ended: reservations last.
    pub(crate) fn lasts(self) -> Load {
        Load { of_all: self.of_all, ..Load::default() }
    }
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
    /// Disks that it may have reserved for all, and more of them than are told apart.
    of_all: Vec<[u8; 8]>,
    /// A command that lets go of one, while nothing else is under way.
    releases: Option<([u8; 4], [u8; 8])>,
    /// What waits for commands to be given up.
    gives_up: Option<([u8; 4], u8)>,
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
            of_all: Vec::new(),
            releases: None,
            gives_up: None,
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
    /// A machine's header: whether it goes on to tgtd, perhaps as another that tgtd stands. `others` is what other connections have.
    pub(crate) fn says(&mut self, head: &mut [u8; HEAD], others: Load, now: impl FnOnce() -> Instant) -> bool {
        self.may_say(head, others, now).is_some()
    }

    fn may_say(&mut self, head: &mut [u8; HEAD], others: Load, now: impl FnOnce() -> Instant) -> Option<()> {
        let ok = |it: bool| it.then_some(());
        // What lets go of a reservation has to be alone, or its answer may be another's.
        let releases = self.releases.take();
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
            op::COMMAND => self.commands(head, tag, length, others)?,
            op::MANAGE => {
                ok(length == 0)?;
                self.manages(head, tag, others);
            }
            op::LOGOUT => ok(length == 0)?,
            // Where they are none of its business tgtd ends the connection itself.
            op::TEXT | op::LOGIN => {
                self.next = sequence.wrapping_add(u32::from(!immediate));
                return Some(());
            }
            op::DATA => {
                self.releases = releases;
                return self.sends(head, tag, length);
            }
            _ => return None,
        }
        self.unanswered += 1;
        ok(self.unanswered <= UNANSWERED
            && (self.unanswered <= FEW || others.unanswered + self.unanswered <= ALL_UNANSWERED))
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

    /// Whether something else waits for the same commands.
    fn manages(&mut self, head: &mut [u8; HEAD], tag: [u8; 4], others: Load) {
        let what = head[1] & !FINAL;
        if !GIVES_UP.contains(&what) {
            return;
        }
        if self.gives_up.is_some() || others.resets > 0 || (what == RESETS && others.gives_up > 0) {
            head[1] = FINAL | NOTHING;
        } else {
            self.gives_up = Some((tag, what));
        }
    }

    /// Reservations that all may have are known, and while there is one nobody takes any.
    fn reserves(&mut self, head: &mut [u8; HEAD], tag: [u8; 4], others: Load) {
        let mut disk = [0; 8];
        disk.copy_from_slice(&head[8..16]);
        let (action, of_all) = (head[33] & ACTION, OF_ALL.contains(&(head[34] & 0x0f)));
        let refused = match action {
            REGISTER_AND_MOVE => true,
            PREEMPT => of_all || others.of_all > 0 || !self.of_all.is_empty(),
            RESERVE if of_all && !self.of_all.contains(&disk) => {
                let many = self.of_all.len() >= FEW as usize;
                if !many {
                    self.of_all.push(disk);
                }
                many
            }
            RELEASE if self.unanswered == 0 => {
                self.releases = Some((tag, disk));
                false
            }
            _ => false,
        };
        if refused {
            // There is none of that number, and tgtd says so.
            head[33] |= ACTION;
        }
    }

    fn commands(&mut self, head: &mut [u8; HEAD], tag: [u8; 4], length: u32, others: Load) -> Option<()> {
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
        if head[32] == RESERVE_OUT {
            self.reserves(head, tag, others);
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
            op::DONE => {
                if let Some((_, disk)) = self.releases.take().filter(|(by, _)| *by == tag && head[2..4] == [0, 0]) {
                    self.of_all.retain(|of| *of != disk);
                }
                self.answered();
            }
            op::MANAGED => {
                // What cannot be done is answered at once, and by any tag.
                self.gives_up.take_if(|(by, _)| *by == tag && head[2] <= 1);
                self.answered();
            }
            op::LOGGED_OUT => self.answered(),
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

    pub(crate) fn load(&self) -> Load {
        Load {
            unanswered: self.unanswered,
            of_all: self.of_all.len() as u32,
            gives_up: u32::from(self.gives_up.is_some()),
            resets: u32::from(self.gives_up.is_some_and(|(_, what)| what == RESETS)),
        }
    }
}

pub mod ffi;

/// Whether tgtd's loop asks its own input, which is no disk, where it has holes. For a disk that is no file it asks whatever has the number that
/// happened to lie there, and asks `/dev/null` for ever.
pub(crate) fn no_disk(fd: i32, whence: i32) -> bool {
    fd == 0 && matches!(whence, libc::SEEK_HOLE | libc::SEEK_DATA)
}

#[cfg(test)]
mod tests;
