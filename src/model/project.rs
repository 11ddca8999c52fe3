//! Projects, callers, usage counters and the store's own record.

use serde::{Deserialize, Serialize};

use super::{Id, Name, Owner, Time};

/// Who owns and pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Primary key.
    pub id: Id,
    /// Unique among projects and users.
    pub name: Owner,
    /// When made.
    pub created_at: Time,
}

/// Who acts: taken from the socket's peer, never from the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The peer's user id; none for bmid itself.
    pub uid: Option<u32>,
    /// A name for people: the account's, or `bmid`.
    pub name: String,
    /// Root, or a member of bmi-admin.
    pub admin: bool,
    /// For which project it acts.
    pub project: Owner,
}

impl Caller {
    /// bmid itself: repairs and timers.
    #[must_use]
    pub fn bmid() -> Caller {
        Caller { uid: None, name: "bmid".to_owned(), admin: true, project: Owner::default_project() }
    }
}

/// What a project holds. Changed in the same write as the rows it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Live nodes.
    pub nodes: u64,
    /// Live volumes.
    pub volumes: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// GiB of live volumes and snapshots, each rounded up.
    pub gigabytes: u64,
    /// Live images.
    pub images: u64,
    /// GiB of live images, each rounded up.
    pub image_gigabytes: u64,
    /// Live networks.
    pub networks: u64,
}

/// The store's own record: written once at first start, read at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Layout of the store; a higher number than the running release knows is refused.
    pub schema: u32,
    /// This engine's id.
    pub engine: Id,
    /// This engine's name (the host's at first start).
    pub engine_name: Name,
    /// Release that wrote last, for people.
    pub release: String,
    /// When the store was made.
    pub created_at: Time,
}
