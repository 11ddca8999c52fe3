//! Facts: what a plan or an answer may ask the outside before deciding. Asking has no effect.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::{Backing, Imported, Room, Seen, WorkerKind};
use crate::model::{Bytes, Cidr, Id, Note, Place, RbdPlace, StoreNote, Tagging};

/// A question to a driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Look {
    /// Network: all interfaces of the host. Answer: [`Fact::Interfaces`].
    Interfaces,
    /// Storage: space and abilities of a datastore, made or not. Answer: [`Fact::Datastore`].
    Datastore(Id, PlaceKey),
    /// Target: sessions of one target, cheaply. Answer: [`Fact::Sessions`].
    Sessions {
        /// In which network's tgtd.
        network: Id,
        /// Which target.
        tid: u32,
        /// Its name.
        iqn: String,
    },
    /// Target: everything one network's tgtd has. Answer: [`Fact::Targets`].
    Targets(Id),
    /// Worker: state of one network's workers. Answer: [`Fact::Workers`].
    Workers(Id),
    /// Boot: the script a machine would get, with its secret in it. Answer: [`Fact::Script`].
    Script(Id, crate::model::Mac),
    /// Every driver: what is wrong on this host (tools missing, ports taken, rogue DHCP). Answer: [`Fact::Findings`].
    Doctor {
        /// The networks to look at: id, interface, address.
        networks: Vec<(Id, String, String)>,
    },
    /// Storage: whether this host's kernel can map disks of pools. Answer: [`Fact::RbdClient`].
    RbdClient,
    /// Storage: which datastores stand at a place, whoever made them. Answer: [`Fact::Stores`].
    Stores(PlaceKey),
    /// Storage: all that stands on a datastore, and what is written beside it. Answer: [`Fact::Contents`].
    Contents(Id, PlaceKey),
    /// Worker: what one network's tgtd uses of what there is, without asking it. Answer: [`Fact::Room`].
    Room(Id),
    /// Network: whether this host forwards packets between its interfaces. Answer: [`Fact::Routing`].
    Routing,
}

/// A place, hashable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlaceKey {
    /// The folder, or a word for the pool.
    pub path: String,
    /// The pool, if it is one.
    pub rbd: Option<RbdPlace>,
}

impl From<&Place> for PlaceKey {
    fn from(p: &Place) -> PlaceKey {
        let rbd = match p {
            Place::Rbd(r) => Some(r.clone()),
            Place::Folder { .. } => None,
        };
        PlaceKey { path: p.word(), rbd }
    }
}

/// Whether a host, or one interface of it, hands packets of others on. bmid neither needs that nor changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// IPv4 packets (net.ipv4.ip_forward).
    pub ipv4: bool,
    /// IPv6 packets (net.ipv6.conf.all.forwarding).
    pub ipv6: bool,
}

impl Routing {
    /// Which packets, for people; none if none.
    #[must_use]
    pub fn told(self) -> Option<&'static str> {
        match (self.ipv4, self.ipv6) {
            (false, false) => None,
            (true, false) => Some("IPv4"),
            (false, true) => Some("IPv6"),
            (true, true) => Some("IPv4 and IPv6"),
        }
    }
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Its addresses, but for the link's own of IPv6 and the one in bmid's private subnet.
    pub addresses: Vec<Cidr>,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// Largest packet.
    pub mtu: u32,
    /// The loopback interface.
    pub loopback: bool,
    /// What it is on a VLAN, if it is an interface on one.
    pub vlan: Option<VlanFacts>,
    /// Its addresses in private IPv6 subnets of bmid's.
    pub private: Vec<Ipv6Addr>,
}

/// An interface on a VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanFacts {
    /// Whose link carries its frames; empty if that is in another network namespace.
    pub parent: String,
    /// The VLAN.
    pub vlan: u16,
    /// How frames are tagged.
    pub tagging: Tagging,
    /// The network bmid made it for, if bmid did.
    pub network: Option<Id>,
}

/// What a datastore can and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreFacts {
    /// The root is read and holds the datastore's id.
    pub available: bool,
    /// Why not, or what will soon be in the way, for people.
    pub problem: Option<String>,
    /// Clones are reflinks: instant, whatever the size. Else sparse copies.
    pub reflink: bool,
    /// Size of the file system.
    pub total: Bytes,
    /// Free for us.
    pub free: Bytes,
    /// Name of the file system.
    pub filesystem: String,
    /// Nothing can be written there, as `problem` says: what to do about it.
    pub full: Option<String>,
}

/// A datastore as its root says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFound {
    /// Its id.
    pub datastore: Id,
    /// Whose it is.
    pub engine: Id,
    /// What it says of itself.
    pub note: Option<StoreNote>,
    /// How many things in its name stand there; none where that is not known.
    pub things: Option<u64>,
}

/// One whole backing and what is known of it where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Which.
    pub what: Backing,
    /// Its size.
    pub size: Option<Bytes>,
    /// What is written beside it.
    pub note: Option<Note>,
    /// What its import found out.
    pub imported: Option<Imported>,
    /// Of which volume it is a snapshot.
    pub of: Option<Id>,
}

/// All that stands on a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contents {
    /// Whole backings.
    pub things: Vec<Thing>,
    /// Names of ours behind which nothing whole stands.
    pub half_made: Vec<Backing>,
    /// Unfinished imports: name, last change in seconds since the epoch.
    pub staging: Vec<(String, u64)>,
    /// Removed volumes that snapshots still need.
    pub hidden: u64,
    /// Ours in the pool's trash.
    pub trash: u64,
    /// Other datastores at the same place.
    pub others: Vec<StoreFound>,
    /// What carries no mark of any engine.
    pub foreign: u64,
}

/// A worker's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Which program.
    pub kind: WorkerKind,
    /// Runs and answers.
    pub running: bool,
    /// Process id, if it runs.
    pub pid: u32,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Threads.
    pub threads: u32,
    /// How often it was restarted since bmid started.
    pub restarts: u32,
    /// What is wrong, for people.
    pub problem: Option<String>,
    /// It does not answer because a device or a debugger holds it: a new one in its place would not help.
    pub held: bool,
    /// What a tgtd uses of what there is, and what another disk would cost it; none for what does not run.
    pub room: Option<Room>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Something cannot work.
    Error,
}

/// One finding of the doctor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: `tgtd`, `dhcp on eth1`.
    pub check: String,
    /// How bad.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do.
    pub fix: String,
}

/// A driver's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// To [`Look::Interfaces`].
    Interfaces(Vec<InterfaceFacts>),
    /// To [`Look::Datastore`].
    Datastore(DatastoreFacts),
    /// To [`Look::Sessions`].
    Sessions(Vec<super::Session>),
    /// To [`Look::Targets`].
    Targets(Vec<Seen>),
    /// To [`Look::Workers`].
    Workers(Vec<Health>),
    /// To [`Look::Script`].
    Script(Option<String>),
    /// To [`Look::Doctor`].
    Findings(Vec<Finding>),
    /// To [`Look::Stores`].
    Stores(Vec<StoreFound>),
    /// To [`Look::Contents`].
    Contents(Contents),
    /// It could not be found out; why, for people.
    Unknown(String),
    /// To [`Look::RbdClient`]: why it cannot.
    RbdClient(Option<crate::model::Fault>),
    /// To [`Look::Room`]; none where no tgtd runs.
    Room(Option<Room>),
    /// To [`Look::Routing`].
    Routing(Routing),
}
