//! `network create`: an interface begins to serve boots: the interface itself on a VLAN; address and boot files; tgtd, dnsmasq and
//! HTTP side by side; the portal, in that order.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::place::{self, Place};
use super::{NetworkView, addresses, name_free, pool, view_of};
use crate::model::record::owned_or_everyones;
use crate::model::{
    Cidr, Dhcp, EngineNetwork, Fault, Index, Kind, Name, Network, NetworkState, Owner, Range, Ref, Subnet, Tagging,
    ViewExt, VlanChoice, vlan,
};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::{allocate, wanted};
use crate::step::Look;

/// Begin to serve boots on an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Its name
    pub name: Name,
    /// The interface nodes are reached through: as it is (untagged), or with --vlan the one that carries the tagged frames
    #[arg(long, value_name = "IF")]
    pub interface: String,
    /// The VLAN, 1 to 4094, or the lowest free one of the pool that the project may use: bmid makes the interface on it itself
    #[arg(long, value_name = "N|auto")]
    #[serde(default, with = "crate::model::vlan::choice")]
    pub vlan: Option<VlanChoice>,
    /// The engine's address there with prefix length; put on the interface if it is not there yet
    #[arg(long, value_name = "CIDR", required_unless_present = "subnet", conflicts_with = "subnet")]
    #[serde(default)]
    pub address: Option<Cidr>,
    /// Addresses nodes get; without it any free one of the subnet, and only provisioned nodes get one
    #[arg(long, value_name = "A-B")]
    pub range: Option<Range>,
    /// serve: bmid gives addresses; proxy: another server does, bmid names the boot file; off: neither; ipv6: bmid gives IPv6
    /// addresses, and machines need no IPv4
    #[arg(long, default_value = "serve")]
    #[serde(default = "serve")]
    pub dhcp: Dhcp,
    /// Largest packet on the VLAN; without it the interface's own
    #[arg(long, value_name = "BYTES", requires = "vlan")]
    #[serde(default)]
    pub mtu: Option<u32>,
    /// 802.1Q, or 802.1ad (a provider's service tag)
    #[arg(long, default_value = "802.1Q", requires = "vlan")]
    #[serde(default)]
    pub tagging: Tagging,
    /// The subnet alone: the engine has the address that its interface has there, else takes the first free one
    #[arg(long, value_name = "CIDR")]
    #[serde(default)]
    pub subnet: Option<Subnet>,
    /// The router of the subnet, if there is one: machines are told of it by DHCP. It is not the engine, which routes nothing
    #[arg(long, value_name = "IP")]
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// A name server that machines are told of by DHCP; may be repeated
    #[arg(long, value_name = "IP")]
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Everyone's: nodes of every project may boot there; else it is the acting project's
    #[arg(long)]
    #[serde(default)]
    pub everyone: bool,
    /// The engine that shall serve it: name or id. Each engine is asked on its own host, so it can only be this one
    #[arg(long, value_name = "ENGINE")]
    #[serde(default)]
    pub engine: Option<Ref>,
}

fn serve() -> Dhcp {
    Dhcp::Serve
}

impl NetworkCreate {
    fn check_name(&self) -> Result<(), Fault> {
        if self.interface.is_empty()
            || self.interface.len() > 15
            || self.interface.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control() || !c.is_ascii())
        {
            let long = if self.interface.len() > 15 { ": it is longer than 15 characters" } else { "" };
            return Err(Fault::invalid(format!(
                "{:?} is not an interface's name{long}",
                self.interface.chars().take(20).collect::<String>()
            ))
            .fix("`ip link` lists the host's interfaces"));
        }
        Ok(())
    }

    /// Refuses another engine: its host is not ours to act on, and its networks are not in our records.
    fn check_engine(&self, cx: &Cx<'_>) -> Result<(), Fault> {
        let meta = cx.view.meta();
        match &self.engine {
            None => Ok(()),
            Some(Ref::Own(name)) if *name == meta.engine_name => Ok(()),
            Some(Ref::Id(id)) if *id == meta.engine => Ok(()),
            Some(other) => Err(Fault::conflict(format!(
                "engine {other} cannot be told from here: this is engine {} ({}), which serves its own networks alone",
                meta.engine_name, meta.engine
            ))
            .fix("run the command on that engine's host, or leave --engine out")),
        }
    }

    fn check_vlan(&self) -> Result<(), Fault> {
        match self.vlan {
            Some(VlanChoice::Number(n)) if let Some(why) = vlan::refuse(n) => {
                Err(Fault::invalid(why).fix("give one of those, or auto: the lowest free one of the pool"))
            }
            None if self.mtu.is_some() || self.tagging != Tagging::Dot1q => {
                Err(Fault::invalid("an MTU and a way of tagging are for VLANs")
                    .fix("give --vlan; an untagged interface is used as it is"))
            }
            _ => self.mtu.map_or(Ok(()), |mtu| place::check_mtu(mtu, None)),
        }
    }

    /// Where it shall stand, with the VLAN it has or is to get.
    fn place(&self, vlan: Option<u16>, address: Cidr) -> Place {
        Place { interface: self.interface.clone(), vlan, tagging: self.tagging, mtu: self.mtu, address }
    }

    /// Whose it shall be.
    fn owner<'a>(&self, cx: &'a Cx<'_>) -> Option<&'a Owner> {
        (!self.everyone).then(|| cx.project())
    }

    /// The VLAN it shall have.
    fn choose_vlan(&self, cx: &Cx<'_>) -> Result<Option<u16>, Fault> {
        let owner = self.owner(cx);
        match self.vlan {
            None => Ok(None),
            Some(VlanChoice::Number(number)) => pool::may_use(cx, owner, number).map(|()| Some(number)),
            Some(VlanChoice::Auto) => {
                let all = place::interfaces(cx)?;
                let fits = |n| place::free_on_host(all, &self.interface, n, self.tagging).is_ok();
                pool::lowest_free(cx, owner, fits).map(Some)
            }
        }
    }

    /// The engine's address and the subnet.
    fn choose_address(&self, cx: &Cx<'_>) -> Result<Cidr, Fault> {
        match (self.address, self.subnet) {
            (Some(address), None) => Ok(address),
            (None, Some(subnet)) => {
                let all = place::interfaces(cx)?.iter();
                // On a VLAN the interface is bmid's own, and has no address yet.
                let own = all.filter(|_| self.vlan.is_none()).find(|i| i.name == self.interface);
                let told: Vec<IpAddr> = self.dns.iter().copied().chain(self.router).map(IpAddr::from).collect();
                addresses::first_free(subnet, own, self.range, &told)
            }
            _ => Err(Fault::invalid("a network has one subnet and the engine one address in it")
                .fix("give --address (the engine's own, with prefix length) or --subnet")),
        }
    }

    /// The network as it stands already, if it is exactly this one.
    fn same(&self, cx: &Cx<'_>, address: Cidr) -> Result<Option<Network>, Fault> {
        let key = owned_or_everyones(self.owner(cx), &self.name);
        let Some(old) = cx.view.by_key::<Network>(Index::NetworkName, &key)? else { return Ok(None) };
        let on = wanted::engine_network(cx.view, old.id)?;
        let place = self.place(old.vlan, address);
        let vlan = match self.vlan {
            None => old.vlan.is_none(),
            Some(VlanChoice::Auto) => old.vlan.is_some(),
            Some(VlanChoice::Number(n)) => old.vlan == Some(n),
        };
        if vlan
            && (old.address, old.range, old.dhcp, old.state) == (address, self.range, self.dhcp, NetworkState::Ready)
            && (old.router, &old.dns) == (self.router, &self.dns)
            && (on.interface, on.trunk) == (place.own_interface(), place.trunk())
        {
            return Ok(Some(old));
        }
        Err(Fault::new(Kind::Duplicate, format!("there is a network {} already, and it is another one", self.name))
            .fix(format!("`bmictl network show {}` shows it; choose another name, or remove that one", old.id)))
    }

    /// Where it shall stand, and whether the address has still to be put there.
    fn settle(&self, cx: &Cx<'_>, address: Cidr) -> Result<(Place, bool), Fault> {
        name_free(cx.view, self.owner(cx), &self.name, None)?;
        let place = self.place(self.choose_vlan(cx)?, address);
        place.check_others(cx)?;
        let ours = place.check_interface(cx)?;
        Ok((place, ours))
    }
}

impl Op for NetworkCreate {
    type Out = NetworkView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "create",
        about: "Begin to serve boots on an interface",
        examples: &[
            "network create rack1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150",
            "network create rack2 --interface eth2 --address 10.9.1.1/24 --dhcp proxy",
            "network create tenant7 --interface eth1 --vlan 107 --address 10.107.0.1/24",
            "network create tenant8 --interface eth1 --vlan auto --subnet 10.108.0.0/24 --router 10.108.0.254 --dns 10.108.0.253",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, _at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![Look::Interfaces, Look::Routing])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        self.check_engine(cx)?;
        self.check_name()?;
        self.check_vlan()?;
        let address = self.choose_address(cx)?;
        let (range, dhcp, router) = (self.range, self.dhcp, self.router);
        Addresses { engine: address, range, dhcp, router, dns: &self.dns }.check()?;
        if let Some(old) = self.same(cx, address)? {
            return Ok(Plan::already("network", old.id, &old.name));
        }
        let (place, ours) = self.settle(cx, address)?;
        let start = cx.number();
        let network = Network {
            id: cx.id(),
            owner: self.owner(cx).cloned(),
            name: self.name.clone(),
            vlan: place.vlan,
            address,
            range,
            dhcp,
            state: NetworkState::Creating,
            slot: allocate::slot(cx.view, start)?,
            created_at: cx.now,
            operation: Some(cx.operation),
            router,
            dns: self.dns.clone(),
        };
        let on = EngineNetwork {
            id: cx.id(),
            network: network.id,
            engine: cx.engine(),
            interface: place.own_interface(),
            address_ours: ours,
            trunk: place.trunk(),
        };
        let want = wanted::network(&network, &on, cx.defaults);
        let mut part = PartPlan::default();
        part.about("network", network.id, &network.name);
        if let Some(vlan) = want.vlan {
            part.script.first(vlan);
        }
        part.script.first(want.address);
        part.script.beside(want.serve);
        // Side by side: each takes its time to start. There is no machine yet for which the order would matter.
        part.script.first(want.tgtd);
        part.script.beside(want.dnsmasq);
        part.script.beside(want.http);
        part.script.first(want.portal);
        part.begin.push(on.into());
        part.row(network.clone(), Network { state: NetworkState::Ready, operation: None, ..network });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NetworkView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Network>(s.id)?, at.facts, at.defaults)).collect()
    }
}
