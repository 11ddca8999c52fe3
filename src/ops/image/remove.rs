//! `image rm`: volumes cloned from it keep their bytes; on a folder they do not depend on it. The bytes of an image that was
//! taken over in place are another's: they stay.

use serde::{Deserialize, Serialize};

use super::find;
use crate::model::{Fault, Image, ImageStatus, Ref};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{Backing, Remove};

/// Remove an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageRm {
    /// Name or id
    pub image: Ref,
}

impl Op for ImageRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "rm",
        about: "Remove an image; disks cloned from it stay",
        examples: &["image rm debian-11 --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "the image's bytes, unless it was taken over in place",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let image = find(cx.view, cx.project(), &self.image)?;
        if image.protected {
            return Err(
                Fault::conflict(format!("image {} is protected", image.name)).fix("take its protection off first")
            );
        }
        let mut part = PartPlan::default();
        part.about("image", image.id, &image.name);
        part.uses.push(image.datastore);
        part.script.then(Remove {
            datastore: image.datastore,
            place: wanted::place(cx.view, image.datastore)?,
            what: Backing::image(image.id),
        });
        part.row(
            Image { status: ImageStatus::PendingDelete, operation: Some(cx.operation), ..image.clone() },
            Image {
                status: ImageStatus::Deleted,
                deleted_at: Some(cx.now),
                updated_at: cx.now,
                operation: None,
                ..image
            },
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
