//! What interfaces there are and what is on them. No effect.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bmi::model::Cidr;
use bmi::step::network::is_private;
use bmi::step::{InterfaceFacts, Routing};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::host::Host;
use super::vlan::{self, Link, Mark};
use crate::drivers::DriverError;

/// An interface as the kernel has it.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) addresses: Vec<Cidr>,
    pub(super) addresses6: Vec<IpAddr>,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
}

impl Interface {
    /// It has that IPv6 address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses6.contains(&address)
    }
}

/// All interfaces, by name.
pub(super) fn interfaces(tried: impl FnOnce() -> String) -> Result<Vec<Interface>, DriverError> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs().map_err(|e| DriverError::io(tried(), e.into()))? {
        // An address with a label is listed under it: `eth1:0` is on eth1.
        let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        let at = found.entry(name.clone()).or_insert_with(|| Interface {
            name,
            addresses: Vec::new(),
            addresses6: Vec::new(),
            up: entry.flags.contains(InterfaceFlags::IFF_UP),
            carrier: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
        });
        let Some(address) = entry.address else { continue };
        if let Some(a) = address.as_sockaddr_in() {
            let mask = entry.netmask.as_ref().and_then(|m| m.as_sockaddr_in()).map_or(Ipv4Addr::BROADCAST, |m| m.ip());
            let prefix = u32::from(mask).count_ones();
            at.addresses.push(Cidr { address: a.ip().into(), prefix: u8::try_from(prefix).unwrap_or(32) });
        } else if let Some(a) = address.as_sockaddr_in6() {
            at.addresses6.push(IpAddr::V6(a.ip()));
            let mask = entry.netmask.as_ref().and_then(|m| m.as_sockaddr_in6()).map_or(u128::MAX, |m| m.ip().into());
            // The link's own, and those of the private subnets, are no network's.
            if !a.ip().is_unicast_link_local() && !is_private(a.ip()) {
                let prefix = u8::try_from(mask.count_ones()).unwrap_or(128);
                at.addresses.push(Cidr { address: a.ip().into(), prefix });
            }
        }
    }
    Ok(found.into_values().collect())
}

/// As others are told, with their MTUs.
pub(super) fn told(mark: &Mark, host: &Host) -> Vec<InterfaceFacts> {
    let links: HashMap<&str, &Link> = host.links.iter().map(|l| (l.name.as_str(), l)).collect();
    let mtu = |name: &str| links.get(name).map(|l| l.mtu).filter(|m| *m > 0);
    let told = |i: &Interface| InterfaceFacts {
        // The kernel's usual one, should it be the only thing that cannot be found out.
        mtu: mtu(&i.name).or_else(|| sysfs_mtu(&i.name)).unwrap_or(1500),
        vlan: links.get(i.name.as_str()).and_then(|l| vlan::told(mark, &host.links, l)),
        name: i.name.clone(),
        addresses: i.addresses.clone(),
        up: i.up,
        carrier: i.carrier,
        loopback: i.loopback,
        private: i.addresses6.iter().filter_map(private).collect(),
    };
    host.interfaces.iter().map(told).collect()
}

/// An address in one of bmid's private subnets.
fn private(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(a) => is_private(*a).then_some(*a),
        IpAddr::V4(_) => None,
    }
}

fn sysfs_mtu(name: &str) -> Option<u32> {
    let path: PathBuf = ["/sys/class/net", name, "mtu"].iter().collect();
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
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
