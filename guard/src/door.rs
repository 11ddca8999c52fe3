//! Who may knock at a network's tgtd: machines of that network. Linux answers for an address of one interface on all others, so
//! that a machine on another VLAN, with a route that it gives itself, would be let in to a portal that is none of its business.
//! This must never know an initiator or a target: whom it lets in is asked for name and secret by tgtd.

use std::net::IpAddr;

pub mod ffi;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_near_in_the_subnet_of_the_address_it_came_to_and_nowhere_else() {
        let of = |s: &str| s.parse::<IpAddr>().unwrap();
        let host = [
            ("127.0.0.1", "255.0.0.0"),
            ("10.100.0.1", "255.255.255.0"),
            ("10.200.0.1", "255.255.0.0"),
            ("fd97::1", "ffff:ffff:ffff:ffff::"),
        ]
        .map(|(a, m)| (of(a), of(m)));
        let near = |local, peer| near(of(local), of(peer), &host);
        assert!(near("10.100.0.1", "10.100.0.50") && near("10.200.0.1", "10.200.77.1"));
        assert!(near("10.100.0.1", "10.100.0.1"), "the engine itself");
        assert!(near("127.97.3.4", "127.0.0.1") && near("127.97.3.4", "127.97.3.4") && near("::1", "::1"));
        assert!(!near("127.97.3.4", "10.100.0.50") && near("fd97::1", "fd97::7"));
        assert!(near("::ffff:10.100.0.1", "::ffff:10.100.0.9"));
        assert!(!near("10.100.0.1", "10.200.0.50"), "of another network");
        assert!(!near("10.100.0.1", "10.100.1.50") && !near("10.100.0.1", "127.0.0.1"));
        assert!(!near("10.100.0.9", "10.100.0.50"), "an address that is gone");
        assert!(!near("fd97::1", "fd98::7") && !near("fd97::1", "10.100.0.50"));
    }
}
