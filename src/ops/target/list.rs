//! `target ls` and `target show`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{ChapMode, Fault, Node, Ref, ViewExt};
use crate::ops::node::live;
use crate::ops::{Answering, Asking, Effect, Facts, Op, Right, Shape, Sheet};
use crate::rules::Defaults;
use crate::rules::wanted::{self, NodeRecords};
use crate::step::{Look, Session};

/// A target as it is shown. The CHAP secret is in no listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    /// Node's name.
    pub node: String,
    /// Target's name.
    pub iqn: String,
    /// tgtd's number.
    pub tid: u32,
    /// Network's name.
    pub network: String,
    /// `ADDRESS:PORT`.
    pub portal: String,
    /// The one initiator name let in.
    pub initiator: String,
    /// CHAP account name.
    pub chap_user: Option<String>,
    /// Whether the script carries the secret.
    pub chap: Option<ChapMode>,
    /// Paths behind the LUNs, from LUN 1.
    pub luns: Vec<String>,
    /// Live sessions; none where it could not be found out.
    pub sessions: Option<Vec<Session>>,
    /// Why they could not be found out.
    pub sessions_unknown: Option<String>,
}

fn view_of(records: &NodeRecords, facts: &Facts, defaults: &Defaults) -> TargetView {
    let (sessions, sessions_unknown) = live::sessions(records, facts);
    TargetView {
        node: records.node.name.to_string(),
        iqn: records.target.iqn.clone(),
        tid: records.target.tid,
        network: records.network.name.to_string(),
        portal: SocketAddr::new(wanted::portal(&records.network), defaults.port).to_string(),
        initiator: records.target.initiator.clone(),
        chap_user: records.target.chap.as_ref().map(|c| c.user.clone()),
        chap: records.target.chap.as_ref().map(|c| c.mode),
        luns: records.make_target().luns.into_iter().map(|l| l.path).collect(),
        sessions,
        sessions_unknown,
    }
}

fn all(at: &Asking<'_>, every: bool) -> Result<Vec<NodeRecords>, Fault> {
    let mut nodes = at.view.live::<Node>()?;
    nodes.retain(|n| every || &n.owner == at.project());
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes.into_iter().map(|n| NodeRecords::load(at.view, n)).collect()
}

/// List targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TargetLs {
    /// Targets of every project
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

impl Op for TargetLs {
    type Out = TargetView;

    const SHEET: Sheet = Sheet {
        noun: "target",
        verb: "ls",
        about: "List targets with the sessions at them",
        examples: &["target ls"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["node", "iqn", "portal", "network", "chap", "sessions"],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(all(at, self.all)?.iter().map(live::look).collect())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TargetView>, Fault> {
        Ok(all(&at.asking(), self.all)?.iter().map(|r| view_of(r, at.facts, at.defaults)).collect())
    }
}

/// Show a node's target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TargetShow {
    /// The node
    pub node: Ref,
}

impl Op for TargetShow {
    type Out = TargetView;

    const SHEET: Sheet = Sheet {
        noun: "target",
        verb: "show",
        about: "Show a node's target and who is logged in",
        examples: &["target show web1"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?)])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TargetView>, Fault> {
        let records = NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?;
        Ok(vec![view_of(&records, at.facts, at.defaults)])
    }
}
