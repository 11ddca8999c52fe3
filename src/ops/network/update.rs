//! `network update`: what a network is called, whose it is and what machines are told there. What its nodes stand on (address, subnet,
//! interface, VLAN) never changes: that is another network, to which they are attached.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::{NetworkView, find, name_free, place, pool, view_of};
use crate::model::record::under;
use crate::model::{Dhcp, EngineNetwork, Fault, Index, Name, Network, NetworkState, Node, Owner, Range, Ref, ViewExt};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{ChangeServe, Look, RestartWorker};

/// Change what a network is called, whose it is and what machines are told there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkUpdate {
    /// Name or id
    pub network: Ref,
    /// Its new name
    #[arg(long)]
    #[serde(default)]
    pub name: Option<Name>,
    /// Addresses nodes get from now on; those that have one keep it
    #[arg(long, value_name = "A-B")]
    #[serde(default)]
    pub range: Option<Range>,
    /// Nodes get any free address of the subnet, and only provisioned ones
    #[arg(long, conflicts_with = "range")]
    #[serde(default)]
    pub no_range: bool,
    /// The router that machines are told of by DHCP
    #[arg(long, value_name = "IP")]
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// Machines are told of no router
    #[arg(long, conflicts_with = "router")]
    #[serde(default)]
    pub no_router: bool,
    /// A name server that machines are told of by DHCP, in place of all before; may be repeated
    #[arg(long, value_name = "IP")]
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Machines are told of no name server
    #[arg(long, conflicts_with = "dns")]
    #[serde(default)]
    pub no_dns: bool,
    /// serve, proxy or off (ipv6 neither comes nor goes); only while no node is on it
    #[arg(long)]
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// Largest packet on its VLAN; only while no node is on it
    #[arg(long, value_name = "BYTES")]
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The project it shall be of; none of its nodes may be another's
    #[arg(long, value_name = "PROJECT")]
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Nodes of every project may boot there
    #[arg(long, conflicts_with = "owner")]
    #[serde(default)]
    pub everyone: bool,
}

/// A network as it stands, with its nodes.
struct Standing {
    network: Network,
    on: EngineNetwork,
    nodes: Vec<Node>,
}

fn some_of(nodes: &[&Node]) -> String {
    let some: Vec<_> = nodes.iter().take(5).map(|n| n.name.as_str()).collect();
    format!("{}{}", some.join(", "), if nodes.len() > 5 { ", …" } else { "" })
}

impl NetworkUpdate {
    fn standing(&self, cx: &Cx<'_>) -> Result<Standing, Fault> {
        let network = find(cx.view, cx.project(), &self.network)?;
        if network.state != NetworkState::Ready {
            return Err(Fault::conflict(format!("network {} does not serve yet or no longer", network.name))
                .fix(format!("`bmictl network show {}` tells its state", network.id)));
        }
        let on = wanted::engine_network(cx.view, network.id)?;
        let nodes = cx.view.all(Index::NodesOf, &under(network.id, &[]))?;
        Ok(Standing { network, on, nodes })
    }

    /// The records as they shall stand.
    fn changed(&self, old: &Standing) -> (Network, EngineNetwork) {
        let (mut network, mut on) = (old.network.clone(), old.on.clone());
        network.name = self.name.clone().unwrap_or(network.name);
        network.range = if self.no_range { None } else { self.range.or(network.range) };
        network.router = if self.no_router { None } else { self.router.or(network.router) };
        if self.no_dns || !self.dns.is_empty() {
            network.dns.clone_from(&self.dns);
        }
        network.dhcp = self.dhcp.unwrap_or(network.dhcp);
        if self.everyone || self.owner.is_some() {
            network.owner.clone_from(&self.owner);
        }
        if let Some(trunk) = &mut on.trunk {
            trunk.mtu = self.mtu.or(trunk.mtu);
        }
        (network, on)
    }

    /// Refuses two words that say different things; the command line does so itself.
    fn check_words(&self) -> Result<(), Fault> {
        let both = [
            (self.no_range && self.range.is_some(), "range"),
            (self.no_router && self.router.is_some(), "router"),
            (self.no_dns && !self.dns.is_empty(), "dns"),
            (self.everyone && self.owner.is_some(), "owner"),
        ];
        match both.iter().find(|(both, _)| *both) {
            Some((_, what)) => Err(Fault::invalid(format!("{what} is given and taken away")).fix("say one of both")),
            None => Ok(()),
        }
    }

    /// Refuses what would pull something from under nodes.
    fn check_nodes(&self, cx: &Cx<'_>, old: &Standing, new: &Network, on: &EngineNetwork) -> Result<(), Fault> {
        let name = &old.network.name;
        let all: Vec<&Node> = old.nodes.iter().collect();
        let fixed = [(old.network.dhcp != new.dhcp, "DHCP mode"), (old.on.trunk != on.trunk, "MTU")];
        if let Some((_, what)) = fixed.iter().find(|(differs, _)| *differs && !all.is_empty()) {
            return Err(Fault::conflict(format!(
                "the {what} of network {name} stays while nodes are on it: {}",
                some_of(&all)
            ))
            .fix("make another network and `bmictl network attach` them to it"));
        }
        if (old.network.dhcp == Dhcp::Ipv6) != (new.dhcp == Dhcp::Ipv6) {
            let why =
                format!("network {name} cannot change to ipv6 or from it: its targets would be at another address");
            return Err(Fault::conflict(why).fix("make another network"));
        }
        let others: Vec<&Node> =
            all.into_iter().filter(|n| new.owner.as_ref().is_some_and(|o| *o != n.owner)).collect();
        if !others.is_empty() {
            return Err(Fault::conflict(format!(
                "nodes of other projects are on network {name}: {}",
                some_of(&others)
            ))
            .fix("attach them to another network first"));
        }
        for kept in new.router.iter().chain(&new.dns) {
            if let Some(node) = cx.view.by_key::<Node>(Index::NodeAddress, &under(new.id, &kept.octets()))? {
                return Err(Fault::conflict(format!("{kept} is the address of node {}", node.name))
                    .fix("give another address, or attach that node to another network"));
            }
        }
        Ok(())
    }

    /// Refuses a largest packet that the interface beneath does not carry.
    fn check_mtu(&self, cx: &Cx<'_>, old: &Standing) -> Result<(), Fault> {
        let Some(mtu) = self.mtu else { return Ok(()) };
        let Some(trunk) = &old.on.trunk else {
            return Err(Fault::invalid(format!("network {} is on no VLAN of bmid's", old.network.name))
                .fix("its interface is used as it is: `ip link set dev IF mtu N`"));
        };
        place::check_mtu(mtu, place::interfaces(cx)?.iter().find(|i| i.name == trunk.parent))
    }
}

impl Op for NetworkUpdate {
    type Out = NetworkView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "update",
        about: "Change a network's name, owner, range, router or name servers; without nodes also its DHCP mode and MTU",
        examples: &[
            "network update rack1 --range 10.9.0.50-10.9.0.199",
            "network update rack1 --router 10.9.0.254 --dns 10.9.0.253 --dns 10.9.0.252",
            "network update lab --everyone",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, _at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(if self.mtu.is_some() { vec![Look::Interfaces] } else { Vec::new() })
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        self.check_words()?;
        let old = self.standing(cx)?;
        let (new, on) = self.changed(&old);
        self.check_mtu(cx, &old)?;
        if (&new, &on) == (&old.network, &old.on) {
            return Ok(Plan::already("network", new.id, &new.name));
        }
        let plan =
            Addresses { engine: new.address, range: new.range, dhcp: new.dhcp, router: new.router, dns: &new.dns };
        self.check_nodes(cx, &old, &new, &on)?;
        plan.check()?;
        name_free(cx.view, new.owner.as_ref(), &new.name, Some(new.id))?;
        if let Some(vlan) = new.vlan.filter(|_| new.owner != old.network.owner) {
            pool::may_use(cx, new.owner.as_ref(), vlan)?;
        }
        let (before, want) =
            (wanted::network(&old.network, &old.on, cx.defaults), wanted::network(&new, &on, cx.defaults));
        let mut part = PartPlan::default();
        part.about("network", new.id, &new.name);
        if let Some(vlan) = want.vlan.filter(|v| before.vlan.as_ref() != Some(v)) {
            part.script.then(vlan);
        }
        if before.serve != want.serve {
            // Leases are in a file and tgtd goes on: no machine notices.
            part.script.first(ChangeServe { to: want.serve, from: before.serve });
            part.script.then(RestartWorker { start: want.dnsmasq });
            part.script.then(RestartWorker { start: want.http });
        }
        part.commit.push(on.into());
        part.row(Network { operation: Some(cx.operation), ..old.network }, Network { operation: None, ..new });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NetworkView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Network>(s.id)?, at.facts, at.defaults)).collect()
    }
}
