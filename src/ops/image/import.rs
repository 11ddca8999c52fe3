//! `image import`: a file becomes a golden image. The bytes come through a descriptor that the client opened.

use serde::{Deserialize, Serialize};

use super::{ImageView, fresh, name_free, view_of};
use crate::model::{Bytes, Fault, Format, Image, ImageStatus, Kind, Name, Owner, Ref, ViewExt};
use crate::ops::args::{Direction, Source};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Resolve, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{Import, Look};

/// Take a file in as a golden image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageImport {
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-")]
    pub source: Source,
    /// Its name
    #[arg(long)]
    pub name: Name,
    /// Format of the file; raw streams straight to its place, everything else is staged and probed first
    #[arg(long)]
    #[serde(default)]
    pub format: Option<Format>,
    /// Refuse it unless it has this many bytes
    #[arg(long)]
    #[serde(default)]
    pub size: Option<Bytes>,
    /// Refuse it unless its SHA-256 is this (64 hex digits)
    #[arg(long, value_name = "HEX")]
    #[serde(default)]
    pub sha256: Option<String>,
    /// Where to keep it
    #[arg(long, default_value = "default")]
    #[serde(default = "first")]
    pub datastore: Ref,
}

/// The datastore that exists from the start.
fn first() -> Ref {
    // The text stands here, and is a name.
    #[allow(clippy::expect_used, reason = "the text stands here, and is a name")]
    let name = "default".parse().expect("a name");
    Ref::Own(name)
}

impl ImageImport {
    /// The same import repeated has the same staging name, so that it goes on where it stopped; no other import has it: the
    /// owner's length says where its name ends.
    fn staging(&self, owner: &Owner) -> String {
        format!("{}-{owner}.{}", owner.as_str().len(), self.name)
    }
}

impl Op for ImageImport {
    type Out = ImageView;

    const SHEET: Sheet = Sheet {
        noun: "image",
        verb: "import",
        about: "Take a file in as a golden image",
        examples: &[
            "image import debian-12.qcow2 --name debian-12",
            "image import disk.raw --name golden --format raw --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "image import - --name golden < disk.raw",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        client.open(&mut self.source, Direction::Input)
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(datastore::look(&datastore::usable(at.view, &self.datastore)?).into_iter().collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        if let Some(hex) = &self.sha256
            && (hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(Fault::invalid("--sha256 is not 64 hex digits").fix("`sha256sum FILE` prints them"));
        }
        if self.source.descriptor.is_none() {
            return Err(Fault::new(Kind::Invalid, "an import needs the file's descriptor")
                .fix("use `bmictl image import FILE --name NAME`"));
        }
        name_free(cx.view, cx.project(), &self.name)?;
        let server = datastore::usable(cx.view, &self.datastore)?;
        datastore::must_have(&server, cx.facts, self.size)?;
        let staging = self.staging(cx.project());
        let image = fresh(cx.id(), cx.project().clone(), self.name.clone(), server.id, cx.now, cx.operation);
        let mut part = PartPlan::default();
        part.about("image", image.id, &image.name);
        part.uses.push(server.id);
        part.script.first(Import {
            datastore: server.id,
            place: wanted::place(cx.view, server.id)?,
            image: image.id,
            staging,
            format: self.format,
            size: self.size,
            sha256: self.sha256.as_ref().map(|s| s.to_ascii_lowercase()),
            max_size: cx.defaults.max_image,
            note: None,
        });
        part.row(image.clone(), Image { status: ImageStatus::Active, operation: None, ..image });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ImageView>, Fault> {
        at.subjects.iter().map(|s| view_of(at.view, &at.view.must::<Image>(s.id)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_imports_share_a_staging_name_only_if_owner_and_name_are_the_same() {
        let staging = |owner: &str, name: &str| {
            let import = ImageImport {
                source: "-".parse().unwrap_or_else(|e: String| panic!("{e}")),
                name: name.parse().unwrap_or_else(|e| panic!("{e}")),
                format: None,
                size: None,
                sha256: None,
                datastore: Ref::Own("default".parse().unwrap_or_else(|e| panic!("{e}"))),
            };
            import.staging(&owner.parse().unwrap_or_else(|e| panic!("{e}")))
        };
        let pairs = [("a.b", "c"), ("a", "b.c"), ("a-b", "c"), ("a_b", "c"), ("1-a", "b"), ("a", "c"), ("11-a", "b.c")];
        let names: std::collections::BTreeSet<_> = pairs.iter().map(|(owner, name)| staging(owner, name)).collect();
        assert_eq!(names.len(), pairs.len(), "{names:?}");
        assert_eq!(staging("a.b", "c"), staging("a.b", "c"));
    }
}
