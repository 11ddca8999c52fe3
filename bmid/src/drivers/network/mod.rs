//! The network driver: the engine's interfaces on VLANs, its addresses on interfaces, and what interfaces there are.
//!
//! It puts an address where it is absent and takes off only what a record calls bmid's. Other addresses, routes and the
//! state of a link that is up are never touched; it brings interfaces up and none down. Only VLAN interfaces that carry its
//! mark are removed (vlan.rs).
//!
//! Addresses carry no mark, so an observation tells all of the interface's, provided that everything [`PutAddress`]
//! does is so there: the link is up and has the network's private IPv6 address (where IPv6 is on). Only an address that a
//! record names may be taken off.
//!
//! All goes by rtnetlink. A link or address with attributes that nobody here knows is still seen (ask.rs). A step asks for what is on its
//! own interface, and where else its address may be, not for all links of the host.

mod ask;
mod facts;
mod host;
mod netlink;
mod news;
pub mod sim;
mod vlan;

pub use news::News;

use std::net::IpAddr;

use bmi::model::{Cidr, Id, Kind};
use bmi::step::network::ipv6_prefix;
use bmi::step::{
    DropAddress, Fact, Finding, InterfaceFacts, Look, NetworkStep, PutAddress, Routing, Scope, Seen, Severity,
};

use super::host::Shared;
use super::{Done, Driver, DriverError, Paths, StepCx};
use ask::Of;
use facts::Addresses;
use host::{Host, now};
use vlan::{Link, Mark};

/// Addresses of this host, in the network namespace bmid was started in.
#[derive(Default)]
pub struct Netlink {
    /// Where the kernel tells of changes; none where it does not.
    news: Option<rtnetlink::sys::Socket>,
    /// What its VLAN interfaces are marked with.
    mark: Mark,
    /// What there is, for all who look at the same time.
    host: Shared<Host>,
}

/// Prefix length of the private IPv6 subnets.
const PREFIX6: u8 = 64;

impl Netlink {
    /// A driver for this host's interfaces.
    #[must_use]
    pub fn new(paths: &Paths) -> Netlink {
        Netlink { mark: Mark::new(&paths.run), ..Netlink::default() }
    }

    /// The same, and it hears of changes of interfaces from now on.
    #[must_use]
    pub fn listening() -> Netlink {
        // Without it reconcile comes by its timer.
        let news = news::listen().inspect_err(|e| tracing::warn!("changes of interfaces are not noticed: {e}"));
        Netlink { news: news.ok(), ..Netlink::default() }
    }

    fn put(s: &PutAddress) -> Result<bool, DriverError> {
        let tried = || format!("put {} on {}", s.address, s.interface);
        let at = admit(&s.interface, s.address)?;
        let on = on(at.index, &s.interface)?;
        let mut changed = false;
        if !at.up {
            netlink::bring_up(&s.interface).map_err(|e| DriverError::io(format!("bring {} up", s.interface), e))?;
            changed = true;
        }
        if !on.given.contains(&s.address) {
            let (address, prefix) = (s.address.address, s.address.prefix);
            changed |= netlink::add(&s.interface, address, prefix).map_err(|e| DriverError::io(tried(), e))?;
        }
        let private = private(s.network);
        if !on.has(private) && facts::ipv6_is_on(&s.interface) {
            changed |= netlink::add(&s.interface, private, PREFIX6)
                .map_err(|e| DriverError::io(format!("put {private}/{PREFIX6} on {}", s.interface), e))?;
        }
        Ok(changed)
    }

    fn take(s: &DropAddress) -> Result<bool, DriverError> {
        let tried = || format!("take {} off {}", s.address, s.interface);
        let Some(at) = ask::link(&s.interface).map_err(|e| DriverError::io(tried(), e))? else { return Ok(false) };
        let on = on(at.index, &s.interface)?;
        let mut changed = false;
        let private = private(s.network);
        if on.has(private) {
            changed |= netlink::remove(&s.interface, private, PREFIX6)
                .map_err(|e| DriverError::io(format!("take {private}/{PREFIX6} off {}", s.interface), e))?;
        }
        if s.ours && on.given.contains(&s.address) {
            let (address, prefix) = (s.address.address, s.address.prefix);
            changed |= netlink::remove(&s.interface, address, prefix).map_err(|e| DriverError::io(tried(), e))?;
            Self::put_back(at.index, &on.given, s)?;
        }
        Ok(changed)
    }

    /// The kernel takes an interface's later addresses of the same subnet off together with its first one. Those are not
    /// ours.
    fn put_back(index: u32, before: &[Cidr], s: &DropAddress) -> Result<(), DriverError> {
        let tried = |a: &Cidr| format!("keep {a} on {}", s.interface);
        let now = on(index, &s.interface)?.given;
        for lost in before.iter().filter(|a| **a != s.address && !now.contains(a)) {
            netlink::add(&s.interface, lost.address, lost.prefix).map_err(|e| DriverError::io(tried(lost), e))?;
        }
        Ok(())
    }

    fn seen(&self, network: Id, interface: &str) -> Result<Vec<Seen>, DriverError> {
        let host = now(&self.host, || format!("look at {interface}"))?;
        let mut out = addresses(&host, network, interface);
        out.extend(vlan::seen(&self.mark, &host.links, network, interface).map(Seen::Vlan));
        Ok(out)
    }

    fn networks(&self) -> Result<Vec<Seen>, DriverError> {
        let host = now(&self.host, || "list interfaces".to_owned())?;
        Ok(host.links.iter().filter_map(|l| self.mark.network(l)).map(Seen::Network).collect())
    }
}

fn addresses(host: &Host, network: Id, interface: &str) -> Vec<Seen> {
    let Some(at) = host.link(interface) else { return Vec::new() };
    let on = host.on(at);
    if !at.up || (!on.has(private(network)) && facts::ipv6_is_on(interface)) {
        return Vec::new();
    }
    on.given.iter().map(|a| Seen::Address(*a)).collect()
}

/// What is on one interface.
fn on(index: u32, interface: &str) -> Result<Addresses, DriverError> {
    let all = ask::addresses(Of::Interface(index));
    Ok(all.map_err(|e| DriverError::io(format!("list addresses of {interface}"), e))?.iter().collect())
}

/// The address an engine has in a network's private IPv6 subnet.
fn private(network: Id) -> IpAddr {
    let mut octets = ipv6_prefix(network).octets();
    octets[15] = 1;
    IpAddr::from(octets)
}

/// Whether the address may be put on the interface; gives the interface.
fn admit(interface: &str, address: Cidr) -> Result<Link, DriverError> {
    let failed = |e| DriverError::io(format!("put {address} on {interface}"), e);
    let no = |kind, why: String, fix: String| {
        Err(DriverError::new(kind, format!("put {address} on {interface}"), why).fix(fix))
    };
    let Some(at) = ask::link(interface).map_err(failed)? else {
        let all = ask::links().map_err(failed)?;
        let names: Vec<&str> = all.iter().filter(|l| !l.loopback).map(|l| l.name.as_str()).collect();
        let fix = format!("name one of: {}", names.join(", "));
        return no(Kind::NotFound, format!("this host has no interface {interface}"), fix);
    };
    if at.loopback {
        let fix = "name the interface that the machines are connected to".to_owned();
        return no(Kind::Invalid, "that is the loopback interface".to_owned(), fix);
    }
    let mut same = ask::addresses(Of::Like(address.address)).map_err(failed)?;
    same.retain(|a| a.address == address.address);
    let is_there = same.iter().any(|a| (a.index, a.prefix) == (at.index, address.prefix));
    for other in same {
        if other.index != at.index {
            let name = ask::name(other.index);
            let why = format!("{} sits on {name} already", address.address);
            let fix = format!("give the network another address, or that interface: --interface {name}");
            return no(Kind::Conflict, why, fix);
        }
        if !is_there {
            let there = Cidr { address: other.address, prefix: other.prefix };
            let fix = format!("give the network the same: --address {there}");
            return no(Kind::Conflict, format!("it is there with another prefix length: {there}"), fix);
        }
    }
    Ok(at)
}

impl Driver for Netlink {
    type Step = NetworkStep;

    fn apply(&self, step: &NetworkStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        match step {
            NetworkStep::PutAddress(s) => Self::put(s),
            NetworkStep::DropAddress(s) => Self::take(s),
            NetworkStep::MakeVlan(s) => vlan::make(&self.mark, s),
            NetworkStep::DropVlan(s) => vlan::remove(&self.mark, s),
        }
        .map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Network { network, interface } => self.seen(*network, interface),
            // Addresses do not tell whose network they are of; interfaces on VLANs do.
            Scope::Networks => self.networks(),
            Scope::Datastore { .. } => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        let all = || now(&self.host, || "list interfaces".to_owned()).map(|host| facts::told(&self.mark, &host));
        match look {
            Look::Interfaces => Some(all().map(Fact::Interfaces)),
            Look::Routing => Some(Ok(Fact::Routing(facts::routing("all")))),
            Look::Doctor { networks } => {
                let told = |n: &(Id, String, String), all: &[_]| {
                    findings(all, n, facts::ipv6_is_on(&n.1), facts::routing(&n.1))
                };
                Some(all().map(|all| networks.iter().flat_map(|n| told(n, &all)).collect()).map(Fact::Findings))
            }
            _ => None,
        }
    }
}

/// What is wrong with one network's interface.
fn findings(
    all: &[InterfaceFacts],
    (_, name, address): &(Id, String, String),
    ipv6: bool,
    routing: Routing,
) -> Vec<Finding> {
    let finding = |severity, found: String, fix: &str| Finding {
        check: format!("interface {name}"),
        severity,
        found,
        fix: fix.to_owned(),
    };
    let Some(at) = all.iter().find(|i| i.name == *name) else {
        let fix = "plug it in or create it, then: bmictl reconcile";
        return vec![finding(Severity::Error, "this host has no such interface".to_owned(), fix)];
    };
    let mut out = Vec::new();
    if !at.up {
        out.push(finding(Severity::Error, "it is down".to_owned(), "bmictl reconcile brings it up"));
    } else if !at.carrier {
        out.push(finding(Severity::Error, "no carrier".to_owned(), "look at the cable and at the switch's port"));
    }
    if at.mtu < 1500 {
        let found = format!("its MTU is {}: machines send packets of 1500 bytes and get stuck", at.mtu);
        out.push(finding(Severity::Warning, found, "raise it: ip link set dev INTERFACE mtu 1500"));
    }
    if !at.addresses.iter().any(|a| a.to_string() == *address) {
        out.push(finding(Severity::Error, format!("the engine's address {address} is not on it"), "bmictl reconcile"));
    }
    if !ipv6 {
        let found = "IPv6 is off there: every machine waits 16 seconds for a router advertisement".to_owned();
        out.push(finding(Severity::Warning, found, "switch it on: sysctl net.ipv6.conf.INTERFACE.disable_ipv6=0"));
    }
    if let Some(which) = routing.told() {
        let found =
            format!("this host forwards {which} packets that come in there: its machines reach other networks by it");
        let fix = "bmid needs no forwarding: sysctl net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0, or filter it";
        out.push(finding(Severity::Warning, found, fix));
    }
    if out.is_empty() {
        let found = format!("up, MTU {}, has {address}, and nothing that comes in there is forwarded", at.mtu);
        out.push(finding(Severity::Ok, found, ""));
    }
    out
}

#[cfg(test)]
mod tests;
