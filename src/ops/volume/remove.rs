//! `volume rm`: a kept volume is removed.

use serde::{Deserialize, Serialize};

use super::{attachment, called, find};
use crate::model::record::under;
use crate::model::{Fault, Index, Node, Ref, ViewExt, Volume, VolumeStatus};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{Backing, Remove};

/// Remove a kept volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VolumeRm {
    /// Id, or a name that only one volume has
    pub volume: Ref,
}

impl Op for VolumeRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "volume",
        verb: "rm",
        about: "Remove a volume that is no node's disk",
        examples: &["volume rm web1 --yes", "volume rm 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the volume's bytes",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let volume = find(cx.view, cx.project(), &self.volume)?;
        if let Some(a) = attachment(cx.view, volume.id)? {
            let node = cx.view.must::<Node>(a.node)?;
            return Err(Fault::conflict(format!("volume {} is the disk of node {}", called(&volume), node.name))
                .fix(format!("`bmictl node deprovision {}` removes both", node.name)));
        }
        let tags = cx.view.ids(Index::SnapshotsOfVolume, &under(volume.id, &[]))?.len();
        if tags > 0 {
            return Err(
                Fault::conflict(format!("volume {} has {tags} snapshots", called(&volume))).fix("remove them first")
            );
        }
        let mut part = PartPlan::default();
        part.about("volume", volume.id, called(&volume));
        part.uses.push(volume.datastore);
        part.script.then(Remove {
            datastore: volume.datastore,
            place: wanted::place(cx.view, volume.datastore)?,
            what: Backing::volume(volume.id, volume.generation),
        });
        part.row(
            Volume { status: VolumeStatus::Deleting, operation: Some(cx.operation), ..volume.clone() },
            Volume { status: VolumeStatus::Deleting, deleted_at: Some(cx.now), operation: None, ..volume },
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
