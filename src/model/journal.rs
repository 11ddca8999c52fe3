//! The journal's records: intents and their parts, ended operations, events.
//!
//! An intent is durable before anything outside changes and goes, in one write, with the rows that result. Its parts hold
//! steps as encoded bytes, because steps belong to a later room than the model.

use serde::{Deserialize, Serialize};

use super::{Caller, Change, Fault, Id, Owner, Row, Table, Time};

/// How far an open operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reversible steps are being done; a failure unwinds.
    Forward,
    /// The line is crossed: what is left is retried until done.
    Final,
    /// Being undone, backwards.
    Unwinding,
    /// A call has not returned, or a step fails without end: held until it returns, or somebody retries or abandons it.
    Parked,
}

impl Phase {
    /// The only legal moves, live and on replay.
    #[must_use]
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::{Final, Forward, Parked, Unwinding};
        matches!(
            (self, next),
            (Forward, Final | Unwinding | Parked) | (Final | Unwinding, Parked) | (Parked, Forward | Final | Unwinding)
        )
    }
}

/// An object an operation is about, with the name it had then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Which kind of record, as in commands (`node`, `image`).
    pub noun: String,
    /// Its id.
    pub id: Id,
    /// Its name then.
    pub name: String,
}

/// The durable record of an operation that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The operation's id: the client's, or one bmid made.
    pub id: Id,
    /// `node.provision`.
    pub method: String,
    /// The encoded request: answers a repeat, and is looked at again after a restart.
    pub request: Vec<u8>,
    /// Who asked.
    pub caller: Caller,
    /// For which project.
    pub project: Owner,
    /// When it began.
    pub started_at: Time,
    /// How many parts.
    pub parts: u32,
    /// All parts end together or none does.
    pub atomic: bool,
    /// Exclusive claims.
    pub changes: Vec<Id>,
    /// Shared claims.
    pub uses: Vec<Id>,
    /// What it is about, for people.
    pub subjects: Vec<Subject>,
}

/// A row as it was before an intent touched it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its table.
    pub table: Table,
    /// Its id.
    pub id: Id,
    /// The row; none if there was none.
    pub row: Option<Row>,
}

/// How far a part of an intent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// How far.
    pub phase: Phase,
    /// The phase it was parked in.
    pub parked_in: Option<Phase>,
    /// Why it unwinds or is parked.
    pub fault: Option<Fault>,
    /// How it ended, when other parts of the same intent have not yet.
    pub ended: Option<Outcome>,
}

impl Standing {
    /// Just begun.
    pub const BEGUN: Standing = Standing { phase: Phase::Forward, parked_in: None, fault: None, ended: None };
}

/// One part of an intent: a bulk operation has one per node, any other exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The intent.
    pub intent: Id,
    /// Its place in it.
    pub index: u32,
    /// How far it is.
    pub standing: Standing,
    /// Encoded reversible steps, then forward-only ones (see `step::Script`).
    pub script: Vec<u8>,
    /// Rows as they were before the intent: what unwinding puts back.
    pub before: Vec<Before>,
    /// Row changes that end it.
    pub commit: Vec<Change>,
    /// What this part is about.
    pub subjects: Vec<Subject>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; whether anything was changed.
    Done {
        /// False: everything was so already.
        changed: bool,
    },
    /// Undone, or refused by the outside before anything changed.
    Failed(Fault),
    /// Given up by an operator; what stays behind is said.
    Abandoned(String),
}

/// An ended operation, kept 24 h so that a repeat gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The operation's id.
    pub id: Id,
    /// Which operation.
    pub method: String,
    /// The encoded request; a repeat must be equal to it.
    pub request: Vec<u8>,
    /// Who asked.
    pub caller: Caller,
    /// What it was about.
    pub subjects: Vec<Subject>,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Time,
    /// How.
    pub outcome: Outcome,
    /// The encoded items of the answer, secrets left out.
    pub items: Vec<u8>,
}

/// Who did what, when, with which outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it ended; the key's first half.
    pub at: Time,
    /// The event's id.
    pub id: Id,
    /// The operation; none for things nobody asked for.
    pub operation: Option<Id>,
    /// `node.provision`, or `worker.died`.
    pub method: String,
    /// Who.
    pub caller: String,
    /// The acting project.
    pub project: Owner,
    /// What it was about.
    pub subjects: Vec<Subject>,
    /// `done`, `unchanged`, `failed`, `abandoned`, `noticed`.
    pub outcome: String,
    /// Why it failed, or a word more.
    pub message: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}
