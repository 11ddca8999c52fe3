//! `image copy`: a second image of the same content, independent of the first.

use serde::{Deserialize, Serialize};

use super::{ImageView, name_free, usable, view_of};
use crate::model::{Fault, Image, ImageStatus, Name, Ref, ViewExt};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{Backing, Clone as CloneStep, Look};

/// Copy an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageCopy {
    /// Name or id
    pub image: Ref,
    /// The copy's name
    pub name: Name,
}

impl Op for ImageCopy {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "copy",
        about: "Copy an image",
        examples: &["image copy debian-12 debian-12-test"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let image = usable(at.view, at.project(), &self.image)?;
        Ok(datastore::look(&at.view.must(image.datastore)?).into_iter().collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let from = usable(cx.view, cx.project(), &self.image)?;
        name_free(cx.view, cx.project(), &self.name)?;
        datastore::must_have(&cx.view.must(from.datastore)?, cx.facts, None)?;
        let copy = Image {
            id: cx.id(),
            owner: cx.project().clone(),
            name: self.name.clone(),
            status: ImageStatus::Saving,
            protected: false,
            created_at: cx.now,
            updated_at: cx.now,
            operation: Some(cx.operation),
            ..from.clone()
        };
        let mut part = PartPlan::default();
        part.about("image", copy.id, &copy.name);
        part.uses.extend([from.id, from.datastore]);
        part.script.first(CloneStep {
            datastore: from.datastore,
            place: wanted::place(cx.view, from.datastore)?,
            from: Backing::image(from.id),
            to: Backing::image(copy.id),
            note: None,
        });
        part.row(copy.clone(), Image { status: ImageStatus::Active, operation: None, ..copy });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Image>(s.id)?)).collect()
    }
}
