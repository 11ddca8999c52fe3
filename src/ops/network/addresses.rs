//! The address plan of a network: the engine's own address, what nodes get and what they are told. Pure.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Cidr, Dhcp, Fault, Range, Subnet};
use crate::step::InterfaceFacts;
use crate::step::network::is_private;

/// Most name servers that a machine is told of.
const SERVERS: usize = 8;

/// A plan, before it is judged.
pub(super) struct Addresses<'a> {
    /// The engine's address and the subnet.
    pub(super) engine: Cidr,
    /// From where nodes get addresses.
    pub(super) range: Option<Range>,
    /// Who gives them.
    pub(super) dhcp: Dhcp,
    /// The router that machines are told of.
    pub(super) router: Option<Ipv4Addr>,
    /// The name servers that machines are told of.
    pub(super) dns: &'a [Ipv4Addr],
}

/// The engine's address in a subnet: the one that the interface has there, else the first that is nobody's.
pub(super) fn first_free(
    subnet: Subnet,
    has: Option<&InterfaceFacts>,
    range: Option<Range>,
    told: &[IpAddr],
) -> Result<Cidr, Fault> {
    if let Some(there) = has.and_then(|i| i.addresses.iter().find(|a| a.subnet() == subnet)) {
        return Ok(*there);
    }
    let hosts = subnet.hosts();
    // A range may fill the subnet: what stands in it is passed over in one stride.
    let mut at = 0;
    while at < hosts.len() {
        let candidate = hosts.at(at);
        match range.filter(|r| r.contains(candidate)) {
            Some(r) => at += Range { first: candidate, last: r.last }.len() - 1,
            None if told.contains(&candidate) => {}
            None => return Ok(subnet.with(candidate)),
        }
        at += 1;
    }
    Err(Fault::invalid(format!("the subnet {subnet} has no address left for the engine"))
        .fix("give a smaller range, or the engine's address by --address"))
}

impl Addresses<'_> {
    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_family()?;
        self.check_dhcp()?;
        self.check_range()?;
        self.check_router()?;
        self.check_dns()?;
        self.check_room()
    }

    fn is_host(&self, a: impl Into<IpAddr>) -> bool {
        self.engine.hosts().contains(a.into())
    }

    /// Refuses an address of one kind where machines are given those of the other.
    fn check_family(&self) -> Result<(), Fault> {
        let engine = self.engine;
        if matches!(engine.address, IpAddr::V6(a) if is_private(a)) {
            return Err(Fault::invalid(format!("{engine} is in fd97::/16, where bmid has subnets of its own"))
                .fix("give another one, such as fd00:7::1/64"));
        }
        match (self.dhcp == Dhcp::Ipv6, engine.address.is_ipv4()) {
            (true, true) => {
                Err(Fault::invalid(format!("where machines have IPv6 alone, {engine} reaches none of them"))
                    .fix("give the engine an IPv6 address: --address fd00:7::1/64, or --subnet fd00:7::/64"))
            }
            (false, false) => Err(Fault::invalid(format!("{engine} is for machines that have IPv6 alone"))
                .fix("add --dhcp ipv6, or give the engine an IPv4 address")),
            (true, false) => match [engine.leased(), engine.reserved()].iter().find(|r| r.contains(engine.address)) {
                Some(machines) => {
                    Err(Fault::invalid(format!("{} is among the addresses for machines", engine.address))
                        .fix(format!("give one outside {machines}, such as {}", engine.hosts().first)))
                }
                None => Ok(()),
            },
            (false, true) => Ok(()),
        }
    }

    fn check_dhcp(&self) -> Result<(), Fault> {
        let given = [
            (self.range.is_some(), "a range means that bmid gives addresses", "--range"),
            (self.router.is_some(), "machines hear of a router from whoever gives addresses", "--router"),
            (!self.dns.is_empty(), "machines hear of name servers from whoever gives addresses", "--dns"),
        ];
        match given.iter().find(|(given, ..)| *given && self.dhcp != Dhcp::Serve) {
            Some((_, why, option)) => Err(Fault::invalid(*why).fix(format!("leave {option} out, or use --dhcp serve"))),
            None => Ok(()),
        }
    }

    fn check_range(&self) -> Result<(), Fault> {
        let Some(range) = self.range else { return Ok(()) };
        if !self.is_host(range.first) || !self.is_host(range.last) {
            let hosts = self.engine.hosts();
            return Err(Fault::invalid(format!(
                "the range {range} does not lie among the host addresses of {}",
                self.engine.subnet()
            ))
            .fix(format!("give a range within {hosts}")));
        }
        let inside =
            [("the engine's own address", Some(self.engine.address)), ("the router", self.router.map(IpAddr::from))];
        let servers = self.dns.iter().map(|d| ("the name server", Some(IpAddr::from(*d))));
        for (what, address) in inside.into_iter().chain(servers) {
            if let Some(a) = address.filter(|a| range.contains(*a)) {
                return Err(Fault::invalid(format!("the range {range} holds {what} {a}"))
                    .fix("leave that address out of the range"));
            }
        }
        Ok(())
    }

    fn check_router(&self) -> Result<(), Fault> {
        let Some(router) = self.router else { return Ok(()) };
        if !self.is_host(router) {
            let (subnet, hosts) = (self.engine.subnet(), self.engine.hosts());
            return Err(Fault::invalid(format!("the router {router} is no host of the subnet {subnet}"))
                .fix(format!("machines must reach it directly: one of {hosts}")));
        }
        if router == self.engine.address {
            return Err(Fault::invalid(format!("the router {router} is the engine itself, and that routes nothing"))
                .fix("leave --router out, or give the router's own address"));
        }
        Ok(())
    }

    fn check_dns(&self) -> Result<(), Fault> {
        if self.dns.len() > SERVERS {
            return Err(Fault::invalid(format!("{} name servers are too many", self.dns.len()))
                .fix(format!("give at most {SERVERS}")));
        }
        let nobody = |a: &&Ipv4Addr| {
            a.is_unspecified()
                || a.is_multicast()
                || a.is_loopback()
                || a.octets()[0] >= 240
                || (self.engine.contains(IpAddr::from(**a)) && !self.is_host(**a))
        };
        if let Some(bad) = self.dns.iter().find(nobody) {
            return Err(Fault::invalid(format!("{bad} cannot be a name server's address"))
                .fix("give an address at which machines reach it"));
        }
        if self.dns.iter().any(|d| self.engine.address == *d) {
            return Err(Fault::invalid(format!(
                "{} is the engine itself, and that answers no names",
                self.engine.address
            ))
            .fix("give a name server's own address"));
        }
        Ok(())
    }

    /// Refuses a subnet in which no address is left for a node.
    fn check_room(&self) -> Result<(), Fault> {
        if self.dhcp != Dhcp::Serve || self.range.is_some() {
            return Ok(());
        }
        let mut kept: Vec<IpAddr> = self.dns.iter().copied().filter(|d| self.is_host(*d)).map(IpAddr::from).collect();
        kept.extend(self.router.map(IpAddr::from));
        kept.push(self.engine.address);
        kept.sort_unstable();
        kept.dedup();
        if kept.len() < self.engine.hosts().len() as usize {
            return Ok(());
        }
        Err(Fault::invalid(format!("the subnet {} is too small: no address is left for a node", self.engine.subnet()))
            .fix("give a larger subnet"))
    }
}
