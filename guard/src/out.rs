//! What a machine does not take in time. tgtd sends an answer's data in one go, and where the kernel has no room for all of it tries again until it has:
//! nothing else is done in its loop, for nobody, until that machine reads or is taken for dead. Here the rest of it is kept and
//! sent when there is room, and until then tgtd hears of no room.
//!
//! Must keep every connection's bytes in their order, and never more of them than a measure.

use std::collections::HashMap;
use std::ffi::c_int;

pub mod ffi;

/// Bytes of all connections that are kept on a small host.
const KEPT: usize = 64 << 20;

/// Room to send, as epoll says it; and what it says unasked.
const OUT: u32 = libc::EPOLLOUT as u32;

/// A connection's bytes that were not sent yet, and what tgtd waits for on it.
#[derive(Default)]
struct Line {
    rest: Vec<u8>,
    sent: usize,
    wants: u32,
    by: u64,
}

impl Line {
    fn left(&self) -> usize {
        self.rest.len() - self.sent
    }
}

/// All connections that tgtd waits on.
#[derive(Default)]
struct Lines {
    all: HashMap<c_int, Line>,
    /// Whose an event is.
    by: HashMap<u64, c_int>,
    kept: usize,
}

/// What became of bytes that were to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// So many.
    Some(usize),
    /// There is no room.
    None,
    /// There is nobody.
    Failed,
}

impl Lines {
    /// A connection was let in.
    fn begun(&mut self, fd: c_int) {
        self.ended(fd);
        self.all.insert(fd, Line::default());
    }

    /// tgtd waits on it no more: what was kept for it.
    fn ended(&mut self, fd: c_int) -> Option<Line> {
        let line = self.all.remove(&fd)?;
        self.by.remove(&line.by);
        self.kept -= line.left();
        Some(line)
    }

    /// tgtd waits for that on a connection, and knows it by that: what is to be waited for.
    fn waits(&mut self, fd: c_int, wants: u32, by: u64) -> u32 {
        let Some(line) = self.all.get_mut(&fd) else { return wants };
        if line.by != by {
            self.by.remove(&line.by);
            self.by.insert(by, fd);
        }
        (line.wants, line.by) = (wants, by);
        if line.left() > 0 { wants | OUT } else { wants }
    }

    /// Bytes are kept for a connection that waits on room: whether there is memory for them.
    fn keep(&mut self, fd: c_int, bytes: &[u8], most: usize) -> bool {
        let Some(line) = self.all.get_mut(&fd) else { return false };
        if self.kept + bytes.len() > most {
            return false;
        }
        if line.left() == 0 {
            (line.rest, line.sent) = (Vec::new(), 0);
        }
        line.rest.extend_from_slice(bytes);
        self.kept += bytes.len();
        true
    }

    /// Whether nothing may be sent before what is kept.
    fn keeps(&self, fd: c_int) -> Option<bool> {
        self.all.get(&fd).map(|line| line.left() > 0)
    }

    /// What tgtd hears of an event, and whether something else is to be waited for on that connection from now on.
    fn event(
        &mut self,
        events: u32,
        by: u64,
        mut send: impl FnMut(c_int, &[u8]) -> Sent,
    ) -> (u32, Option<(c_int, u32)>) {
        let of = self.by.get(&by).and_then(|fd| Some((*fd, self.all.get_mut(fd)?)));
        let Some((fd, line)) = of.filter(|(_, line)| line.left() > 0) else { return (events, None) };
        while line.left() > 0 {
            let sent = match send(fd, &line.rest[line.sent..]) {
                Sent::Some(n) => n.min(line.left()),
                Sent::None => return (events & !OUT, None),
                // tgtd hears so when it reads, or writes next.
                Sent::Failed => line.left(),
            };
            line.sent += sent;
            self.kept -= sent;
        }
        (line.rest, line.sent) = (Vec::new(), 0);
        (events & (line.wants | !OUT), Some((fd, line.wants)))
    }
}

/// The most that is kept, by the host's memory.
fn most(host: usize) -> usize {
    (host / 16).max(KEPT)
}

#[cfg(test)]
mod tests;
