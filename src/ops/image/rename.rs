//! `image rename`.

use serde::{Deserialize, Serialize};

use super::{ImageView, find, name_free, view_of};
use crate::model::{Fault, Image, Name, Ref, ViewExt};
use crate::ops::{Answering, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};

/// Rename an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageRename {
    /// Name or id
    pub image: Ref,
    /// Its new name
    pub name: Name,
}

impl Op for ImageRename {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "rename",
        about: "Rename an image; nodes made from it are not touched",
        examples: &["image rename debian-12 debian-12-old"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let image = find(cx.view, cx.project(), &self.image)?;
        if image.name == self.name {
            return Ok(Plan::already("image", image.id, &image.name));
        }
        name_free(cx.view, &image.owner, &self.name)?;
        let mut part = PartPlan::default();
        part.about("image", image.id, &self.name);
        let renamed = Image { name: self.name.clone(), updated_at: cx.now, ..image };
        // The name is taken from the beginning: nobody else may get it while the new one is noted beside the bytes.
        part.row(Image { operation: Some(cx.operation), ..renamed.clone() }, renamed);
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Image>(s.id)?)).collect()
    }
}
