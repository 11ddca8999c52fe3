//! `tag rollback`: the node's disk is again what it was at the tag: the tag is cloned into a new generation and swapped in.

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Name, Ref, ViewExt};
use crate::ops::node::rebase::{Swap, store_there, swap_looks, swap_part};
use crate::ops::node::{NodeView, live};
use crate::ops::{Answering, Asking, Cx, Effect, Op, Plan, Right, Shape, Sheet};
use crate::step::{Backing, Look};

/// Put a node's disk back to a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagRollback {
    /// The node
    pub node: Ref,
    /// The tag
    pub tag: Name,
    /// Even while the machine runs: its session is dropped
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

impl Op for TagRollback {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "rollback",
        about: "Put a node's disk back to what it was at a tag",
        examples: &["tag rollback web1 installed --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "everything the node has written since the tag",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        swap_looks(at, &self.node)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = cx.node_records(&self.node)?;
        let tag = cx.view.tag(&records.node, &self.tag)?;
        if !tag.active {
            return Err(Fault::conflict(format!("tag {} is not whole yet or no longer", tag.name)));
        }
        store_there(cx, &records)?;
        live::refuse(&records, cx.facts, self.force, "rolled back")?;
        let swap = Swap {
            from: Backing::snapshot(tag.id),
            image: tag.image,
            size: tag.size_bytes,
            force: self.force,
            keep_as: None,
        };
        let mut part = swap_part(cx, &records, &swap)?;
        part.uses.push(tag.id);
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        crate::ops::node::changed(at)
    }
}
