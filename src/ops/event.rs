//! `event ls` and `event watch`: who did what, when, with which outcome.

use serde::{Deserialize, Serialize};

use super::operation::control;
use crate::model::journal::Subject;
use crate::model::{Event, Id, Time};
use crate::ops::{Effect, Op, Right, Shape, Sheet};

/// An event as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    pub at: Time,
    /// Id.
    pub id: Id,
    /// The operation.
    pub operation: Option<Id>,
    /// `node.provision`, `worker.died`.
    pub method: String,
    /// Who.
    pub caller: String,
    /// The acting project.
    pub project: String,
    /// What it was about.
    pub subjects: Vec<Subject>,
    /// `done`, `unchanged`, `failed`, `abandoned`, `noticed`.
    pub outcome: String,
    /// A word more.
    pub message: String,
    /// How long it took.
    pub took_ms: u64,
}

impl From<Event> for EventView {
    fn from(e: Event) -> EventView {
        EventView {
            at: e.at,
            id: e.id,
            operation: e.operation,
            method: e.method,
            caller: e.caller,
            project: e.project.to_string(),
            subjects: e.subjects,
            outcome: e.outcome,
            message: e.message,
            took_ms: e.took_ms,
        }
    }
}

const COLUMNS: &[&str] = &["at", "method", "subjects", "caller", "outcome", "took_ms", "message"];

control! {
    /// List events, oldest first.
    EventLs -> EventView {
        /// Only later than this time
        #[arg(long, value_name = "TIME")]
        #[serde(default)]
        since: Option<Time>,
        /// At most so many, the newest
        #[arg(long, default_value_t = 100)]
        #[serde(default = "hundred")]
        limit: u32,
    }
    "event" "ls" Many "List events: who did what, when, with which outcome", "event ls", "event ls --since 2026-11-22T10:00:00Z --limit 1000";
    Admin; ""; COLUMNS
}
control! {
    /// Print events as they happen.
    EventWatch -> EventView {}
    "event" "watch" Many "Print events as they happen, until interrupted", "event watch -f jsonl"; Admin; ""; COLUMNS
}

fn hundred() -> u32 {
    100
}
