//! Who may knock at a network's tgtd, and how much of it one machine may take: machines of that network, each a few connections,
//! all of them no more than tgtd can hold. Linux answers for an address of one interface on all others, so that a machine on
//! another VLAN, with a route that it gives itself, would be let in to a portal that is none of its business. This must never know
//! an initiator or a target: whom it lets in is asked for name and secret by tgtd.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub mod ffi;

/// Connections of one machine. A firmware and a system have one each; several ways to a disk are a few more.
const EACH: usize = 64;
/// Connections of all of a network's machines, if files are plenty. Each costs tgtd 17 KiB.
const ALL: usize = 16_384;
/// What is known of addresses, or told of refusals, holds so long.
const MOMENT: Duration = Duration::from_secs(1);

/// One buffer for a machine's data: far above what any initiator asks for at once.
const BUFFER: usize = 64 << 20;
/// All of tgtd's memory below which a buffer is given out on a small host.
const MEMORY: usize = 256 << 20;

fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// Whether `peer` is in the subnet of `local`, which must be an address of this host; `addresses` are those, with their masks.
/// A peer that lies about its address gets no answer: that goes to where the address is.
#[must_use]
pub fn near(local: IpAddr, peer: IpAddr, addresses: &[(IpAddr, IpAddr)]) -> bool {
    let kind = |a: IpAddr| a.to_canonical().is_ipv4();
    // All of 127.0.0.0/8 is this host, and only its own processes reach it.
    if local.to_canonical().is_loopback() {
        return peer.to_canonical().is_loopback();
    }
    kind(local) == kind(peer)
        && addresses.iter().any(|(address, mask)| {
            address.to_canonical() == local.to_canonical()
                && kind(*mask) == kind(local)
                && (bits(peer) ^ bits(local)) & bits(*mask) == 0
        })
}

/// The host's addresses as they were a moment ago.
#[derive(Default)]
struct Addresses {
    listed: Option<(Instant, Vec<(IpAddr, IpAddr)>)>,
}

impl Addresses {
    /// Whether a peer is near. Lists anew what is old, and when the address that it came to is not among them; none if they
    /// cannot be listed: then nobody is near.
    fn near(
        &mut self,
        (local, peer): (IpAddr, IpAddr),
        now: Instant,
        list: impl FnOnce() -> Option<Vec<(IpAddr, IpAddr)>>,
    ) -> Option<bool> {
        let knows = |(at, all): &(Instant, Vec<(IpAddr, IpAddr)>)| {
            now.saturating_duration_since(*at) < MOMENT
                && all.iter().any(|(a, _)| a.to_canonical() == local.to_canonical())
        };
        if !local.to_canonical().is_loopback() && !self.listed.as_ref().is_some_and(knows) {
            self.listed = Some((now, list()?));
        }
        Some(near(local, peer, self.listed.as_ref().map_or(&[], |(_, all)| all)))
    }
}

/// Who is in. A connection's end is not told: whoever seems to be too many is looked at again.
#[derive(Default)]
struct Crowd {
    by: HashMap<IpAddr, Vec<(i32, u16)>>,
    swept: Option<Instant>,
}

impl Crowd {
    /// Whether one more may come in, as descriptor `fd`. `still` tells whether a descriptor is that peer's yet.
    fn admits(
        &mut self,
        (fd, peer): (i32, SocketAddr),
        all: usize,
        now: Instant,
        still: impl Fn(i32, SocketAddr) -> bool,
    ) -> bool {
        let ip = peer.ip().to_canonical();
        let there = |ip: IpAddr, list: &mut Vec<(i32, u16)>| {
            list.retain(|(other, port)| *other != fd && still(*other, SocketAddr::new(ip, *port)));
        };
        let mine = self.by.entry(ip).or_default();
        if mine.len() >= EACH {
            there(ip, mine);
        }
        if mine.len() >= EACH {
            return false;
        }
        if self.count() >= all && self.swept.is_none_or(|at| now.saturating_duration_since(at) >= MOMENT) {
            self.swept = Some(now);
            self.by.retain(|ip, list| {
                there(*ip, list);
                !list.is_empty()
            });
        }
        if self.count() >= all {
            return false;
        }
        self.by.entry(ip).or_default().push((fd, peer.port()));
        true
    }

    fn count(&self) -> usize {
        self.by.values().map(Vec::len).sum()
    }
}

/// Why a connection was closed at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// It came from another network.
    Elsewhere,
    /// Its machine, or all machines together, have too many.
    TooMany,
    /// The host's addresses cannot be listed, so nobody can be told from anybody.
    Blind,
}

/// What was refused so far, for bmid's doctor to read.
#[derive(Default)]
struct Told {
    elsewhere: u64,
    many: u64,
    blind: u64,
    buffers: u64,
    written: Option<(Instant, u64)>,
}

impl Told {
    fn add(&mut self, why: Refused) {
        match why {
            Refused::Elsewhere => self.elsewhere += 1,
            Refused::TooMany => self.many += 1,
            Refused::Blind => self.blind += 1,
        }
    }

    /// The text of the file, when it is time to write it: a flood must not become a flood of writing.
    fn text(&mut self, now: Instant) -> Option<String> {
        let sum = self.elsewhere + self.many + self.blind + self.buffers;
        let (at, wrote) = self.written.unzip();
        if sum == wrote.unwrap_or(0) || at.is_some_and(|at| now.saturating_duration_since(at) < MOMENT) {
            return None;
        }
        self.written = Some((now, sum));
        let mut text = String::new();
        for (word, count) in
            [("elsewhere", self.elsewhere), ("many", self.many), ("blind", self.blind), ("buffers", self.buffers)]
        {
            let _ = writeln!(text, "{word} {count}");
        }
        Some(text)
    }
}

/// Whether tgtd may have another buffer for a machine's data. `used` is the memory it has, `host` that of the host: a quarter of it is
/// a network's, so that machines that ask for everything at once cost other networks nothing.
fn has_room(size: usize, used: impl FnOnce() -> usize, host: usize) -> bool {
    size <= BUFFER && used().saturating_add(size) <= (host / 4).max(MEMORY)
}

#[cfg(test)]
mod tests;
