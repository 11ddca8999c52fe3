//! What interfaces there are and what is on them. No effect.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use bmi::model::Cidr;
use bmi::step::network::is_private;
use bmi::step::{InterfaceFacts, Routing};

use super::ask::On;
use super::host::Host;
use super::vlan::{self, Link, Mark};

/// What is on an interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    /// Those that a network may have as the engine's.
    pub(super) given: Vec<Cidr>,
    /// All of IPv6.
    pub(super) all6: Vec<IpAddr>,
}

impl Addresses {
    /// It has that IPv6 address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.all6.contains(&address)
    }

    pub(super) fn add(&mut self, on: &On) {
        let given = match on.address {
            IpAddr::V4(_) => true,
            IpAddr::V6(a) => {
                self.all6.push(on.address);
                // The link's own, and those of the private subnets, are no network's.
                !a.is_unicast_link_local() && !is_private(a)
            }
        };
        self.given.extend(given.then_some(Cidr { address: on.address, prefix: on.prefix }));
    }
}

impl<'a> FromIterator<&'a On> for Addresses {
    fn from_iter<I: IntoIterator<Item = &'a On>>(all: I) -> Addresses {
        let mut out = Addresses::default();
        all.into_iter().for_each(|on| out.add(on));
        out
    }
}

/// As others are told.
pub(super) fn told(mark: &Mark, host: &Host) -> Vec<InterfaceFacts> {
    let names: HashMap<u32, &str> = host.links.iter().map(|l| (l.index, l.name.as_str())).collect();
    let told = |l: &Link| {
        let on = host.on(l);
        InterfaceFacts {
            name: l.name.clone(),
            addresses: on.given.clone(),
            up: l.up,
            carrier: l.carrier,
            mtu: l.mtu,
            loopback: l.loopback,
            vlan: vlan::told(mark, |index| names.get(&index).copied(), l),
            private: on.all6.iter().filter_map(private).collect(),
        }
    };
    host.links.iter().map(told).collect()
}

/// An address in one of bmid's private subnets.
fn private(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(a) => is_private(*a).then_some(*a),
        IpAddr::V4(_) => None,
    }
}

/// Whether packets that come in on an interface are handed on; of `all`, whether the host does so at all.
pub(super) fn routing(name: &str) -> Routing {
    // Answered for the network namespace of the thread that reads. What is not there forwards nothing.
    let on = |family: &str| {
        let path: PathBuf = ["/proc/sys/net", family, "conf", name, "forwarding"].iter().collect();
        std::fs::read_to_string(path).is_ok_and(|t| t.trim() != "0")
    };
    Routing { ipv4: on("ipv4"), ipv6: on("ipv6") }
}

/// Whether the interface takes IPv6 addresses.
pub(super) fn ipv6_is_on(name: &str) -> bool {
    // Answered for the network namespace of the thread that reads.
    let path: PathBuf = ["/proc/sys/net/ipv6/conf", name, "disable_ipv6"].iter().collect();
    let text = std::fs::read_to_string(path);
    text.is_ok_and(|t| t.trim() == "0")
}
