//! `network create`: an interface begins to serve boots: address, boot service, tgtd, portal, dnsmasq, in that order.

use serde::{Deserialize, Serialize};

use super::{NetworkView, view_of};
use crate::model::record::{owned, under};
use crate::model::{Cidr, Dhcp, EngineNetwork, Fault, Index, Kind, Name, Network, NetworkState, Range, ViewExt};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::{allocate, wanted};
use crate::step::{Fact, InterfaceFacts, Look};

/// Begin to serve boots on an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Its name
    pub name: Name,
    /// The interface nodes are reached through, as it is (untagged)
    #[arg(long, value_name = "IF")]
    pub interface: String,
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

    /// The network as it stands already, if it is exactly this one.
    fn same(&self, cx: &Cx<'_>) -> Result<Option<Network>, Fault> {
        let key = owned(cx.project(), &self.name);
        let Some(old) = cx.view.by_key::<Network>(Index::NetworkName, &key)? else { return Ok(None) };
        let on = wanted::engine_network(cx.view, old.id)?;
        if (old.address, old.range, old.dhcp, old.state) == (self.address, self.range, self.dhcp, NetworkState::Ready)
            && on.interface == self.interface
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
        if let Some(taken) =
            cx.view.by_key::<EngineNetwork>(Index::EngineInterface, &under(cx.engine(), self.interface.as_bytes()))?
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
        for other in all.iter().filter(|i| i.name != self.interface) {
            self.check_elsewhere(other)?;
        }
        Ok(!own.addresses.contains(&self.address))
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
            vlan: None,
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
            interface: self.interface.clone(),
            address_ours: ours,
        };
        let want = wanted::network(&network, &on, cx.defaults);
        let mut part = PartPlan::default();
        part.about("network", network.id, &network.name);
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
