//! Golden images.

pub mod copy;
pub mod create;
pub mod export;
pub mod import;
pub mod list;
pub mod remove;
pub mod rename;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::record::owned;
use crate::model::{
    Bytes, Fault, Format, Id, Image, ImageStatus, Index, Kind, Name, Owner, Ref, Server, Time, View, ViewExt,
    Visibility, Volume,
};

/// An image as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// Id.
    pub id: Id,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: Owner,
    /// Lifecycle.
    pub status: ImageStatus,
    /// Who may see it.
    pub visibility: Visibility,
    /// Made from a node's disk.
    pub is_snapshot: bool,
    /// The node it was made from.
    pub provisioned_instance_id: Option<Id>,
    /// Datastore's name.
    pub datastore: String,
    /// Format of the stored bytes.
    pub disk_format: Format,
    /// Format of the bytes received.
    pub source_format: Option<Format>,
    /// GiB, rounded up.
    pub size: u64,
    /// Exact size of the disk.
    pub size_bytes: Bytes,
    /// MD5 of the bytes received.
    pub md5: Option<String>,
    /// SHA-256 of the bytes received.
    pub sha256: Option<String>,
    /// SHA-256 of the raw content.
    pub raw_sha256: Option<String>,
    /// Refuses removal.
    pub protected: bool,
    /// Free key and value pairs.
    pub properties: BTreeMap<String, String>,
    /// How many volumes were cloned from it and live.
    pub volumes: u64,
    /// When made.
    pub created_at: Time,
    /// When last changed.
    pub updated_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
    /// The image of a pool that it is, when it was taken over in place; `image rm` leaves that as it was.
    pub location: Option<String>,
}

/// The image a command names.
pub fn find(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Image, Fault> {
    view.named("image", Index::ImageName, acting, r)
}

/// The image a command names, which must be whole.
pub fn usable(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Image, Fault> {
    let image = find(view, acting, r)?;
    if image.status != ImageStatus::Active {
        return Err(Fault::conflict(format!("image {} is not whole yet or no longer", image.name))
            .fix(format!("`bmictl image show {}` tells its status", image.name)));
    }
    Ok(image)
}

/// Refuses a name that a live image of the project has.
pub fn name_free(view: &dyn View, owner: &Owner, name: &Name) -> Result<(), Fault> {
    match view.by_key::<Image>(Index::ImageName, &owned(owner, name))? {
        Some(Image { status: ImageStatus::Saving, operation: Some(operation), .. }) => {
            Err(Fault::new(Kind::Busy, format!("operation {operation} is making an image {name} of project {owner}"))
                .fix(format!("`bmictl op watch {operation}` waits for it, `bmictl op cancel {operation}` undoes it")))
        }
        Some(old) => {
            Err(Fault::new(Kind::Duplicate, format!("project {owner} has an image {name} already ({})", old.id))
                .fix("choose another name, or rename or remove that image"))
        }
        None => Ok(()),
    }
}

/// A row of an image that is being made.
#[must_use]
pub fn fresh(id: Id, owner: Owner, name: Name, datastore: Id, now: Time, operation: Id) -> Image {
    Image {
        id,
        owner,
        name,
        status: ImageStatus::Saving,
        visibility: Visibility::Private,
        is_snapshot: false,
        provisioned_instance_id: None,
        datastore,
        disk_format: Format::Raw,
        source_format: None,
        size_bytes: Bytes(0),
        md5: None,
        sha256: None,
        raw_sha256: None,
        protected: false,
        properties: BTreeMap::new(),
        created_at: now,
        updated_at: now,
        deleted_at: None,
        operation: Some(operation),
        location: None,
    }
}

/// As shown.
pub fn view_of(view: &dyn View, image: &Image) -> Result<ImageView, Fault> {
    let key = crate::model::record::under(image.id, &[]);
    Ok(ImageView {
        id: image.id,
        name: image.name.to_string(),
        owner: image.owner.clone(),
        status: image.status,
        visibility: image.visibility,
        is_snapshot: image.is_snapshot,
        provisioned_instance_id: image.provisioned_instance_id,
        datastore: view
            .get::<Server>(image.datastore)?
            .map_or_else(|| image.datastore.to_string(), |s| s.name.to_string()),
        disk_format: image.disk_format,
        source_format: image.source_format,
        size: image.size_bytes.gib(),
        size_bytes: image.size_bytes,
        md5: image.md5.clone(),
        sha256: image.sha256.clone(),
        raw_sha256: image.raw_sha256.clone(),
        protected: image.protected,
        properties: image.properties.clone(),
        volumes: view.all::<Volume>(Index::VolumesOfImage, &key)?.len() as u64,
        created_at: image.created_at,
        updated_at: image.updated_at,
        operation: image.operation,
        location: image.location.as_ref().map(ToString::to_string),
    })
}
