//! `image import`: a file becomes a golden image, its bytes come through a descriptor that the client opened; or what is in
//! a pool already is taken over, where the daemon's own rights in Ceph are used, so that is for admins.

use serde::{Deserialize, Serialize};

use super::{ImageView, fresh, name_free, view_of};
use crate::model::{
    Bytes, Fault, Format, Image, ImageStatus, Kind, Name, Owner, Place, RbdSource, Ref, Server, ViewExt,
};
use crate::ops::args::{Direction, Source};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Resolve, Right, Shape, Sheet};
use crate::rules::{rights, wanted};
use crate::step::{Import, Look, TakeOver};

/// Take a file in as a golden image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ImageImport {
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-", required_unless_present = "from_rbd", conflicts_with = "from_rbd")]
    #[serde(default)]
    pub source: Option<Source>,
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
    /// Take over what is in a pool already instead of a file: the image or its snapshot is cloned, and the clone made
    /// independent in the background
    #[arg(long, value_name = "POOL/IMAGE[@SNAPSHOT]")]
    #[serde(default)]
    pub from_rbd: Option<RbdSource>,
    /// With --from-rbd: that image itself becomes the golden image, under its own name; its bytes stay when that is removed
    #[arg(long, requires = "from_rbd")]
    #[serde(default)]
    pub in_place: bool,
}

/// The datastore that exists from the start.
fn first() -> Ref {
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

    /// Refuses a sum that is none.
    fn declared(&self) -> Result<(), Fault> {
        if let Some(hex) = &self.sha256
            && (hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(Fault::invalid("--sha256 is not 64 hex digits").fix("`sha256sum FILE` prints them"));
        }
        Ok(())
    }

    /// Refuses what cannot be taken over into that datastore.
    fn suits(&self, server: &Server, place: &Place, from: &RbdSource) -> Result<(), Fault> {
        let Place::Rbd(pool) = place else {
            return Err(Fault::invalid(format!("datastore {} is a folder, and {from} is in a pool", server.name)).fix(
                format!(
                    "say --datastore with one of kind rbd; into a folder: `rbd export {from} - | bmictl image import -`"
                ),
            ));
        };
        if self.format.is_some_and(|f| f != Format::Raw) {
            return Err(Fault::invalid("an image in a pool is a disk, byte by byte: its format is raw")
                .fix("leave --format out"));
        }
        if self.in_place && (from.pool != pool.pool || from.namespace != pool.namespace) {
            let why = format!("{from} is not in pool {}, where datastore {} is", pool.spec(), server.name);
            return Err(Fault::invalid(why).fix("leave --in-place out: then it is cloned"));
        }
        Ok(())
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
            "image import --from-rbd images/debian-12@ready --name debian-12 --datastore ceph",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        self.source.as_mut().map_or(Ok(()), |source| client.open(source, Direction::Input))
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(datastore::look(&datastore::usable(at.view, &self.datastore)?).into_iter().collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        self.declared()?;
        match (&self.from_rbd, &self.source) {
            (None, Some(source)) if source.descriptor.is_some() => {}
            (Some(_), None) => rights::judge(cx.caller, Right::Admin, "image import --from-rbd")?,
            _ => {
                return Err(Fault::new(Kind::Invalid, "an import needs the file's descriptor, or an image in a pool")
                    .fix("use `bmictl image import FILE --name NAME`, or --from-rbd POOL/IMAGE in the place of FILE"));
            }
        }
        name_free(cx.view, cx.project(), &self.name)?;
        let server = datastore::usable(cx.view, &self.datastore)?;
        datastore::must_have(&server, cx.facts, self.size)?;
        let place = wanted::place(cx.view, server.id)?;
        let image = fresh(cx.id(), cx.project().clone(), self.name.clone(), server.id, cx.now, cx.operation);
        let mut part = PartPlan::default();
        part.about("image", image.id, &image.name);
        part.uses.push(server.id);
        let location = self.in_place.then(|| self.from_rbd.clone()).flatten();
        let sha256 = self.sha256.as_ref().map(|s| s.to_ascii_lowercase());
        let (size, max_size) = (self.size, cx.defaults.max_image);
        match &self.from_rbd {
            Some(from) => {
                self.suits(&server, &place, from)?;
                let (from, in_place) = (from.clone(), self.in_place);
                let (datastore, image) = (server.id, image.id);
                part.script.first(TakeOver {
                    datastore,
                    place,
                    image,
                    from,
                    in_place,
                    size,
                    sha256,
                    max_size,
                    note: None,
                });
            }
            None => {
                let (datastore, staging) = (server.id, self.staging(cx.project()));
                let (image, format) = (image.id, self.format);
                part.script.first(Import {
                    datastore,
                    place,
                    image,
                    staging,
                    format,
                    size,
                    sha256,
                    max_size,
                    note: None,
                });
            }
        }
        let image = Image { location, ..image };
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
                source: Some("-".parse().unwrap_or_else(|e: String| panic!("{e}"))),
                name: name.parse().unwrap_or_else(|e| panic!("{e}")),
                format: None,
                size: None,
                sha256: None,
                datastore: Ref::Own("default".parse().unwrap_or_else(|e| panic!("{e}"))),
                from_rbd: None,
                in_place: false,
            };
            import.staging(&owner.parse().unwrap_or_else(|e| panic!("{e}")))
        };
        let pairs = [("a.b", "c"), ("a", "b.c"), ("a-b", "c"), ("a_b", "c"), ("1-a", "b"), ("a", "c"), ("11-a", "b.c")];
        let names: std::collections::BTreeSet<_> = pairs.iter().map(|(owner, name)| staging(owner, name)).collect();
        assert_eq!(names.len(), pairs.len(), "{names:?}");
        assert_eq!(staging("a.b", "c"), staging("a.b", "c"));
    }
}
