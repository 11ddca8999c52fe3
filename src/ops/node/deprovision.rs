//! `node deprovision`: the machine's disk is taken away, or kept as a volume of its own.

use serde::{Deserialize, Serialize};

use super::live;
use super::provision::{disk_claims, tags_go_first};
use crate::model::{Change, Fault, Node, NodeState, Ref, Role, ViewExt, Volume, VolumeStatus};
use crate::ops::{Answering, Asking, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted::NodeRecords;
use crate::step::{Backing, DropEntry, DropTarget, Look, Remove};

/// Take a machine's disk away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeDeprovision {
    /// Name or id
    pub node: Ref,
    /// Keep the disk as a volume; `node provision --volume` uses it again
    #[arg(long)]
    #[serde(default)]
    pub keep_volume: bool,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

impl Op for NodeDeprovision {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "deprovision",
        about: "Take a machine's disk away; its tags must be gone",
        examples: &["node deprovision web1 --yes", "node deprovision web1 --keep-volume"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the node's disk (unless --keep-volume)",
    };

    fn destroys(&self) -> &'static str {
        if self.keep_volume { "" } else { "the node's disk" }
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?)])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = NodeRecords::load(cx.view, cx.view.node(cx.project(), &self.node)?)?;
        tags_go_first(cx.view, &records.node, "deprovision")?;
        live::refuse(&records, cx.facts, self.force, "deprovisioned")?;
        let mut part = PartPlan::default();
        disk_claims(&mut part, &records);
        let node = &records.node;
        part.script.then(DropTarget {
            network: records.target.network,
            tid: records.target.tid,
            iqn: records.target.iqn.clone(),
            account: records.target.chap.as_ref().map(|c| c.user.clone()),
            force: self.force,
        });
        part.script.then(DropEntry { network: node.network, node: node.id, mac: node.mac });
        for disk in &records.disks {
            let volume = &disk.volume;
            part.commit.push(Change::delete(&disk.attachment));
            let operation = Some(cx.operation);
            if self.keep_volume {
                part.row(
                    Volume { operation, ..volume.clone() },
                    Volume { role: Role::Data, status: VolumeStatus::Available, operation: None, ..volume.clone() },
                );
            } else {
                part.script.then(Remove {
                    datastore: volume.datastore,
                    place: disk.place.clone(),
                    what: Backing::volume(volume.id, volume.generation),
                });
                part.row(
                    Volume { status: VolumeStatus::Deleting, operation, ..volume.clone() },
                    Volume {
                        deleted_at: Some(cx.now),
                        operation: None,
                        status: VolumeStatus::Deleting,
                        ..volume.clone()
                    },
                );
            }
        }
        part.commit.push(Change::delete(&records.target));
        part.row(
            Node { state: NodeState::Deprovisioning, operation: Some(cx.operation), ..node.clone() },
            Change::delete(node),
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
