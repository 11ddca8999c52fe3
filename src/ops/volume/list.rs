//! `volume ls` and `volume show`.

use serde::{Deserialize, Serialize};

use super::{VolumeView, find, view_of};
use crate::model::{Fault, Ref, ViewExt, Volume};
use crate::ops::{Answering, Effect, Op, Right, Shape, Sheet};

/// List volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VolumeLs {
    /// Volumes of every project
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

impl Op for VolumeLs {
    type Out = VolumeView;

    const SHEET: Sheet = Sheet {
        noun: "volume",
        verb: "ls",
        about: "List volumes: the disks of nodes, and kept ones",
        examples: &["volume ls"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["name", "id", "status", "role", "node", "image", "size_bytes", "datastore"],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<VolumeView>, Fault> {
        let mut all = at.view.live::<Volume>()?;
        all.retain(|v| self.all || &v.owner == at.project());
        all.sort_by_key(|v| (v.created_at, v.id));
        all.iter().map(|v| view_of(at.view, v)).collect()
    }
}

/// Show a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VolumeShow {
    /// Id, or a name that only one volume has
    pub volume: Ref,
}

impl Op for VolumeShow {
    type Out = VolumeView;

    const SHEET: Sheet = Sheet {
        noun: "volume",
        verb: "show",
        about: "Show a volume",
        examples: &["volume show web1", "volume show 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<VolumeView>, Fault> {
        Ok(vec![view_of(at.view, &find(at.view, at.project(), &self.volume)?)?])
    }
}
