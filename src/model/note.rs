//! What is written beside an object's bytes, so that its records can be rebuilt when the store is lost.
//!
//! A note says what nobody could find out from the bytes. It holds no secret and nothing that changes by itself (states,
//! operations, causes). Its JSON stands on datastores for as long as the bytes do: fields only come in as `Option`, so that
//! older notes stay readable.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    Bytes, ChapMode, Cidr, Dhcp, Format, Id, Mac, Name, NodeType, Owner, Range, RbdSource, Role, Time, Trunk,
    Visibility,
};

/// What is written beside one object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Note {
    /// Beside a golden image.
    Image(Box<ImageNote>),
    /// Beside a volume.
    Volume(Box<VolumeNote>),
    /// Beside a snapshot.
    Snapshot(Box<SnapshotNote>),
}

/// Of a golden image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageNote {
    /// Owner.
    pub owner: Owner,
    /// Name.
    pub name: Name,
    /// Who may see it.
    pub visibility: Visibility,
    /// Made from a node's disk.
    pub is_snapshot: bool,
    /// From which node's.
    pub provisioned_instance_id: Option<Id>,
    /// Format of the bytes received.
    pub source_format: Option<Format>,
    /// Size of the disk.
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
    #[serde(deserialize_with = "super::pairs::deserialize")]
    pub properties: BTreeMap<String, String>,
    /// When made.
    pub created_at: Time,
    /// Where its bytes are, if it was taken over in place.
    pub location: Option<RbdSource>,
}

/// Of a volume, with the node whose disk it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNote {
    /// Owner.
    pub owner: Owner,
    /// Name, if it has one.
    pub name: Option<Name>,
    /// The image it was cloned from.
    pub image: Option<Id>,
    /// What it is for.
    pub role: Role,
    /// Exact size.
    pub size_bytes: Bytes,
    /// When made.
    pub created_at: Time,
    /// The node whose disk it is.
    pub node: Option<NodeNote>,
}

/// A node, as its disk knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNote {
    /// Its id.
    pub id: Id,
    /// Owner.
    pub owner: Owner,
    /// Name.
    pub name: Name,
    /// Physical or virtual.
    pub kind: NodeType,
    /// Its card.
    pub mac: Mac,
    /// Which card, as the operator calls it.
    pub nic: Option<Name>,
    /// The address reserved for it.
    pub address: Option<IpAddr>,
    /// Values for drivers.
    #[serde(deserialize_with = "super::pairs::deserialize")]
    pub settings: BTreeMap<String, String>,
    /// When provisioned.
    pub created_at: Time,
    /// Which LUN this disk is.
    pub lun: u8,
    /// The attachment's id.
    pub attachment: Id,
    /// What it logs in to.
    pub target: TargetNote,
    /// Where it boots.
    pub network: NetworkNote,
    /// No network serves it.
    pub detached: Option<bool>,
}

/// A target, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetNote {
    /// Its id.
    pub id: Id,
    /// tgtd's number for it.
    pub tid: u32,
    /// Its name.
    pub iqn: String,
    /// The one initiator name let in.
    pub initiator: String,
    /// CHAP, and where its secret stands.
    pub chap: Option<ChapMode>,
}

/// A network, as its nodes' disks know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNote {
    /// Its id.
    pub id: Id,
    /// Owner; none: everyone's.
    pub owner: Option<Owner>,
    /// Name.
    pub name: Name,
    /// VLAN number.
    pub vlan: Option<u16>,
    /// The engine's address and the subnet.
    pub address: Cidr,
    /// From where nodes get addresses.
    pub range: Option<Range>,
    /// Who gives addresses.
    pub dhcp: Dhcp,
    /// Its small number.
    pub slot: u16,
    /// When made.
    pub created_at: Time,
    /// Its interface on the engine.
    pub interface: String,
    /// bmid put the address there.
    pub address_ours: bool,
    /// What that interface is, where bmid makes it itself.
    pub trunk: Option<Trunk>,
    /// The router that machines are told of.
    pub router: Option<Ipv4Addr>,
    /// The name servers that machines are told of.
    pub dns: Option<Vec<Ipv4Addr>>,
}

/// Of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNote {
    /// Owner.
    pub owner: Owner,
    /// Name.
    pub name: Name,
    /// The volume it was taken of.
    pub volume: Id,
    /// The node it is a restore point of.
    pub node: Option<Id>,
    /// Size of the volume then.
    pub size_bytes: Bytes,
    /// The image the volume stood on then.
    pub image: Option<Id>,
    /// When made.
    pub created_at: Time,
}

/// What a datastore says of itself where it lies, for people who look for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreNote {
    /// Its name.
    pub name: Name,
    /// Its engine's name.
    pub engine_name: Name,
}
