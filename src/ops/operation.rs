//! `op ls`, `show`, `watch`, `cancel`, `retry`, `abandon`: the journal, for people. The daemon's run room answers these.

use serde::{Deserialize, Serialize};

use crate::model::journal::Subject;
use crate::model::{Fault, Id, Time};
use crate::ops::{Effect, Op, Right, Shape, Sheet};

/// An operation as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpView {
    /// Id.
    pub id: Id,
    /// `node.provision`.
    pub method: String,
    /// `forward`, `final`, `unwinding`, `parked`; ended: `done`, `failed`, `abandoned`.
    pub state: String,
    /// Who asked.
    pub caller: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Parts in all.
    pub parts: u32,
    /// Parts still open.
    pub open_parts: u32,
    /// Whether it changed anything, when it is done.
    pub changed: Option<bool>,
    /// Why it failed, unwinds or is parked.
    pub fault: Option<Fault>,
}

macro_rules! control {
    ($(#[doc = $doc:literal])+ $t:ident -> $out:ty { $($(#[$fm:meta])* $f:ident: $ft:ty),* $(,)? } $noun:literal $verb:literal $shape:ident $about:literal, $($example:literal),+; $right:ident; $destroys:literal; $columns:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct $t { $($(#[$fm])* pub $f: $ft,)* }

        impl Op for $t {
            type Out = $out;
            const SHEET: Sheet = Sheet {
                noun: $noun, verb: $verb, about: $about, examples: &[$($example),+], effect: Effect::Control, shape: Shape::$shape,
                right: Right::$right, columns: $columns, destroys: $destroys,
            };
        }
    };
}
pub(super) use control;

const COLUMNS: &[&str] = &["id", "method", "state", "subjects", "caller", "started_at"];

control! {
    /// List operations.
    OpLs -> OpView {
        /// Ended ones too (kept 24 h)
        #[arg(long)]
        #[serde(default)]
        all: bool,
    }
    "op" "ls" Many "List operations that have not ended", "op ls", "op ls --all"; Admin; ""; COLUMNS
}
control! {
    /// Show an operation.
    OpShow -> OpView {
        /// Its id
        id: Id,
    }
    "op" "show" One "Show an operation: how far it is, why it failed", "op show 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"; Admin; ""; &[]
}
control! {
    /// Wait for an operation, showing its progress.
    OpWatch -> OpView {
        /// Its id
        id: Id,
    }
    "op" "watch" One "Wait for an operation and show its progress", "op watch 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"; Admin; ""; &[]
}
control! {
    /// Have an operation undone, if its line is not crossed.
    OpCancel -> OpView {
        /// Its id
        id: Id,
    }
    "op" "cancel" One "Have an operation undone", "op cancel 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"; Admin; ""; &[]
}
control! {
    /// Have a parked operation go on.
    OpRetry -> OpView {
        /// Its id
        id: Id,
    }
    "op" "retry" One "Have a parked operation go on now", "op retry 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"; Admin; ""; &[]
}
control! {
    /// Give a parked operation up.
    OpAbandon -> OpView {
        /// Its id
        id: Id,
    }
    "op" "abandon" One "Give a parked operation up; its objects are free again, what it left behind is said and collected by reconcile",
    "op abandon 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b --yes"; Admin; "the operation: what it has half made stays until reconcile collects it"; &[]
}
