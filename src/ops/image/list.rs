//! `image ls`, `image show`, `image formats`.

use serde::{Deserialize, Serialize};

use super::{ImageView, find, view_of};
use crate::model::{Fault, Format, Image, Ref, ViewExt};
use crate::ops::{Answering, Effect, Op, Right, Shape, Sheet};

/// List images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageLs {
    /// Images of every project
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

impl Op for ImageLs {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "ls",
        about: "List golden images",
        examples: &["image ls", "image ls -f json"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &[
            "name",
            "status",
            "size_bytes",
            "source_format",
            "is_snapshot",
            "datastore",
            "volumes",
            "created_at",
        ],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        let mut all = at.view.live::<Image>()?;
        all.retain(|i| self.all || &i.owner == at.project());
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.iter().map(|i| view_of(at.view, i)).collect()
    }
}

/// Show an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageShow {
    /// Name or id
    pub image: Ref,
}

impl Op for ImageShow {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "show",
        about: "Show an image with its checksums",
        examples: &["image show debian-12"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        Ok(vec![view_of(at.view, &find(at.view, at.project(), &self.image)?)?])
    }
}

/// A format images can come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatView {
    /// Its name.
    pub format: Format,
    /// How it is taken in.
    pub import: String,
    /// Whether `image export` writes it.
    pub export: bool,
}

/// List image formats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageFormats {}

impl Op for ImageFormats {
    type Out = FormatView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "formats",
        about: "List the formats images can come in",
        examples: &["image formats"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Everyone,
        columns: &["format", "import", "export"],
        destroys: "",
    };

    fn answer(&self, _at: &Answering<'_>) -> Result<Vec<FormatView>, Fault> {
        let how = |f| {
            if f == Format::Raw {
                "streamed when declared with --format raw, else staged"
            } else {
                "staged, probed, converted to raw"
            }
        };
        Ok(Format::ALL
            .into_iter()
            .map(|f| FormatView {
                format: f,
                import: how(f).to_owned(),
                export: matches!(f, Format::Raw | Format::Qcow2),
            })
            .collect())
    }
}
