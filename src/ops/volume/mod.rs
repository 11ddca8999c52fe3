//! Volumes: disks, attached to a node or kept.

pub mod list;
pub mod remove;

use serde::{Deserialize, Serialize};

use crate::model::record::under;
use crate::model::{
    Attachment, Bytes, Fault, Id, Image, Index, Kind, Name, Node, Owner, Ref, Role, Server, Time, View, ViewExt,
    Volume, VolumeStatus,
};
use crate::step::Backing;

/// A volume as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Id.
    pub id: Id,
    /// Name, if it has one.
    pub name: Option<String>,
    /// Owner.
    pub owner: Owner,
    /// Lifecycle.
    pub status: VolumeStatus,
    /// What it is for.
    pub role: Role,
    /// Name of the node it is a disk of.
    pub node: Option<String>,
    /// LUN there.
    pub lun: Option<u8>,
    /// Name of the image it was cloned from.
    pub image: Option<String>,
    /// Datastore's name.
    pub datastore: String,
    /// Which backing is current.
    pub generation: u32,
    /// GiB, rounded up.
    pub size: u64,
    /// Exact size.
    pub size_bytes: Bytes,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
    /// What its bytes are called where they are, whatever its name.
    pub outside_name: String,
    /// The file, or `rbd:POOL/IMAGE`.
    pub location: Option<String>,
}

/// The volume a command names: by id, or by a name that only one of the project's live volumes has.
pub fn find(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Volume, Fault> {
    let (owner, name) = match r {
        Ref::Id(id) => {
            return view
                .get::<Volume>(*id)?
                .filter(|v| v.deleted_at.is_none())
                .ok_or_else(|| Fault::not_found("volume", r));
        }
        Ref::Own(name) => (acting, name),
        Ref::Of(owner, name) => (owner, name),
    };
    let mut fits = of_name(view, owner, name)?;
    match fits.len() {
        0 => Err(Fault::not_found("volume", r)),
        1 => Ok(fits.remove(0)),
        _ => {
            let ids: Vec<_> = fits.iter().map(|v| v.id.to_string()).collect();
            Err(Fault::new(Kind::Invalid, format!("{name} names {} volumes: {}", ids.len(), ids.join(", ")))
                .fix("use the id"))
        }
    }
}

/// What people call a volume: its name, else its id.
#[must_use]
pub fn called(volume: &Volume) -> String {
    volume.name.as_ref().map_or_else(|| volume.id.to_string(), ToString::to_string)
}

/// A project's live volumes of that name.
pub fn of_name(view: &dyn View, owner: &Owner, name: &Name) -> Result<Vec<Volume>, Fault> {
    let mut fits = view.live::<Volume>()?;
    fits.retain(|v| &v.owner == owner && v.name.as_ref() == Some(name));
    Ok(fits)
}

/// `name` if no live volume of the project has it, else the first free one of `name-2`, `name-3`, and so on.
pub fn free_name(view: &dyn View, owner: &Owner, name: &Name) -> Result<Name, Fault> {
    let taken = view.live::<Volume>()?;
    let free = |name: &Name| !taken.iter().any(|v| &v.owner == owner && v.name.as_ref() == Some(name));
    let base: String = name.as_str().chars().take(56).collect();
    let numbered = (2..=taken.len() + 2).filter_map(|n| format!("{base}-{n}").parse::<Name>().ok());
    std::iter::once(name.clone())
        .chain(numbered)
        .find(free)
        .ok_or_else(|| Fault::internal(format!("no name like {name} is free for a volume")))
}

/// The volume's attachment, if it is a node's disk.
pub fn attachment(view: &dyn View, volume: Id) -> Result<Option<Attachment>, Fault> {
    view.by_key(Index::AttachmentOfVolume, &under(volume, &[]))
}

/// The volume a command names, which must be no node's disk.
pub fn free(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Volume, Fault> {
    let volume = find(view, acting, r)?;
    if let Some(a) = attachment(view, volume.id)? {
        let node = view.must::<Node>(a.node)?;
        return Err(Fault::conflict(format!("volume {} is the disk of node {}", called(&volume), node.name))
            .fix(format!("`bmictl node deprovision {} --keep-volume` frees it", node.name)));
    }
    if volume.status != VolumeStatus::Available {
        return Err(Fault::conflict(format!("volume {} cannot be used as it is", called(&volume)))
            .fix(format!("`bmictl volume show {}` tells its status", called(&volume))));
    }
    Ok(volume)
}

/// As shown.
pub fn view_of(view: &dyn View, volume: &Volume) -> Result<VolumeView, Fault> {
    let attachment = attachment(view, volume.id)?;
    let node = attachment.as_ref().map(|a| view.must::<Node>(a.node)).transpose()?;
    let (store, backing) = (view.must::<Server>(volume.datastore)?, Backing::volume(volume.id, volume.generation));
    Ok(VolumeView {
        id: volume.id,
        name: volume.name.as_ref().map(ToString::to_string),
        owner: volume.owner.clone(),
        status: volume.status,
        role: volume.role,
        node: node.map(|n| n.name.to_string()),
        lun: attachment.map(|a| a.lun),
        image: match volume.image {
            Some(id) => view.get::<Image>(id)?.map(|i| i.name.to_string()),
            None => None,
        },
        datastore: store.name.to_string(),
        generation: volume.generation,
        size: volume.size_bytes.gib(),
        size_bytes: volume.size_bytes,
        created_at: volume.created_at,
        operation: volume.operation,
        outside_name: backing.name(),
        location: store.place.as_ref().map(|place| backing.location(place)),
    })
}
