//! Images, volumes and snapshots (tags): what a disk's bytes are and where they came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, Id, Name, Owner, RbdSource, Time};

/// A disk image format, as qemu-img names it (Glance `disk_format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes, one by one.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Hyper-V's, current.
    Vhdx,
    /// Hyper-V's, old (qemu-img calls it vpc).
    Vhd,
}

impl Format {
    /// Every format there is, in the order shown.
    pub const ALL: [Format; 6] = [Format::Raw, Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vhdx, Format::Vhd];

    /// The name people type and JSON shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vhdx => "vhdx",
            Format::Vhd => "vhd",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Format, String> {
        Format::ALL.into_iter().find(|f| f.as_str() == s).ok_or_else(|| {
            format!(
                "{:?} is not an image format; one of raw, qcow2, vmdk, vdi, vhdx, vhd",
                s.chars().take(40).collect::<String>()
            )
        })
    }
}

/// Who may see an image (Glance's four).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Its owner.
    Private,
    /// Its owner and its members.
    Shared,
    /// Everybody who asks for it.
    Community,
    /// Everybody.
    Public,
}

/// Glance's image states; `saving` while bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// Known, without bytes.
    Queued,
    /// Bytes are arriving.
    Saving,
    /// Whole and immutable.
    Active,
    /// Gave up; the row stays for its message.
    Killed,
    /// Removed.
    Deleted,
    /// Removed, bytes still there.
    PendingDelete,
}

/// A golden image: immutable once active. Source: BMI Image, Glance images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Primary key.
    pub id: Id,
    /// The project that owns it (BMI ownerUserId, Glance owner).
    pub owner: Owner,
    /// Unique per owner.
    pub name: Name,
    /// Glance status.
    pub status: ImageStatus,
    /// Who may see it.
    pub visibility: Visibility,
    /// Made from a node's disk rather than imported (BMI isSnapshot).
    pub is_snapshot: bool,
    /// The node a snapshot image was taken from (BMI provisionedInstanceId).
    pub provisioned_instance_id: Option<Id>,
    /// Where the bytes live (BMI dataStoreId).
    pub datastore: Id,
    /// Format of the stored bytes.
    pub disk_format: Format,
    /// Format of the bytes received.
    pub source_format: Option<Format>,
    /// Size of the disk a node sees, in bytes.
    pub size_bytes: Bytes,
    /// MD5 of the bytes received, hex (Glance checksum).
    pub md5: Option<String>,
    /// SHA-256 of the bytes received, hex (Glance os_hash_value).
    pub sha256: Option<String>,
    /// SHA-256 of the raw content, hex; a clone without writes has the same.
    pub raw_sha256: Option<String>,
    /// Refuses removal while set (Glance protected).
    pub protected: bool,
    /// Free key and value pairs.
    #[serde(deserialize_with = "super::pairs::deserialize")]
    pub properties: BTreeMap<String, String>,
    /// When made.
    pub created_at: Time,
    /// When last changed.
    pub updated_at: Time,
    /// When removed; a removed row is in no list and holds no name.
    pub deleted_at: Option<Time>,
    /// The operation that holds it now.
    pub operation: Option<Id>,
    /// Where its bytes are (ImageLocation), for an image that was taken over in place: they are another's, and stay when it is
    /// removed.
    pub location: Option<RbdSource>,
}

/// What a volume is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A node's boot disk (LUN 1).
    Boot,
    /// A further disk.
    Data,
    /// What was a boot disk before a rebase.
    Previous,
}

/// Cinder's volume states, as far as they occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeStatus {
    /// Being made.
    Creating,
    /// Whole, attached to nothing.
    Available,
    /// A node's disk.
    InUse,
    /// Being removed.
    Deleting,
    /// Its bytes are missing or unusable.
    Error,
}

/// A disk. Source: BMI Clone, Cinder volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Primary key; the outside name is `<id>.<generation>`.
    pub id: Id,
    /// Owner.
    pub owner: Owner,
    /// May repeat, may be missing.
    pub name: Option<Name>,
    /// The image it was cloned from.
    pub image: Option<Id>,
    /// Where the bytes live.
    pub datastore: Id,
    /// Which backing is current; rollback and rebase make a new one.
    pub generation: u32,
    /// What it is for.
    pub role: Role,
    /// Exact size.
    pub size_bytes: Bytes,
    /// Cinder status.
    pub status: VolumeStatus,
    /// When made.
    pub created_at: Time,
    /// When removed.
    pub deleted_at: Option<Time>,
    /// The operation that holds it now.
    pub operation: Option<Id>,
}

/// A volume at one moment. With a node it is a tag. Source: BMI Tag and storage-driver Snapshot, Cinder snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Primary key; the outside name derives from it.
    pub id: Id,
    /// Owner.
    pub owner: Owner,
    /// Unique per node.
    pub name: Name,
    /// The volume it was taken of.
    pub volume: Id,
    /// The node it is a restore point of.
    pub node: Option<Id>,
    /// Where the bytes live.
    pub datastore: Id,
    /// Exact size of the volume then.
    pub size_bytes: Bytes,
    /// The image the volume stood on then (a rebase in between changes the volume's, not the tag's).
    pub image: Option<Id>,
    /// Whether it can be used (BMI isActive).
    pub active: bool,
    /// When made.
    pub created_at: Time,
    /// When removed.
    pub deleted_at: Option<Time>,
    /// The operation that holds it now.
    pub operation: Option<Id>,
}
