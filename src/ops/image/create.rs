//! `image create` and its alias `node snapshot`: a deep snapshot, a golden image out of a node's disk or tag. On a folder it
//! is independent of the disk at once.

use serde::{Deserialize, Serialize};

use super::{ImageView, fresh, name_free, view_of};
use crate::model::{Fault, Id, Image, ImageStatus, Name, Node, Ref, ViewExt};
use crate::ops::datastore;
use crate::ops::node::live;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted::{self, NodeRecords};
use crate::step::{Backing, Clone as CloneStep, Look};

/// Make an image out of a node's disk or of one of its tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// The image's name
    pub name: Name,
    /// The node whose disk to take
    #[arg(long, value_name = "NODE")]
    pub from_node: Ref,
    /// Take this tag of the node instead of its disk as it is now
    #[arg(long, value_name = "TAG")]
    pub from_tag: Option<Name>,
    /// Take it even while the node runs: the image is then what a power cut would leave
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Make an image out of a node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeSnapshot {
    /// The node
    pub node: Ref,
    /// The image's name
    pub name: Name,
    /// Take it even while the node runs: the image is then what a power cut would leave
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

impl NodeSnapshot {
    fn as_create(&self) -> ImageCreate {
        ImageCreate { name: self.name.clone(), from_node: self.node.clone(), from_tag: None, force: self.force }
    }
}

/// What the image is taken from: a backing, where it is, how large.
struct Origin {
    node: Node,
    from: Backing,
    datastore: Id,
    size: crate::model::Bytes,
    claims: Vec<Id>,
}

impl ImageCreate {
    fn origin(&self, cx: &Cx<'_>) -> Result<Origin, Fault> {
        let node = cx.view.node(cx.project(), &self.from_node)?;
        if let Some(name) = &self.from_tag {
            let tag = cx.view.tag(&node, name)?;
            return Ok(Origin {
                from: Backing::snapshot(tag.id),
                datastore: tag.datastore,
                size: tag.size_bytes,
                claims: vec![tag.id],
                node,
            });
        }
        let records = NodeRecords::load(cx.view, node)?;
        live::refuse(&records, cx.facts, self.force, "made an image of")?;
        let disk = records.boot()?.clone();
        Ok(Origin {
            from: Backing::volume(disk.volume.id, disk.volume.generation),
            datastore: disk.volume.datastore,
            size: disk.volume.size_bytes,
            claims: vec![disk.volume.id, records.node.id],
            node: records.node,
        })
    }
}

impl Op for ImageCreate {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "create",
        about: "Make a golden image out of a node's disk or tag",
        examples: &[
            "image create web-golden --from-node web1",
            "image create web-golden --from-node web1 --from-tag installed",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let records = NodeRecords::load(at.view, at.view.node(at.project(), &self.from_node)?)?;
        let mut looks = vec![live::look(&records)];
        looks.extend(datastore::look(&at.view.must(records.boot()?.volume.datastore)?));
        Ok(looks)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        name_free(cx.view, cx.project(), &self.name)?;
        let origin = self.origin(cx)?;
        datastore::must_have(&cx.view.must(origin.datastore)?, cx.facts, None)?;
        let mut image = fresh(cx.id(), cx.project().clone(), self.name.clone(), origin.datastore, cx.now, cx.operation);
        image.is_snapshot = true;
        image.provisioned_instance_id = Some(origin.node.id);
        image.size_bytes = origin.size;
        image.source_format = Some(crate::model::Format::Raw);
        let mut part = PartPlan::default();
        part.about("image", image.id, &image.name);
        part.uses.push(origin.datastore);
        part.uses.extend(origin.claims);
        part.script.first(CloneStep {
            datastore: origin.datastore,
            place: wanted::place(cx.view, origin.datastore)?,
            from: origin.from,
            to: Backing::image(image.id),
            note: None,
        });
        part.row(image.clone(), Image { status: ImageStatus::Active, operation: None, ..image });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Image>(s.id)?)).collect()
    }
}

impl Op for NodeSnapshot {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "snapshot",
        about: "Make a golden image out of a node's disk (image create --from-node)",
        examples: &["node snapshot web1 web-golden"],
        ..ImageCreate::SHEET
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        self.as_create().looks(at)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        self.as_create().plan(cx)
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        self.as_create().answer(at)
    }
}
