//! `tag create`: a restore point. On a reflink file system it may be taken of a running node (it is then what a power cut
//! would leave); a copy takes time in which a running node would write on, so there the node must be off.

use serde::{Deserialize, Serialize};

use super::TagView;
use crate::model::record::under;
use crate::model::{Fault, Index, Kind, Name, Ref, Snapshot, ViewExt};
use crate::ops::datastore;
use crate::ops::node::live;
use crate::ops::node::rebase::swap_looks;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::step::{Backing, Clone as CloneStep, Look};

/// Make a restore point of a node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TagCreate {
    /// The node
    pub node: Ref,
    /// The tag's name
    pub tag: Name,
    /// Copy the disk even while the machine writes on it
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

impl Op for TagCreate {
    type Out = TagView;

    const SHEET: Sheet = Sheet {
        noun: "tag",
        verb: "create",
        about: "Make a restore point of a node's disk",
        examples: &["tag create web1 installed"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        swap_looks(at, &self.node)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = cx.node_records(&self.node)?;
        let node = &records.node;
        if cx.view.find(Index::TagName, &under(node.id, self.tag.as_str().as_bytes()))?.is_some() {
            return Err(Fault::new(Kind::Duplicate, format!("node {} has a tag {} already", node.name, self.tag))
                .fix("choose another name, or remove that tag"));
        }
        let volume = &records.boot()?.volume;
        let store = datastore::must_have(&cx.view.must(volume.datastore)?, cx.facts, None)?;
        if !store.reflink {
            live::refuse(&records, cx.facts, self.force, "copied")?;
        }
        let tag = Snapshot {
            id: cx.id(),
            owner: node.owner.clone(),
            name: self.tag.clone(),
            volume: volume.id,
            node: Some(node.id),
            datastore: volume.datastore,
            size_bytes: volume.size_bytes,
            image: volume.image,
            active: false,
            created_at: cx.now,
            deleted_at: None,
            operation: Some(cx.operation),
        };
        let mut part = PartPlan::default();
        part.about("tag", tag.id, &tag.name);
        part.uses.extend([node.id, volume.id, volume.datastore]);
        part.script.first(CloneStep {
            datastore: volume.datastore,
            place: records.boot()?.place.clone(),
            from: Backing::volume(volume.id, volume.generation),
            to: Backing::snapshot(tag.id),
            note: None,
        });
        part.row(tag.clone(), Snapshot { active: true, operation: None, ..tag });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<TagView>, Fault> {
        super::about(at)
    }
}
