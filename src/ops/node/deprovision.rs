//! `node deprovision`: the machine's disk is taken away, or kept as a volume of its own.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::live;
use super::provision::{disk_claims, tags_go_first};
use crate::model::Kind;
use crate::model::journal::Subject;
use crate::model::{Change, Fault, Id, Name, Node, NodeState, Ref, Role, ViewExt, Volume, VolumeStatus};
use crate::ops::volume;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted::{Disk, NodeRecords};
use crate::step::{Backing, Look, Remove};

/// Take a machine's disk away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeDeprovision {
    /// Name or id
    pub node: Ref,
    /// Keep the disk as a volume, named like the node or as said; `node provision --volume` uses it again
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[serde(default, with = "keep")]
    pub keep_volume: Option<Keep>,
    /// Even while the machine runs
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// What a kept disk is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// As it is called already, else like its node.
    AsItIs,
    /// Like this.
    Named(Name),
}

impl FromStr for Keep {
    type Err = String;
    fn from_str(s: &str) -> Result<Keep, String> {
        if s.is_empty() {
            return Ok(Keep::AsItIs);
        }
        s.parse().map(Keep::Named).map_err(|e: crate::model::name::BadName| e.to_string())
    }
}

/// In JSON `true` or a name; on the wire what it is.
mod keep {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Keep;

    pub(super) fn serialize<S: Serializer>(keep: &Option<Keep>, s: S) -> Result<S::Ok, S::Error> {
        match keep {
            keep if !s.is_human_readable() => keep.serialize(s),
            None => s.serialize_bool(false),
            Some(Keep::AsItIs) => s.serialize_bool(true),
            Some(Keep::Named(name)) => name.serialize(s),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Keep>, D::Error> {
        if d.is_human_readable() { d.deserialize_any(Json) } else { Option::deserialize(d) }
    }

    struct Json;

    impl Visitor<'_> for Json {
        type Value = Option<Keep>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or the name of the volume")
        }
        fn visit_bool<E>(self, keep: bool) -> Result<Option<Keep>, E> {
            Ok(keep.then_some(Keep::AsItIs))
        }
        fn visit_unit<E>(self) -> Result<Option<Keep>, E> {
            Ok(None)
        }
        fn visit_str<E: Error>(self, name: &str) -> Result<Option<Keep>, E> {
            name.parse().map(Some).map_err(E::custom)
        }
    }
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeprovisionedView {
    /// The node's id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Name of the volume that its disk is now; none if the disk is gone.
    pub kept_volume: Option<String>,
    /// That volume's id.
    pub kept_volume_id: Option<Id>,
}

impl NodeDeprovision {
    /// The name under which a disk is kept.
    fn kept_as(&self, cx: &Cx<'_>, node: &Node, disk: &Disk, keep: &Keep) -> Result<Name, Fault> {
        let name = match keep {
            Keep::Named(name) => name.clone(),
            Keep::AsItIs => disk.volume.name.clone().unwrap_or_else(|| node.name.clone()),
        };
        match volume::of_name(cx.view, &disk.volume.owner, &name)?.iter().find(|v| v.id != disk.volume.id) {
            None => Ok(name),
            Some(other) => {
                let free = volume::free_name(cx.view, &disk.volume.owner, &name)?;
                Err(Fault::new(Kind::Duplicate, format!("there is a volume {name} already ({})", other.id))
                    .trying(format!("keep the disk of node {} as volume {name}", node.name))
                    .fix(format!(
                        "give it another name, as `--keep-volume={free}`, or remove that one: `bmictl volume rm {}`",
                        other.id
                    )))
            }
        }
    }
}

impl Op for NodeDeprovision {
    type Out = DeprovisionedView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "deprovision",
        about: "Take a machine's disk away; its tags must be gone",
        examples: &[
            "node deprovision web1 --yes",
            "node deprovision web1 --keep-volume",
            "node deprovision web1 --keep-volume=web1-before-move",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the node's disk (unless --keep-volume)",
    };

    fn destroys(&self) -> &'static str {
        if self.keep_volume.is_some() { "" } else { "the node's disk" }
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![live::look(&NodeRecords::load(at.view, at.view.node(at.project(), &self.node)?)?)])
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let records = cx.node_records(&self.node)?;
        tags_go_first(cx.view, &records.node, "deprovision")?;
        live::refuse(&records, cx.facts, self.force, "deprovisioned")?;
        let mut part = PartPlan::default();
        disk_claims(&mut part, &records);
        let node = &records.node;
        part.script.then(records.drop_target(self.force));
        part.script.then(records.drop_entry());
        for disk in &records.disks {
            let volume = &disk.volume;
            part.commit.push(Change::delete(&disk.attachment));
            let operation = Some(cx.operation);
            if let Some(keep) = &self.keep_volume {
                let name = Some(self.kept_as(cx, node, disk, keep)?);
                let kept = Volume { name, role: Role::Data, status: VolumeStatus::Available, ..volume.clone() };
                part.subjects.push(Subject { noun: "volume".to_owned(), id: kept.id, name: volume::called(&kept) });
                part.row(Volume { operation, ..volume.clone() }, Volume { operation: None, ..kept });
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

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<DeprovisionedView>, Fault> {
        let volume = at.subjects.iter().find(|s| s.noun == "volume");
        let of = |node: &Subject| DeprovisionedView {
            id: node.id,
            name: node.name.clone(),
            kept_volume: volume.map(|v| v.name.clone()),
            kept_volume_id: volume.map(|v| v.id),
        };
        Ok(at.subjects.iter().filter(|s| s.noun == "node").map(of).collect())
    }
}
