//! Bytes on a datastore.

use serde::{Deserialize, Serialize};

use super::{Lane, family};
use crate::model::{Bytes, Format, Id, ImageNote, Note, Place, RbdSource, StoreNote};

/// What a backing is of.
#[derive(std::clone::Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BackingKind {
    /// A golden image: read-only.
    Image,
    /// A volume.
    Volume,
    /// A snapshot: read-only.
    Snapshot,
}

/// One disk's bytes on a datastore; the outside name derives from it alone.
#[derive(std::clone::Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backing {
    /// What it is of.
    pub kind: BackingKind,
    /// The image's, volume's or snapshot's id.
    pub id: Id,
    /// The volume's generation; 0 for the others.
    pub generation: u32,
}

impl Backing {
    /// An image's bytes.
    #[must_use]
    pub fn image(id: Id) -> Backing {
        Backing { kind: BackingKind::Image, id, generation: 0 }
    }
    /// A snapshot's bytes.
    #[must_use]
    pub fn snapshot(id: Id) -> Backing {
        Backing { kind: BackingKind::Snapshot, id, generation: 0 }
    }
    /// A volume's bytes.
    #[must_use]
    pub fn volume(id: Id, generation: u32) -> Backing {
        Backing { kind: BackingKind::Volume, id, generation }
    }

    /// The outside name: `<id>.<generation>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.id, self.generation)
    }

    /// Where a target finds it: the absolute path of the file, `ROOT/{images,volumes,snapshots}/<id>.<generation>.raw`, or
    /// `rbd:POOL/IMAGE`.
    #[must_use]
    pub fn path(&self, place: &Place) -> String {
        match place {
            Place::Folder { path, .. } => format!("{path}/{}/{}.raw", self.folder(), self.name()),
            Place::Rbd(r) => format!("rbd:{}/{}", r.spec(), self.rbd_name(&r.prefix())),
        }
    }

    /// The name of the RBD image: `<prefix>.<first letter of the kind>.<id>.<generation>`.
    #[must_use]
    pub fn rbd_name(&self, prefix: &str) -> String {
        let letter = match self.kind {
            BackingKind::Image => 'i',
            BackingKind::Volume => 'v',
            BackingKind::Snapshot => 's',
        };
        format!("{prefix}.{letter}.{}", self.name())
    }

    /// What its snapshot of a volume is called in a pool: `bmi.<id>.<generation>`.
    #[must_use]
    pub fn rbd_snap(&self) -> String {
        format!("bmi.{}", self.name())
    }

    /// Where people find its bytes: as [`Backing::path`] tells; a snapshot in a pool by its name, `rbd:POOL/*@SNAPSHOT`. Of which
    /// image that is changes when its volume is rolled back.
    #[must_use]
    pub fn location(&self, place: &Place) -> String {
        match place {
            Place::Rbd(r) if self.kind == BackingKind::Snapshot => format!("rbd:{}/*@{}", r.spec(), self.rbd_snap()),
            _ => self.path(place),
        }
    }

    /// The folder of its kind.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self.kind {
            BackingKind::Image => "images",
            BackingKind::Volume => "volumes",
            BackingKind::Snapshot => "snapshots",
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let noun = match self.kind {
            BackingKind::Image => "image",
            BackingKind::Volume => "volume",
            BackingKind::Snapshot => "snapshot",
        };
        format!("{noun} {}", self.name())
    }
}

/// Makes a datastore's root: folders and the file with its id, and the mounted XFS file where asked for.
/// Refused if the root holds another datastore's or another engine's id, or foreign content.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeStore {
    /// The datastore.
    pub datastore: Id,
    /// The engine it belongs to.
    pub engine: Id,
    /// Where.
    pub place: Place,
    /// What it says of itself there.
    pub note: StoreNote,
}

/// Takes an empty datastore's root away: folders, id file, mount and XFS file. Foreign content stays.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmakeStore {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
}

/// Takes a golden image in: from the operation's input descriptor, or, when that is gone (after a restart), only if the
/// final file is there already. The output is [`Imported`].
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// The image.
    pub image: Id,
    /// Staging name: equal for a repeat of the same import, so that it resumes.
    pub staging: String,
    /// The declared format; none means probe (only a staged copy is ever probed; an undeclared input is staged).
    pub format: Option<Format>,
    /// The declared size of the bytes given.
    pub size: Option<Bytes>,
    /// The declared SHA-256 of the bytes given, hex.
    pub sha256: Option<String>,
    /// The largest disk accepted: a lying header must not fill the datastore.
    pub max_size: Bytes,
    /// What is written beside the image, with what is found out about it.
    pub note: Option<Note>,
}

/// What an import found out; fills the image's row.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The image.
    pub image: Id,
    /// Format of the bytes given.
    pub source_format: Format,
    /// Size of the disk.
    pub size_bytes: Bytes,
    /// MD5 of the bytes given, hex.
    pub md5: String,
    /// SHA-256 of the bytes given, hex.
    pub sha256: String,
    /// SHA-256 of the raw content, hex.
    pub raw_sha256: String,
}

impl Imported {
    /// An image's note with what was found out about it.
    #[must_use]
    pub fn told_in(&self, note: &Note) -> Note {
        let Note::Image(image) = note else { return note.clone() };
        Note::Image(Box::new(ImageNote {
            source_format: Some(self.source_format),
            size_bytes: self.size_bytes,
            md5: Some(self.md5.clone()),
            sha256: Some(self.sha256.clone()),
            raw_sha256: Some(self.raw_sha256.clone()),
            ..(**image).clone()
        }))
    }
}

/// Makes `to` with the bytes of `from`: by reflink where the file system can, else a sparse copy. Atomic: whole or absent.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clone {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// Whose bytes.
    pub from: Backing,
    /// The new one. Images and snapshots become read-only.
    pub to: Backing,
    /// What is written beside it, in the same breath.
    pub note: Option<Note>,
}

/// Removes a backing. Forward only.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// What.
    pub what: Backing,
}

/// Writes a backing's content into the operation's descriptor (a file or pipe the client opened). Changes nothing of ours.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// What.
    pub what: Backing,
    /// In which format; only raw and qcow2, and raw alone into a pipe.
    pub format: Format,
}

/// Brings a datastore that was made before within reach: mounts its XFS file if it has one. Never makes anything, so a disk
/// that is not there yet is not taken for an empty one. For the start of bmid and for repairs, where [`MakeStore`] would
/// make a second, empty root. Forward only.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStore {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
}

/// Writes beside a backing's bytes what its records say. What is not there any more needs no note; where a file system cannot
/// keep one, none is kept.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetNote {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// Beside what.
    pub what: Backing,
    /// The note as it shall be.
    pub to: Note,
    /// The note it has now: where the inverse goes back to.
    pub from: Note,
}

/// Takes over a datastore that another engine made and has lost: its root says from now on that it is this engine's. What
/// stands in it is not touched.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptStore {
    /// The datastore; it keeps its id.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// Whose it shall be.
    pub to: Id,
    /// Whose it is: where the inverse goes back to.
    pub from: Id,
}

/// Takes what is in a pool already over as a golden image: by a clone that is flattened in the background, or in place, where
/// the image itself becomes it and keeps its name. Needs no client, so it goes on by itself after a restart. The output is
/// [`Imported`]. Undone by [`Remove`], which in place only gives the image back.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// The datastore.
    pub datastore: Id,
    /// Where.
    pub place: Place,
    /// The image.
    pub image: Id,
    /// What is taken over.
    pub from: RbdSource,
    /// The image itself, not a clone of it.
    pub in_place: bool,
    /// The declared size of the disk.
    pub size: Option<Bytes>,
    /// The declared SHA-256 of the disk, hex.
    pub sha256: Option<String>,
    /// The largest disk accepted.
    pub max_size: Bytes,
    /// What is written beside the image, with what is found out about it.
    pub note: Option<Note>,
}

family! {
    /// Steps of the storage drivers.
    StorageStep in Storage { MakeStore, UnmakeStore, Import, Clone, Remove, Export, OpenStore, SetNote, AdoptStore, TakeOver } undo {
        MakeStore => |s| UnmakeStore { datastore: s.datastore, place: s.place.clone() },
        Import => |s| Remove { datastore: s.datastore, place: s.place.clone(), what: Backing::image(s.image) },
        TakeOver => |s| Remove { datastore: s.datastore, place: s.place.clone(), what: Backing::image(s.image) },
        Clone => |s| Remove { datastore: s.datastore, place: s.place.clone(), what: s.to },
        SetNote => |s| SetNote { to: s.from.clone(), from: s.to.clone(), ..s.clone() },
        AdoptStore => |s| AdoptStore { to: s.from, from: s.to, ..s.clone() },
    }
}

impl StorageStep {
    /// The datastore and its place.
    #[must_use]
    pub fn place(&self) -> (Id, &Place) {
        match self {
            StorageStep::MakeStore(s) => (s.datastore, &s.place),
            StorageStep::UnmakeStore(s) => (s.datastore, &s.place),
            StorageStep::Import(s) => (s.datastore, &s.place),
            StorageStep::Clone(s) => (s.datastore, &s.place),
            StorageStep::Remove(s) => (s.datastore, &s.place),
            StorageStep::Export(s) => (s.datastore, &s.place),
            StorageStep::OpenStore(s) => (s.datastore, &s.place),
            StorageStep::SetNote(s) => (s.datastore, &s.place),
            StorageStep::AdoptStore(s) => (s.datastore, &s.place),
            StorageStep::TakeOver(s) => (s.datastore, &s.place),
        }
    }

    pub(super) fn lane(&self) -> Lane {
        match self {
            StorageStep::Import(s) => Lane::Import(s.datastore),
            StorageStep::Export(s) => Lane::Import(s.datastore),
            StorageStep::TakeOver(s) => Lane::Import(s.datastore),
            other => Lane::Datastore(other.place().0),
        }
    }

    /// What it does, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            StorageStep::MakeStore(s) => format!("make datastore {}", s.datastore),
            StorageStep::UnmakeStore(s) => format!("take datastore {} away", s.datastore),
            StorageStep::Import(s) => format!("take in image {}", s.image),
            StorageStep::Clone(s) => format!("clone {} from {}", s.to.describe(), s.from.describe()),
            StorageStep::Remove(s) => format!("remove {}", s.what.describe()),
            StorageStep::OpenStore(s) => format!("open datastore {}", s.datastore),
            StorageStep::SetNote(s) => format!("note beside {} what it is", s.what.describe()),
            StorageStep::AdoptStore(s) => format!("take datastore {} over from engine {}", s.datastore, s.from),
            StorageStep::TakeOver(s) => format!("take over {} as image {}", s.from, s.image),
            StorageStep::Export(s) => format!("write out {} as {}", s.what.describe(), s.format),
        }
    }
}
