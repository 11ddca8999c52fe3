//! `node rebase` and `node reprovision`: another disk behind the same target. IQN, LUN, serial and SCSI id stay.

use serde::{Deserialize, Serialize};

use super::provision::{disk_claims, tags_go_first};
use super::{NodeView, changed, live};
use crate::model::{Bytes, Fault, Id, Image, Node, NodeState, Ref, Role, ViewExt, Volume, VolumeStatus};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted::{self, Disk, NodeRecords};
use crate::step::{Backing, Clone as CloneStep, Look, Remove, SwapLun};

/// Put a node onto another image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeRebase {
    /// Name or id
    pub node: Ref,
    /// The image to put it on
    #[arg(long)]
    pub image: Ref,
    /// Do not keep the disk it has as a volume
    #[arg(long)]
    #[serde(default)]
    pub discard: bool,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Give a node a fresh clone of its image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeReprovision {
    /// Name or id
    pub node: Ref,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Another content for a node's boot disk.
pub struct Swap {
    /// Where it comes from.
    pub from: Backing,
    /// The image it stands on then.
    pub image: Option<Id>,
    /// Its size.
    pub size: Bytes,
    /// Drop live sessions.
    pub force: bool,
    /// Keep the old disk as a volume of this id.
    pub keep_as: Option<Id>,
}

/// The part that clones `swap.from` into the volume's next generation, puts it behind the LUN and gives the old one up.
pub fn swap_part(cx: &Cx<'_>, records: &NodeRecords, swap: &Swap) -> Result<PartPlan, Fault> {
    super::must_be_attached(records)?;
    let disk = records.boot()?;
    let old = &disk.volume;
    let new = Volume { generation: old.generation + 1, image: swap.image, size_bytes: swap.size, ..old.clone() };
    let old_backing = Backing::volume(old.id, old.generation);
    let clone = |from, to| CloneStep { datastore: old.datastore, place: disk.place.clone(), from, to, note: None };
    let mut part = PartPlan::default();
    disk_claims(&mut part, records);
    part.uses.extend(swap.image);
    if let Some(id) = swap.keep_as {
        part.changes.push(id);
        part.script.first(clone(old_backing, Backing::volume(id, 0)));
        let kept = kept(cx, records, disk, id)?;
        part.row(Volume { status: VolumeStatus::Creating, operation: Some(cx.operation), ..kept.clone() }, kept);
    }
    part.script.first(clone(swap.from, Backing::volume(new.id, new.generation)));
    part.script.first(SwapLun {
        network: records.target.network,
        tid: records.target.tid,
        iqn: records.target.iqn.clone(),
        to: wanted::lun(disk.attachment.lun, &new, &disk.place),
        from: old_backing.path(&disk.place),
        force: swap.force,
    });
    part.script.then(Remove { datastore: old.datastore, place: disk.place.clone(), what: old_backing });
    part.row(Volume { operation: Some(cx.operation), ..old.clone() }, new);
    let node = &records.node;
    part.row(
        Node { operation: Some(cx.operation), ..node.clone() },
        Node { operation: None, state: NodeState::Ready, cause: None, updated_at: cx.now, ..node.clone() },
    );
    Ok(part)
}

fn kept(cx: &Cx<'_>, records: &NodeRecords, disk: &Disk, id: Id) -> Result<Volume, Fault> {
    let name = crate::ops::volume::free_name(cx.view, &disk.volume.owner, &records.node.name)?;
    Ok(Volume {
        id,
        name: Some(name),
        generation: 0,
        role: Role::Previous,
        status: VolumeStatus::Available,
        created_at: cx.now,
        operation: None,
        ..disk.volume.clone()
    })
}

/// The facts a swap needs: sessions, and the datastore of the disk.
pub fn swap_looks(at: &Asking<'_>, node: &Ref) -> Result<Vec<Look>, Fault> {
    let records = NodeRecords::load(at.view, at.view.node(at.project(), node)?)?;
    let mut looks = vec![live::look(&records)];
    looks.extend(datastore::look(&at.view.must(records.boot()?.volume.datastore)?));
    Ok(looks)
}

/// Refuses a swap whose datastore is not there.
pub fn store_there(cx: &Cx<'_>, records: &NodeRecords) -> Result<(), Fault> {
    datastore::must_have(&cx.view.must(records.boot()?.volume.datastore)?, cx.facts, None).map(|_| ())
}

fn same_store(image: &Image, records: &NodeRecords) -> Result<(), Fault> {
    if image.datastore == records.boot()?.volume.datastore {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "image {} lives on another datastore than the disk of node {}",
        image.name, records.node.name
    ))
    .fix("import the image into that datastore, or deprovision and provision the node"))
}

impl Op for NodeRebase {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "rebase",
        about: "Put a node onto another image; the disk it had is kept as a volume",
        examples: &["node rebase web1 --image debian-13", "node rebase web1 --image debian-13 --discard --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the node's disk (only with --discard)",
    };

    fn destroys(&self) -> &'static str {
        if self.discard { "the node's disk" } else { "" }
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        swap_looks(at, &self.node)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = cx.node_records(&self.node)?;
        let image = crate::ops::image::usable(cx.view, cx.project(), &self.image)?;
        same_store(&image, &records)?;
        store_there(cx, &records)?;
        live::refuse(&records, cx.facts, self.force, "rebased")?;
        let keep_as = if self.discard { None } else { Some(cx.id()) };
        let swap = Swap {
            from: Backing::image(image.id),
            image: Some(image.id),
            size: image.size_bytes,
            force: self.force,
            keep_as,
        };
        Ok(swap_part(cx, &records, &swap)?.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        changed(at)
    }
}

impl Op for NodeReprovision {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "reprovision",
        about: "Give a node a fresh clone of its image; its tags must be gone",
        examples: &["node reprovision web1 --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "everything the node has written",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        swap_looks(at, &self.node)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = cx.node_records(&self.node)?;
        tags_go_first(cx.view, &records.node, "reprovision")?;
        let name = &records.node.name;
        let gone = || {
            Fault::conflict(format!("the image that the disk of node {name} was cloned from is gone"))
                .fix(format!("`bmictl node rebase {name} --image IMAGE` puts it on another one"))
        };
        let image = records
            .boot()?
            .volume
            .image
            .map(|id| cx.view.must::<Image>(id))
            .transpose()?
            .filter(|i| i.deleted_at.is_none())
            .ok_or_else(gone)?;
        store_there(cx, &records)?;
        live::refuse(&records, cx.facts, self.force, "reprovisioned")?;
        let swap = Swap {
            from: Backing::image(image.id),
            image: Some(image.id),
            size: image.size_bytes,
            force: self.force,
            keep_as: None,
        };
        Ok(swap_part(cx, &records, &swap)?.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        changed(at)
    }
}
