//! `tag rename` and `tag rm`.

use serde::{Deserialize, Serialize};

use super::TagView;
use crate::model::record::under;
use crate::model::{Fault, Index, Kind, Name, Ref, Snapshot, ViewExt};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{Backing, Remove};

/// Rename a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagRename {
    /// The node
    pub node: Ref,
    /// The tag
    pub tag: Name,
    /// Its new name
    pub name: Name,
}

impl Op for TagRename {
    type Out = TagView;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "rename",
        about: "Rename a tag",
        examples: &["tag rename web1 installed base"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let node = cx.view.node(cx.project(), &self.node)?;
        let tag = cx.view.tag(&node, &self.tag)?;
        if self.tag == self.name {
            return Ok(Plan::already("tag", tag.id, &tag.name));
        }
        if cx.view.find(Index::TagName, &under(node.id, self.name.as_str().as_bytes()))?.is_some() {
            return Err(Fault::new(Kind::Duplicate, format!("node {} has a tag {} already", node.name, self.name))
                .fix("choose another name"));
        }
        let mut part = PartPlan::default();
        part.about("tag", tag.id, &self.name);
        part.uses.push(node.id);
        let renamed = Snapshot { name: self.name.clone(), ..tag };
        // As of an image: the name is taken from the beginning.
        part.row(Snapshot { operation: Some(cx.operation), ..renamed.clone() }, renamed);
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TagView>, Fault> {
        super::about(at)
    }
}

/// Remove a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagRm {
    /// The node
    pub node: Ref,
    /// The tag
    pub tag: Name,
}

impl Op for TagRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "rm",
        about: "Remove a tag; the node's disk is not touched",
        examples: &["tag rm web1 installed --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the restore point",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let node = cx.view.node(cx.project(), &self.node)?;
        let tag = cx.view.tag(&node, &self.tag)?;
        let mut part = PartPlan::default();
        part.about("tag", tag.id, &tag.name);
        part.uses.extend([node.id, tag.datastore]);
        part.script.then(Remove {
            datastore: tag.datastore,
            place: wanted::place(cx.view, tag.datastore)?,
            what: Backing::snapshot(tag.id),
        });
        part.row(
            Snapshot { active: false, operation: Some(cx.operation), ..tag.clone() },
            Snapshot { active: false, deleted_at: Some(cx.now), operation: None, ..tag },
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
