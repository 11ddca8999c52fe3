//! Where a network is to stand: an interface of this host, or a VLAN on one, and an address there. Refuses what another network
//! or the host has. Pure: it judges by rows and facts.

use crate::model::record::under;
use crate::model::{Cidr, EngineNetwork, Fault, Index, Kind, Network, Tagging, Trunk, ViewExt};
use crate::ops::Cx;
use crate::step::network::vlan_interface;
use crate::step::{Fact, InterfaceFacts, Look, VlanFacts};

/// The host's interfaces, as they were asked for.
pub(super) fn interfaces<'a>(cx: &Cx<'a>) -> Result<&'a [InterfaceFacts], Fault> {
    match cx.facts.get(&Look::Interfaces) {
        Some(Fact::Interfaces(all)) => Ok(all),
        Some(Fact::Unknown(why)) => {
            Err(Fault::new(Kind::Unavailable, format!("the host's interfaces could not be listed: {why}")))
        }
        _ => Err(Fault::internal("interfaces were not asked for")),
    }
}

/// What a boot network's largest packet may be: IPv4's least that every machine takes, and the largest frames there are.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// Refuses a largest packet that no boot network has, or that the interface beneath does not carry.
pub(super) fn check_mtu(mtu: u32, parent: Option<&InterfaceFacts>) -> Result<(), Fault> {
    if !MTU.contains(&mtu) {
        return Err(Fault::invalid(format!("an MTU of {mtu} does not fit a boot network")).fix(format!(
            "use {} to {}",
            MTU.start(),
            MTU.end()
        )));
    }
    match parent.filter(|p| mtu > p.mtu) {
        Some(InterfaceFacts { name, mtu: most, .. }) => {
            Err(Fault::invalid(format!("an MTU of {mtu} is more than the {most} of interface {name}"))
                .fix(format!("raise it first: ip link set dev {name} mtu {mtu}")))
        }
        None => Ok(()),
    }
}

/// What a network stands on.
pub(super) struct Place {
    /// The interface as it is; with a VLAN its parent.
    pub(super) interface: String,
    /// The VLAN.
    pub(super) vlan: Option<u16>,
    /// How its frames are tagged.
    pub(super) tagging: Tagging,
    /// Largest packet.
    pub(super) mtu: Option<u32>,
    /// The engine's address there.
    pub(super) address: Cidr,
}

impl Place {
    /// The interface that nodes are reached through.
    pub(super) fn own_interface(&self) -> String {
        self.vlan.map_or_else(|| self.interface.clone(), vlan_interface)
    }

    pub(super) fn trunk(&self) -> Option<Trunk> {
        self.vlan.map(|_| Trunk { parent: self.interface.clone(), tagging: self.tagging, mtu: self.mtu })
    }

    /// Refuses a subnet or an interface that another network has.
    pub(super) fn check_others(&self, cx: &Cx<'_>) -> Result<(), Fault> {
        for other in cx.view.live::<Network>()? {
            if other.address.overlaps(self.address) {
                return Err(Fault::conflict(format!(
                    "{} overlaps {} of network {}",
                    self.address, other.address, other.name
                ))
                .fix("give each network a subnet of its own: an engine has one routing domain, and addresses are told apart in it"));
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
    pub(super) fn check_interface(&self, cx: &Cx<'_>) -> Result<bool, Fault> {
        let all = interfaces(cx)?;
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
            Some(vlan) => self
                .check_parent(own)
                .and_then(|()| free_on_host(all, &self.interface, vlan, self.tagging))
                .map(|()| true),
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
        self.mtu.map_or(Ok(()), |mtu| check_mtu(mtu, Some(parent)))
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

/// Refuses a name or a VLAN that an interface of the host has.
pub(super) fn free_on_host(all: &[InterfaceFacts], parent: &str, vlan: u16, tagging: Tagging) -> Result<(), Fault> {
    let mine = vlan_interface(vlan);
    let tagged = |i: &&InterfaceFacts| {
        let on = |v: &VlanFacts| (v.parent.as_str(), v.vlan, v.tagging) == (parent, vlan, tagging);
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
