//! `network ls` and `network show`.

use serde::{Deserialize, Serialize};

use super::{NetworkView, find, view_of};
use crate::model::{Fault, Network, Ref, ViewExt};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::step::Look;

/// List networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkLs {
    /// Networks of every project; else the acting project's own and everyone's
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

impl Op for NetworkLs {
    type Out = NetworkView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "ls",
        about: "List networks",
        examples: &["network ls", "network ls --all"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["name", "owner", "vlan", "interface", "address", "range", "dhcp", "state", "nodes"],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NetworkView>, Fault> {
        let mut all = at.view.live::<Network>()?;
        all.retain(|n| self.all || n.owner.as_ref().is_none_or(|o| o == at.project()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.iter().map(|n| view_of(at.view, n, at.facts, at.defaults)).collect()
    }
}

/// Show a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkShow {
    /// Name or id
    pub network: Ref,
}

impl Op for NetworkShow {
    type Out = NetworkView;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "show",
        about: "Show a network and the state of its tgtd, dnsmasq and HTTP server",
        examples: &["network show tenant-a"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![Look::Workers(find(at.view, at.project(), &self.network)?.id), Look::Routing])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NetworkView>, Fault> {
        Ok(vec![view_of(at.view, &find(at.view, at.project(), &self.network)?, at.facts, at.defaults)?])
    }
}
