//! What drivers see outside, without effect: the other half of reconcile.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Backing, WorkerKind};
use crate::model::{Cidr, Id, Mac, Place, Tagging};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// One datastore.
    Datastore {
        /// Its id.
        datastore: Id,
        /// Where.
        place: Place,
    },
    /// Everything that one driver has of one network.
    Network {
        /// Its id.
        network: Id,
        /// Its interface.
        interface: String,
    },
    /// Which networks this driver has anything of, whether bmid knows them or not.
    Networks,
}

/// An initiator's session at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// tgtd's number for it.
    pub sid: u64,
    /// The initiator's name.
    pub initiator: String,
    /// From which address.
    pub address: String,
}

/// A LUN as tgtd has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenLun {
    /// LUN.
    pub number: u8,
    /// Its backing's path.
    pub path: String,
}

/// A target as tgtd has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTarget {
    /// tgtd's number.
    pub tid: u32,
    /// Its name.
    pub iqn: String,
    /// Its LUNs without the controller.
    pub luns: Vec<SeenLun>,
    /// Initiator names let in.
    pub initiators: Vec<String>,
    /// Accounts bound.
    pub accounts: Vec<String>,
    /// Live sessions.
    pub sessions: Vec<Session>,
}

/// The engine's interface on a VLAN, as the kernel has it; it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVlan {
    /// Its name.
    pub interface: String,
    /// Whose link carries its frames.
    pub parent: String,
    /// The VLAN.
    pub vlan: u16,
    /// How frames are tagged.
    pub tagging: Tagging,
    /// Largest packet.
    pub mtu: u32,
    /// The parent's.
    pub parent_mtu: u32,
}

/// One thing outside that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// A datastore's root is there and holds the datastore's id. Absent from an answer: the datastore is unavailable.
    Store(Id),
    /// A whole backing.
    Backing(Backing),
    /// Leftovers of an unfinished import: name, last change in seconds since the epoch.
    Staging(String, u64),
    /// A target.
    Target(SeenTarget),
    /// A portal that is open.
    Portal(IpAddr, u16),
    /// A machine's reservation and script, with a digest of their content.
    Entry {
        /// Whose.
        node: Id,
        /// Which card.
        mac: Mac,
        /// Equal to the digest that the wanted entry would have (see the driver's `digest`).
        digest: String,
    },
    /// The boot service's layout, with a digest of its configuration.
    Service(String),
    /// An address on the network's interface.
    Address(Cidr),
    /// A worker runs and answers; its process id (0 if unknown).
    Worker(WorkerKind, u32),
    /// A network this driver has something of.
    Network(Id),
    /// The network's interface on its VLAN.
    Vlan(SeenVlan),
    /// A whole backing beside which nothing is written, where something could be.
    Bare(Backing),
}
