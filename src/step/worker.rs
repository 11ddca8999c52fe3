//! Processes that must run: one tgtd, one dnsmasq and one server of boot files by HTTP a network.

use serde::{Deserialize, Serialize};

use super::family;
use crate::model::Id;

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// Serves disks.
    Tgtd,
    /// Serves addresses and boot files.
    Dnsmasq,
    /// Serves boot files by HTTP: bmid's own program, as a process of its own.
    Http,
}

impl WorkerKind {
    /// What it is called in units, folders and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerKind::Tgtd => "tgtd",
            WorkerKind::Dnsmasq => "dnsmasq",
            WorkerKind::Http => "http",
        }
    }
}

/// Has a worker run, answering. A tgtd starts behind its loopback portal and empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartWorker {
    /// For which network.
    pub network: Id,
    /// Which program.
    pub kind: WorkerKind,
    /// The network's slot: names tgtd's loopback portal.
    pub slot: u16,
    /// TCP port of tgtd's portals.
    pub port: u16,
}

/// Has a worker not run, and verifies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopWorker {
    /// For which network.
    pub network: Id,
    /// Which program.
    pub kind: WorkerKind,
}

/// Has a worker run that began after this step did: it has read what is configured now. One step, since steps behind an
/// operation's line do not wait for one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartWorker {
    /// What shall run.
    pub start: StartWorker,
}

impl RestartWorker {
    /// What ends the one that runs.
    #[must_use]
    pub fn stop(&self) -> StopWorker {
        StopWorker { network: self.start.network, kind: self.start.kind }
    }
}

family! {
    /// Steps of the worker drivers.
    WorkerStep in Worker { StartWorker, StopWorker, RestartWorker } undo {
        StartWorker => |s| StopWorker { network: s.network, kind: s.kind },
    }
}

impl WorkerStep {
    /// For which network.
    #[must_use]
    pub fn network(&self) -> Id {
        match self {
            WorkerStep::StartWorker(s) => s.network,
            WorkerStep::StopWorker(s) => s.network,
            WorkerStep::RestartWorker(s) => s.start.network,
        }
    }

    /// Which worker.
    #[must_use]
    pub fn which(&self) -> (Id, WorkerKind) {
        match self {
            WorkerStep::StartWorker(s) => (s.network, s.kind),
            WorkerStep::StopWorker(s) => (s.network, s.kind),
            WorkerStep::RestartWorker(s) => (s.start.network, s.start.kind),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            WorkerStep::StartWorker(s) => format!("start {} of network {}", s.kind.as_str(), s.network),
            WorkerStep::StopWorker(s) => format!("stop {} of network {}", s.kind.as_str(), s.network),
            WorkerStep::RestartWorker(s) => format!("restart {} of network {}", s.start.kind.as_str(), s.start.network),
        }
    }
}
