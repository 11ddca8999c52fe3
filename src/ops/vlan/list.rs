//! `vlan ls`: the pool, whole or page by page.

use serde::{Deserialize, Serialize};

use super::{VlanView, taken, view_of};
use crate::model::{Fault, ViewExt, Vlan};
use crate::ops::{Answering, Effect, Op, Right, Shape, Sheet};

/// List VLANs of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VlanLs {
    /// VLANs of every project; else those that the acting project may use
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
    /// Only those without a network
    #[arg(long)]
    #[serde(default)]
    pub free: bool,
    /// A page: at most so many, in order of their numbers
    #[arg(long, value_name = "N")]
    #[serde(default)]
    pub limit: Option<u16>,
    /// The page behind this number: the last one of the page before
    #[arg(long, value_name = "NUMBER")]
    #[serde(default)]
    pub after: Option<u16>,
}

impl Op for VlanLs {
    type Out = VlanView;

    const SHEET: Sheet = Sheet {
        noun: "vlan",
        verb: "ls",
        about: "List the VLANs of the pool and the networks on them",
        examples: &["vlan ls", "vlan ls --free --limit 1", "vlan ls --all --limit 500 --after 1200"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["number", "owner", "network"],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<VlanView>, Fault> {
        let taken = taken(at.view)?;
        let mut all = at.view.live::<Vlan>()?;
        all.retain(|v| {
            self.after.is_none_or(|n| v.number > n)
                && (self.all || v.owner.as_ref().is_none_or(|o| o == at.project()))
                && !(self.free && taken.contains_key(&v.number))
        });
        all.sort_unstable_by_key(|v| v.number);
        all.truncate(self.limit.map_or(usize::MAX, usize::from));
        Ok(all.into_iter().map(|v| view_of(v, &taken)).collect())
    }
}
