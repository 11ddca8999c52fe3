//! `network attach` and `network detach`: a node changes its network, or has none that serves it. Its disk, name, IQN and CHAP
//! secret stay; target, reservation and boot script go along.

use serde::{Deserialize, Serialize};

use super::{find, usable};
use crate::model::{Fault, Node, NodeState, Ref, ViewExt};
use crate::ops::node::migrate::{place_on, room_look, transfer};
use crate::ops::node::provision::disk_claims;
use crate::ops::node::{NodeView, changed, live};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted::NodeRecords;
use crate::step::Look;

/// Have a node boot on a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkAttach {
    /// The network it shall boot on: name or id
    pub network: Ref,
    /// The node, on another network or on none: name or id
    pub node: Ref,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Have no network serve a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkDetach {
    /// The network it boots on: name or id
    pub network: Ref,
    /// The node: name or id
    pub node: Ref,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

fn records(at: &Asking<'_>, node: &Ref) -> Result<NodeRecords, Fault> {
    NodeRecords::load(at.view, at.view.node(at.project(), node)?)
}

impl Op for NetworkAttach {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "attach",
        about: "Have a node boot on another network, or again on one it was detached from; its disk, IQN and secret stay",
        examples: &["network attach rack2 web1"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&records(at, &self.node)?), room_look(at, &self.network)?])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let old = cx.node_records(&self.node)?;
        let network = usable(cx.view, cx.project(), &old.node.owner, &self.network)?;
        if network.id == old.network.id && old.node.state != NodeState::Detached {
            return Ok(Plan::already("node", old.node.id, &old.node.name));
        }
        let mut new = old.clone();
        new.node.updated_at = cx.now;
        place_on(cx, &mut new, network)?;
        Ok(transfer(cx, &old, &new, self.force, "attached to another network")?.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        changed(at)
    }
}

impl Op for NetworkDetach {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "detach",
        about: "Have no network serve a node: nobody can log in to its disk, which stays, and so does its place there",
        examples: &["network detach rack1 web1"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&records(at, &self.node)?)])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let old = cx.node_records(&self.node)?;
        let (node, network) = (&old.node, find(cx.view, cx.project(), &self.network)?);
        if network.id != old.network.id {
            return Err(Fault::conflict(format!("node {} is on network {}", node.name, old.network.name))
                .fix(format!("`bmictl network detach {} {}`", old.network.name, node.name)));
        }
        if node.state == NodeState::Detached {
            return Ok(Plan::already("node", node.id, &node.name));
        }
        live::refuse(&old, cx.facts, self.force, "detached")?;
        let mut part = PartPlan::default();
        disk_claims(&mut part, &old);
        part.script.then(old.drop_target(self.force));
        part.script.then(old.drop_entry());
        part.row(
            Node { operation: Some(cx.operation), ..node.clone() },
            Node { state: NodeState::Detached, cause: None, updated_at: cx.now, operation: None, ..node.clone() },
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        changed(at)
    }
}
