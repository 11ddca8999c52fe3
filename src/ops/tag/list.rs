//! `tag ls` and `tag show`.

use serde::{Deserialize, Serialize};

use super::{TagView, of, view_of};
use crate::model::{Fault, Name, Node, Ref, ViewExt};
use crate::ops::{Answering, Effect, Op, Right, Shape, Sheet};

/// List tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagLs {
    /// Only of this node
    #[serde(default)]
    pub node: Option<Ref>,
}

impl Op for TagLs {
    type Out = TagView;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "ls",
        about: "List tags, oldest first",
        examples: &["tag ls", "tag ls web1"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["node", "name", "active", "size_bytes", "created_at"],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TagView>, Fault> {
        let nodes = match &self.node {
            Some(r) => vec![at.view.node(at.project(), r)?],
            None => {
                let mut all = at.view.live::<Node>()?;
                all.retain(|n| &n.owner == at.project());
                all.sort_by(|a, b| a.name.cmp(&b.name));
                all
            }
        };
        let mut out = Vec::new();
        for node in nodes {
            for tag in of(at.view, node.id)? {
                out.push(view_of(at.view, &tag, &node)?);
            }
        }
        Ok(out)
    }
}

/// Show a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagShow {
    /// The node
    pub node: Ref,
    /// The tag
    pub tag: Name,
}

impl Op for TagShow {
    type Out = TagView;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "show",
        about: "Show a tag",
        examples: &["tag show web1 installed"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TagView>, Fault> {
        let node = at.view.node(at.project(), &self.node)?;
        Ok(vec![view_of(at.view, &at.view.tag(&node, &self.tag)?, &node)?])
    }
}
