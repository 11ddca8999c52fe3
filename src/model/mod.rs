//! The records: ids, names, states and their invariants.
//!
//! Nothing here knows an operation, a step or a driver. What is stored is one of these records, so their bincode shape is
//! frozen: a changed field means a new version in [`record::Record::VERSION`] and a migration in the daemon's store.

pub mod disk;
pub mod fault;
pub mod id;
pub mod journal;
pub mod name;
pub mod net;
pub mod node;
pub mod note;
pub mod pairs;
pub mod pool;
pub mod project;
pub mod record;
pub mod server;
pub mod size;
pub mod time;
pub mod view;
pub mod vlan;

pub use disk::{Format, Image, ImageStatus, Role, Snapshot, Visibility, Volume, VolumeStatus};
pub use fault::{Class, Fault, Kind};
pub use id::Id;
pub use journal::{Answer, Before, Event, Intent, Outcome, Part, Phase, Standing, Subject};
pub use name::{Name, Owner, Ref};
pub use net::{Cidr, Mac, Range, Subnet};
pub use node::{Attachment, Chap, ChapMode, Node, NodeState, NodeType, Sealed, Secret, Shown, Target};
pub use note::{ImageNote, NetworkNote, NodeNote, Note, SnapshotNote, StoreNote, TargetNote, VolumeNote};
pub use pool::RbdSource;
pub use project::{Caller, Meta, Project, Usage};
pub use record::{Change, Index, IndexKey, Record, Row, Table};
pub use server::{
    Dhcp, EngineNetwork, Network, NetworkState, Place, RbdExport, RbdPlace, Server, ServerKind, ServerState, Tagging,
    Trunk,
};
pub use size::Bytes;
pub use time::Time;
pub use view::{View, ViewExt};
pub use vlan::{Vlan, VlanChoice, Vlans};
