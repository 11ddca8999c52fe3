//! Picking free numbers and addresses: a random start and then the next free one, so that the cost does not grow with how
//! many are taken.

use std::net::IpAddr;

use crate::model::net::{BLOCK, octets};
use crate::model::record::under;
use crate::model::{Fault, Id, Index, Kind, Network, Range, View};

/// Addresses of a network that nodes may get: its range, else every host address of the subnet, of an IPv6 one those that are kept
/// for nodes.
#[must_use]
pub fn pool(network: &Network) -> Range {
    let all = || if network.address.address.is_ipv4() { network.address.hosts() } else { network.address.reserved() };
    network.range.unwrap_or_else(all)
}

/// A free address of the network's pool. `taken` are those claimed earlier in the same plan.
pub fn address(view: &dyn View, network: &Network, start: u32, taken: &[IpAddr]) -> Result<IpAddr, Fault> {
    let pool = pool(network);
    let each = if pool.first.is_ipv4() { 1 } else { BLOCK };
    let places = pool.len() / each;
    for offset in 0..places {
        let candidate = pool.at(start.wrapping_add(offset) % places * each);
        if network.keeps(candidate) || taken.contains(&candidate) {
            continue;
        }
        if view.find(Index::NodeAddress, &under(network.id, &octets(candidate)))?.is_none() {
            return Ok(candidate);
        }
    }
    Err(Fault::new(Kind::Limit, format!("network {} has no free address left in {pool}", network.name))
        .fix("deprovision nodes, or make a network with a larger range"))
}

/// A target number that is free in the network's tgtd. Random, so that one is not used again while a session of its
/// former holder may live.
pub fn tid(view: &dyn View, network: Id, mut next: impl FnMut() -> u32, taken: &[u32]) -> Result<u32, Fault> {
    loop {
        let candidate = next() % 0x7fff_fffe + 1;
        if !taken.contains(&candidate)
            && view.find(Index::TargetTid, &under(network, &candidate.to_be_bytes()))?.is_none()
        {
            return Ok(candidate);
        }
    }
}

/// A free network slot.
pub fn slot(view: &dyn View, start: u32) -> Result<u16, Fault> {
    for offset in 0..=u32::from(u16::MAX) {
        let candidate = (start.wrapping_add(offset) & 0xffff) as u16;
        // 127.97.0.0 and 127.97.255.255 are left out: they look like network addresses to people.
        if candidate != 0 && candidate != u16::MAX && view.find(Index::NetworkSlot, &candidate.to_be_bytes())?.is_none()
        {
            return Ok(candidate);
        }
    }
    Err(Fault::new(Kind::Limit, "this engine serves 65,534 networks already"))
}
