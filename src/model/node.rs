//! Nodes, their targets and attachments. Node holds MAC, NIC and network; Attachment says which volume is which LUN;
//! Target holds IQN, ACL and CHAP; everything else about a node's disk is looked up, never stored twice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Id, Mac, Name, Owner, Time};

/// What is being provisioned (BMI core ProvisionedInstance.type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeType {
    /// A bare-metal machine.
    Physical,
    /// A virtual machine.
    Virtual,
}

impl std::str::FromStr for NodeType {
    type Err = String;
    fn from_str(s: &str) -> Result<NodeType, String> {
        match s {
            "physical" => Ok(NodeType::Physical),
            "virtual" => Ok(NodeType::Virtual),
            _ => Err(format!("{:?} is not a node type; physical or virtual", s.chars().take(40).collect::<String>())),
        }
    }
}

/// Node lifecycle (DESIGN section 2, point 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its disk is being made.
    Provisioning,
    /// May boot.
    Ready,
    /// Its disk is being taken away.
    Deprovisioning,
    /// Cannot boot; `cause` says why.
    Error,
    /// No network serves it: it has no target and no script. Its disk is there, and its place on its network is kept.
    Detached,
}

/// A provisioned machine. Source: BMI ProvisionedInstance and ProvisionedNode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Primary key.
    pub id: Id,
    /// Owner.
    pub owner: Owner,
    /// Unique per owner.
    pub name: Name,
    /// Physical or virtual.
    pub kind: NodeType,
    /// Unique among live nodes (BMI macAddress, nodeAddress).
    pub mac: Mac,
    /// Which network card, as the operator calls it (BMI nic).
    pub nic: Option<Name>,
    /// On which network it boots (BMI networkId).
    pub network: Id,
    /// The address reserved for it, in an IPv6 network the first of its block; none where bmid does not serve addresses.
    pub address: Option<IpAddr>,
    /// Lifecycle.
    pub state: NodeState,
    /// Why it is in error, for people.
    pub cause: Option<String>,
    /// Values for drivers (`--set key=value`).
    #[serde(deserialize_with = "super::pairs::deserialize")]
    pub settings: BTreeMap<String, String>,
    /// When provisioned.
    pub created_at: Time,
    /// When last changed.
    pub updated_at: Time,
    /// The operation that holds it now.
    pub operation: Option<Id>,
}

/// Which volume is which LUN of a node. Source: Cinder volume_attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Primary key.
    pub id: Id,
    /// The node.
    pub node: Id,
    /// The volume.
    pub volume: Id,
    /// LUN; the boot disk is 1 (tgtd's own controller is 0).
    pub lun: u8,
    /// When attached.
    pub created_at: Time,
}

/// A secret under bmid's key (XChaCha20-Poly1305: 24 bytes nonce, then ciphertext with tag). Its Debug shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// Whether a node's CHAP secret stands in its boot script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChapMode {
    /// The script carries it: stops machines that cannot read the script.
    InScript,
    /// The machine has it by another way.
    OutOfBand,
}

impl std::str::FromStr for ChapMode {
    type Err = String;
    fn from_str(s: &str) -> Result<ChapMode, String> {
        match s {
            "in-script" => Ok(ChapMode::InScript),
            "out-of-band" => Ok(ChapMode::OutOfBand),
            _ => Err(format!(
                "{:?} is not a CHAP mode; in-script or out-of-band",
                s.chars().take(40).collect::<String>()
            )),
        }
    }
}

/// A secret in the one answer that hands it out. Its Debug shows nothing; it must never be stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// When a secret was handed out, and to whom: it is done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// When.
    pub shown_at: Time,
    /// To whom, by the name events use.
    pub shown_to: String,
}

/// One-way CHAP: the target checks the initiator (RFC 7143 section 12.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// Account name; unique in the network's tgtd, so derived from the node's id.
    pub user: String,
    /// 16 characters, sealed.
    pub secret: Sealed,
    /// Whether the script carries it.
    pub mode: ChapMode,
    /// Whether it was handed out; a secret that the script carries can be read at any time.
    pub shown: Option<Shown>,
}

/// What a node logs in to. Source: BMI provisioning-engine Target, Cinder iscsi_targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Primary key.
    pub id: Id,
    /// The node.
    pub node: Id,
    /// In which network's tgtd it stands.
    pub network: Id,
    /// tgtd's number for it (Cinder target_num), unique in that tgtd.
    pub tid: u32,
    /// The target's name; derives from the node's id and stays through every swap of the disk.
    pub iqn: String,
    /// The only initiator name let in.
    pub initiator: String,
    /// CHAP, if asked for.
    pub chap: Option<Chap>,
    /// When made.
    pub created_at: Time,
}
