//! `network create`: an interface begins to serve boots: the interface itself on a VLAN, address, boot service, tgtd, portal,
//! dnsmasq, in that order.

use serde::{Deserialize, Serialize};

use super::{NetworkView, view_of};
use crate::model::record::{owned, under};
use crate::model::{
    Cidr, Dhcp, EngineNetwork, Fault, Index, Kind, Name, Network, NetworkState, Range, Tagging, Trunk, ViewExt,
};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::{allocate, wanted};
use crate::step::network::vlan_interface;
use crate::step::{Fact, InterfaceFacts, Look, VlanFacts};

/// What a boot network's largest packet may be: IPv4's least that every machine takes, and the largest frames there are.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// Begin to serve boots on an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Its name
    pub name: Name,
    /// The interface nodes are reached through: as it is (untagged), or with --vlan the one that carries the tagged frames
    #[arg(long, value_name = "IF")]
    pub interface: String,
    /// The VLAN, 1 to 4094: bmid makes the interface on it itself
    #[arg(long, value_name = "N")]
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The engine's address there with prefix length; put on the interface if it is not there yet
    #[arg(long, value_name = "CIDR")]
    pub address: Cidr,
    /// Addresses nodes get; without it any free one of the subnet, and only provisioned nodes get one
    #[arg(long, value_name = "A-B")]
    pub range: Option<Range>,
    /// serve: bmid gives addresses; proxy: another server does, bmid names the boot file; off: neither
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
}

fn serve() -> Dhcp {
    Dhcp::Serve
}

impl NetworkCreate {
    fn check_range(&self) -> Result<(), Fault> {
        let Some(range) = self.range else { return Ok(()) };
        let inside = |a| self.address.contains(a) && a != self.address.network() && a != self.address.broadcast();
        if !inside(range.first) || !inside(range.last) {
            return Err(Fault::invalid(format!(
                "the range {range} does not lie among the host addresses of {}",
                self.address
            ))
            .fix("give two host addresses of the subnet"));
        }
        if range.contains(self.address.address) {
            return Err(Fault::invalid(format!(
                "the range {range} holds the engine's own address {}",
                self.address.address
            ))
            .fix("leave that address out of the range"));
        }
        if self.dhcp != Dhcp::Serve {
            return Err(
                Fault::invalid("a range means that bmid gives addresses").fix("leave --range out, or use --dhcp serve")
            );
        }
        Ok(())
    }

    fn check_name(&self) -> Result<(), Fault> {
        if self.interface.is_empty()
            || self.interface.len() > 15
            || self.interface.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control() || !c.is_ascii())
        {
            return Err(Fault::invalid(format!(
                "{:?} is not an interface's name",
                self.interface.chars().take(20).collect::<String>()
            ))
            .fix("`ip link` lists the host's interfaces"));
        }
        Ok(())
    }

    fn check_vlan(&self) -> Result<(), Fault> {
        match self.vlan {
            Some(n) if !(1..=4094).contains(&n) => Err(Fault::invalid(format!("{n} is not a VLAN"))
                .fix("VLANs are numbered 1 to 4094; 0 and 4095 are reserved (IEEE 802.1Q)")),
            None if self.mtu.is_some() || self.tagging != Tagging::Dot1q => {
                Err(Fault::invalid("an MTU and a way of tagging are for VLANs")
                    .fix("give --vlan; an untagged interface is used as it is"))
            }
            _ if self.mtu.is_some_and(|m| !(MTU.contains(&m))) => {
                Err(Fault::invalid(format!("an MTU of {} does not fit a boot network", self.mtu.unwrap_or_default()))
                    .fix(format!("use {} to {}", MTU.start(), MTU.end())))
            }
            _ => Ok(()),
        }
    }

    /// The interface that nodes are reached through.
    fn own_interface(&self) -> String {
        self.vlan.map_or_else(|| self.interface.clone(), vlan_interface)
    }

    fn trunk(&self) -> Option<Trunk> {
        self.vlan.map(|_| Trunk { parent: self.interface.clone(), tagging: self.tagging, mtu: self.mtu })
    }

    /// The network as it stands already, if it is exactly this one.
    fn same(&self, cx: &Cx<'_>) -> Result<Option<Network>, Fault> {
        let key = owned(cx.project(), &self.name);
        let Some(old) = cx.view.by_key::<Network>(Index::NetworkName, &key)? else { return Ok(None) };
        let on = wanted::engine_network(cx.view, old.id)?;
        if (old.address, old.range, old.dhcp, old.state) == (self.address, self.range, self.dhcp, NetworkState::Ready)
            && (on.interface, on.trunk) == (self.own_interface(), self.trunk())
        {
            return Ok(Some(old));
        }
        Err(Fault::new(Kind::Duplicate, format!("there is a network {} already, and it is another one", self.name))
            .fix("choose another name, or remove that one"))
    }

    /// Refuses a subnet or an interface that another network has.
    fn check_others(&self, cx: &Cx<'_>) -> Result<(), Fault> {
        for other in cx.view.live::<Network>()? {
            if other.address.overlaps(self.address) {
                return Err(Fault::conflict(format!(
                    "{} overlaps {} of network {}",
                    self.address, other.address, other.name
                ))
                .fix("give each network a subnet of its own"));
            }
        }
        if let Some(vlan) = self.vlan
            && let Some(other) = cx.view.by_key::<Network>(Index::NetworkVlan, &vlan.to_be_bytes())?
        {
            return Err(Fault::conflict(format!("VLAN {vlan} is that of network {} already", other.name))
                .fix("use another VLAN, or remove that network"));
        }
        if let Some(taken) = cx
            .view
            .by_key::<EngineNetwork>(Index::EngineInterface, &under(cx.engine(), self.own_interface().as_bytes()))?
        {
            let other = cx.view.must::<Network>(taken.network)?;
            return Err(Fault::conflict(format!("interface {} serves network {} already", self.interface, other.name))
                .fix("use another interface, or remove that network"));
        }
        Ok(())
    }

    /// The interface as the host has it, and whether the address has still to be put there.
    fn check_interface(&self, cx: &Cx<'_>) -> Result<bool, Fault> {
        let all = match cx.facts.get(&Look::Interfaces) {
            Some(Fact::Interfaces(all)) => all,
            Some(Fact::Unknown(why)) => {
                return Err(Fault::new(Kind::Unavailable, format!("the host's interfaces could not be listed: {why}")));
            }
            _ => return Err(Fault::internal("interfaces were not asked for")),
        };
        let names = || all.iter().filter(|i| !i.loopback).map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
        let own = all.iter().find(|i| i.name == self.interface).ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("this host has no interface {:?}", self.interface.chars().take(16).collect::<String>()),
            )
            .fix(format!("it has {}", names()))
        })?;
        if own.loopback {
            return Err(
                Fault::invalid("nodes cannot boot over the loopback interface").fix(format!("use one of {}", names()))
            );
        }
        let mine = self.own_interface();
        for other in all.iter().filter(|i| i.name != mine) {
            self.check_elsewhere(other)?;
        }
        match self.vlan {
            Some(vlan) => self.check_parent(own).and_then(|()| self.check_tagged(all, vlan)).map(|()| true),
            None => Ok(!own.addresses.contains(&self.address)),
        }
    }

    /// Refuses a parent that cannot carry the VLAN.
    fn check_parent(&self, parent: &InterfaceFacts) -> Result<(), Fault> {
        let name = &parent.name;
        match &parent.vlan {
            Some(VlanFacts { network: Some(_), .. }) => {
                return Err(Fault::invalid(format!("{name} is bmid's own interface on a VLAN"))
                    .fix("give the network card, bond or bridge beneath"));
            }
            Some(on) => {
                return Err(Fault::invalid(format!("{name} is on VLAN {} of {} itself", on.vlan, on.parent))
                    .fix(format!("give the interface beneath: --interface {}", on.parent)));
            }
            None => {}
        }
        if !parent.up {
            return Err(Fault::conflict(format!("interface {name} is down"))
                .fix(format!("bring it up: ip link set dev {name} up")));
        }
        match self.mtu.filter(|m| *m > parent.mtu) {
            Some(mtu) => {
                Err(Fault::invalid(format!("an MTU of {mtu} is more than the {} of interface {name}", parent.mtu))
                    .fix(format!("raise it first: ip link set dev {name} mtu {mtu}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses a name or a VLAN that an interface of the host has.
    fn check_tagged(&self, all: &[InterfaceFacts], vlan: u16) -> Result<(), Fault> {
        let mine = vlan_interface(vlan);
        let tagged = |i: &&InterfaceFacts| {
            let on = |v: &VlanFacts| (&v.parent, v.vlan, v.tagging) == (&self.interface, vlan, self.tagging);
            i.name == mine || i.vlan.as_ref().is_some_and(on)
        };
        let Some(taken) = all.iter().find(tagged) else { return Ok(()) };
        let name = &taken.name;
        if taken.vlan.as_ref().is_some_and(|v| v.network.is_some()) {
            return Err(Fault::conflict(format!("interface {name} is there for a network that has no record"))
                .fix("`bmictl reconcile` removes what no record wants; look with --check first"));
        }
        let why = if *name == mine { "bmid would call its own so" } else { "that VLAN is on it" };
        Err(Fault::conflict(format!("there is an interface {name} that is not bmid's, and {why}"))
            .fix(format!("use another VLAN, or remove it: ip link del {name}")))
    }

    fn check_elsewhere(&self, other: &InterfaceFacts) -> Result<(), Fault> {
        match other.addresses.iter().find(|a| a.overlaps(self.address)) {
            Some(a) if a.address == self.address.address => {
                Err(Fault::conflict(format!("{a} sits on interface {}", other.name))
                    .fix("give another address, or take it off there"))
            }
            Some(a) => Err(Fault::conflict(format!("{} overlaps {a} on interface {}", self.address, other.name))
                .fix("give an address of a subnet that no other interface has")),
            None => Ok(()),
        }
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
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, _at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![Look::Interfaces])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        self.check_name()?;
        self.check_vlan()?;
        self.check_range()?;
        if let Some(old) = self.same(cx)? {
            return Ok(Plan::already("network", old.id, &old.name));
        }
        self.check_others(cx)?;
        let ours = self.check_interface(cx)?;
        let start = cx.number();
        let network = Network {
            id: cx.id(),
            owner: cx.project().clone(),
            name: self.name.clone(),
            vlan: self.vlan,
            address: self.address,
            range: self.range,
            dhcp: self.dhcp,
            state: NetworkState::Creating,
            slot: allocate::slot(cx.view, start)?,
            created_at: cx.now,
            operation: Some(cx.operation),
        };
        let on = EngineNetwork {
            id: cx.id(),
            network: network.id,
            engine: cx.engine(),
            interface: self.own_interface(),
            address_ours: ours,
            trunk: self.trunk(),
        };
        let want = wanted::network(&network, &on, cx.defaults);
        let mut part = PartPlan::default();
        part.about("network", network.id, &network.name);
        if let Some(vlan) = want.vlan {
            part.script.first(vlan);
        }
        part.script.first(want.address);
        part.script.first(want.serve);
        part.script.first(want.tgtd);
        part.script.first(want.portal);
        part.script.first(want.dnsmasq);
        part.begin.push(on.into());
        part.row(network.clone(), Network { state: NetworkState::Ready, operation: None, ..network });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NetworkView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Network>(s.id)?, at.facts, at.defaults)).collect()
    }
}
