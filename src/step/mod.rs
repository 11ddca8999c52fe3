//! Outside effects as data, each with its inverse.
//!
//! A step says what shall be so, with everything the driver needs in it; it never says how. Steps are idempotent in both
//! directions: "already so" and "already gone" are success. They stand in stored intents: append only, never change a field.
//!
//! [`Undoable`] steps may stand before an operation's line; [`Step`]s without an inverse only behind it. The types keep
//! that: [`Script::first`] takes only undoable ones.

pub mod boot;
pub mod look;
pub mod network;
pub mod room;
pub mod seen;
pub mod storage;
pub mod target;
pub mod worker;

use serde::{Deserialize, Serialize};

use crate::model::Id;
pub use boot::{BootStep, ChangeServe, DropEntry, Entry, Serve, Unserve};
pub use look::{
    Contents, DatastoreFacts, Fact, Finding, Health, InterfaceFacts, Look, Routing, Severity, StoreFound, Thing,
    VlanFacts,
};
pub use network::{DropAddress, DropVlan, MakeVlan, NetworkStep, PutAddress};
pub use room::{Amounts, Limit, Resource, Room};
pub use seen::{Scope, Seen, SeenLun, SeenTarget, SeenVlan, Session};
pub use storage::{
    AdoptStore, Backing, BackingKind, Clone, Export, Import, Imported, MakeStore, OpenStore, Remove, SetNote,
    StorageStep, TakeOver, UnmakeStore,
};
pub use target::{Account, ClosePortal, DropTarget, Lun, MakeTarget, OpenPortal, SwapAccount, SwapLun, TargetStep};
pub use worker::{RestartWorker, StartWorker, StopWorker, WorkerKind, WorkerStep};

/// One outside effect.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Bytes on a datastore.
    Storage(StorageStep),
    /// An iSCSI target in a network's tgtd.
    Target(TargetStep),
    /// What machines are told on a network: DHCP, TFTP, scripts.
    Boot(BootStep),
    /// An interface on a VLAN, or an address on an interface.
    Network(NetworkStep),
    /// A process that must run.
    Worker(WorkerStep),
}

/// Which bounded pool of threads a step runs on: one slow datastore or network must not hold up another.
#[derive(std::clone::Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Short work on a datastore: clones, removals.
    Datastore(Id),
    /// Long work on a datastore: imports.
    Import(Id),
    /// Everything of one network.
    Network(Id),
}

impl Step {
    /// The step that takes this one back; none for what cannot be taken back.
    #[must_use]
    pub fn inverse(&self) -> Option<Step> {
        match self {
            Step::Storage(s) => s.inverse(),
            Step::Target(s) => s.inverse(),
            Step::Boot(s) => s.inverse(),
            Step::Network(s) => s.inverse(),
            Step::Worker(s) => s.inverse(),
        }
    }

    /// On which threads it runs.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Step::Storage(s) => s.lane(),
            Step::Target(s) => Lane::Network(s.network()),
            Step::Boot(s) => Lane::Network(s.network()),
            Step::Network(s) => Lane::Network(s.network()),
            Step::Worker(s) => Lane::Network(s.network()),
        }
    }

    /// What it does, for people: `clone volume 1234.0 from image 5678`. Without secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Step::Storage(s) => s.describe(),
            Step::Target(s) => s.describe(),
            Step::Boot(s) => s.describe(),
            Step::Network(s) => s.describe(),
            Step::Worker(s) => s.describe(),
        }
    }

    /// Seconds after which it counts as unsure.
    #[must_use]
    pub fn deadline_seconds(&self) -> u64 {
        match self {
            Step::Storage(StorageStep::Import(_) | StorageStep::Export(_) | StorageStep::TakeOver(_)) => 24 * 3_600,
            Step::Storage(StorageStep::Clone(_) | StorageStep::MakeStore(_)) => 3_600,
            Step::Storage(_) => 120,
            _ => 30,
        }
    }
}

/// A step that can be taken back.
pub trait Undoable: Into<Step> {
    /// The step that takes it back.
    fn undo(&self) -> Step;
}

/// What an operation does outside: reversible steps, then the line, then forward-only steps. Within a stage steps are
/// independent and may run side by side; stages run one after another.
#[derive(std::clone::Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    before: Vec<Vec<Step>>,
    after: Vec<Vec<Step>>,
}

impl Script {
    /// Adds a reversible step as a stage of its own.
    pub fn first<S: Undoable>(&mut self, step: S) {
        self.before.push(vec![step.into()]);
    }

    /// Adds a reversible step to the last stage: it depends on nothing in it.
    pub fn beside<S: Undoable>(&mut self, step: S) {
        match self.before.last_mut() {
            Some(stage) => stage.push(step.into()),
            None => self.first(step),
        }
    }

    /// Adds a step behind the line.
    pub fn then(&mut self, step: impl Into<Step>) {
        self.after.push(vec![step.into()]);
    }

    /// Stages before the line.
    #[must_use]
    pub fn reversible(&self) -> &[Vec<Step>] {
        &self.before
    }

    /// Stages behind the line.
    #[must_use]
    pub fn forward(&self) -> &[Vec<Step>] {
        &self.after
    }

    /// Nothing outside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// All steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.before.iter().chain(&self.after).flatten()
    }

    /// All steps, in order, to be completed. What a step is must not change: which side of the line it stands on hangs on it.
    pub fn steps_mut(&mut self) -> impl Iterator<Item = &mut Step> {
        self.before.iter_mut().chain(&mut self.after).flatten()
    }
}

/// Declares a family's enum with its conversions; `undo` lists the variants that can be taken back.
macro_rules! family {
    ($(#[$m:meta])* $family:ident in $outer:ident { $($v:ident),* $(,)? } undo { $($u:ident => |$s:ident| $inverse:expr),* $(,)? }) => {
        $(#[$m])*
        #[derive(std::clone::Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $family { $(#[doc = concat!("See [`", stringify!($v), "`].")] $v($v)),* }
        $(impl From<$v> for crate::step::Step { fn from(s: $v) -> Self { crate::step::Step::$outer($family::$v(s)) } })*
        $(impl crate::step::Undoable for $u { fn undo(&self) -> crate::step::Step { let $s = self; ($inverse).into() } })*
        impl $family {
            /// The step that takes this one back.
            #[must_use]
            pub fn inverse(&self) -> Option<crate::step::Step> {
                #[allow(unreachable_patterns, reason = "a family may be undoable whole")]
                match self { $($family::$u(s) => Some(crate::step::Undoable::undo(s)),)* _ => None }
            }
        }
    };
}
pub(crate) use family;

#[cfg(test)]
mod tests;
