//! `node migrate`: the same disk on other hardware: another MAC, another card, another network.

use serde::{Deserialize, Serialize};

use super::provision::{disk_claims, mac_free};
use super::{NodeView, live, must_be_attached};
use crate::model::{Dhcp, Fault, Mac, Name, Network, Node, NodeState, Ref, Server, ViewExt};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::{allocate, room, wanted::NodeRecords};
use crate::step::{DropTarget, Look};

/// Move a node's disk to other hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeMigrate {
    /// Name or id
    pub node: Ref,
    /// The MAC of the new card
    #[arg(long)]
    pub mac: Mac,
    /// Which card that is, as you call it
    #[arg(long, value_name = "LABEL")]
    #[serde(default)]
    pub nic: Option<Name>,
    /// The network the new hardware boots on, if it is another one
    #[arg(long)]
    #[serde(default)]
    pub network: Option<Ref>,
    /// Even while the old machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Gives a node a place on a network; on the one it is on it keeps what it has.
pub fn place_on(cx: &mut Cx<'_>, new: &mut NodeRecords, network: Network) -> Result<(), Fault> {
    if network.id == new.network.id {
        return Ok(());
    }
    let (start, view) = (cx.number(), cx.view);
    new.node.network = network.id;
    new.node.address = match network.dhcp {
        Dhcp::Serve | Dhcp::Ipv6 => Some(allocate::address(view, &network, start, &[])?),
        Dhcp::Proxy | Dhcp::Off => None,
    };
    new.target.network = network.id;
    new.target.tid = allocate::tid(view, network.id, || cx.number(), &[])?;
    new.network = network;
    Ok(())
}

/// The question whether the network a command names has room for a node.
pub fn room_look(at: &Asking<'_>, network: &Ref) -> Result<Look, Fault> {
    Ok(room::look(&crate::ops::network::find(at.view, at.project(), network)?))
}

/// The part that has a node boot as in `new`: what is missing there is made, then what it had is taken away.
pub fn transfer(cx: &Cx<'_>, old: &NodeRecords, new: &NodeRecords, force: bool, what: &str) -> Result<PartPlan, Fault> {
    live::refuse(old, cx.facts, force, what)?;
    let detached = old.node.state == NodeState::Detached;
    let elsewhere = old.network.id != new.network.id;
    let mut part = PartPlan::default();
    disk_claims(&mut part, old);
    part.uses.push(new.network.id);
    if elsewhere || detached {
        let store = cx.view.must::<Server>(new.boot()?.volume.datastore)?;
        room::must_fit(cx.view, cx.facts.get(&room::look(&new.network)), &new.network, &store, 1)?;
        part.script.first(new.make_target());
    }
    if old.node.mac != new.node.mac || elsewhere || detached {
        part.script.first(new.entry(cx.defaults));
    }
    if !detached && (old.node.mac != new.node.mac || elsewhere) {
        part.script.then(old.drop_entry());
    }
    if !detached && elsewhere {
        // Its disks are served on.
        part.script.then(DropTarget { luns: Vec::new(), ..old.drop_target(force) });
    }
    let state = if detached { NodeState::Ready } else { new.node.state };
    part.commit.push(new.target.clone().into());
    part.row(
        Node { operation: Some(cx.operation), ..old.node.clone() },
        Node { operation: None, state, ..new.node.clone() },
    );
    Ok(part)
}

impl NodeMigrate {
    /// The records as they shall stand.
    fn moved(&self, cx: &mut Cx<'_>, old: &NodeRecords) -> Result<NodeRecords, Fault> {
        let mut new = old.clone();
        new.node = Node {
            mac: self.mac,
            nic: self.nic.clone().or(old.node.nic.clone()),
            updated_at: cx.now,
            ..old.node.clone()
        };
        if let Some(r) = &self.network {
            let network = crate::ops::network::usable(cx.view, cx.project(), &old.node.owner, r)?;
            place_on(cx, &mut new, network)?;
        }
        Ok(new)
    }
}

impl Op for NodeMigrate {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "migrate",
        about: "Move a node's disk to other hardware",
        examples: &[
            "node migrate web1 --mac 52:54:00:ab:cd:ef --nic eno2",
            "node migrate web1 --mac 52:54:00:ab:cd:ef --network rack2",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let old = NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?;
        let mut looks = vec![live::look(&old)];
        if let Some(network) = &self.network {
            looks.push(room_look(at, network)?);
        }
        Ok(looks)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let old = cx.node_records(&self.node)?;
        mac_free(cx, self.mac, &old.node)?;
        let new = self.moved(cx, &old)?;
        let same_place = old.network.id == new.network.id;
        if same_place && old.node.mac == new.node.mac && old.node.nic == new.node.nic {
            return Ok(Plan::already("node", old.node.id, &old.node.name));
        }
        must_be_attached(&old)?;
        Ok(transfer(cx, &old, &new, self.force, "migrated")?.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        super::changed(at)
    }
}
