//! `image export`: writes an image's content into a file or pipe of the caller. The daemon's run room carries it out.

use serde::{Deserialize, Serialize};

use super::ImageView;
use crate::model::{Fault, Format, Ref};
use crate::ops::args::{Direction, Source};
use crate::ops::{Effect, Op, Resolve, Right, Shape, Sheet};

/// Write an image out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageExport {
    /// Name or id
    pub image: Ref,
    /// Where to, or - for standard output
    #[arg(value_name = "FILE|-")]
    pub target: Source,
    /// raw or qcow2
    #[arg(long, default_value = "raw")]
    pub format: Format,
    /// Replace the file if there is one
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

impl Op for ImageExport {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "export",
        about: "Write an image into a file",
        examples: &[
            "image export debian-12 /tmp/debian-12.qcow2 --format qcow2",
            "image export golden - | zstd > golden.zst",
        ],
        effect: Effect::Control,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        client.open(&mut self.target, if self.force { Direction::Output } else { Direction::New })
    }
}
