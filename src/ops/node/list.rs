//! `node ls` and `node show`.

use serde::{Deserialize, Serialize};

use super::{NodeView, live, view_of};
use crate::model::{Fault, Node, Ref, ViewExt};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::rules::wanted::NodeRecords;
use crate::step::Look;

/// List nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeLs {
    /// Nodes of every project
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
    /// Only nodes on this network
    #[arg(long)]
    #[serde(default)]
    pub network: Option<Ref>,
}

impl Op for NodeLs {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "ls",
        about: "List nodes",
        examples: &["node ls", "node ls --network rack1 -f csv"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["name", "state", "mac", "address", "network", "image", "tags", "created_at"],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        let network = self.network.as_ref().map(|r| crate::ops::network::find(at.view, at.project(), r)).transpose()?;
        let mut all = at.view.live::<Node>()?;
        all.retain(|n| (self.all || &n.owner == at.project()) && network.as_ref().is_none_or(|w| w.id == n.network));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|n| view_of(at.view, n, at.facts, at.defaults)).collect()
    }
}

/// Show a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeShow {
    /// Name or id
    pub node: Ref,
}

impl Op for NodeShow {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "show",
        about: "Show a node: its disk, its target, who is logged in",
        examples: &["node show web1", "node show web1 -f json"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?)])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        Ok(vec![view_of(at.view, at.view.node(at.project(), &self.node)?, at.facts, at.defaults)?])
    }
}
