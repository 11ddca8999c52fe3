//! `state dump`, `restore`, `check`: the store itself.

pub mod rebuild;

use serde::{Deserialize, Serialize};

use crate::model::Fault;
use crate::ops::args::{Direction, Source};
use crate::ops::operation::control;
use crate::ops::{Effect, Op, Resolve, Right, Shape, Sheet};

/// What a dump or a restore did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateDone {
    /// Rows written or read.
    pub rows: u64,
}

/// Write the store out, a line a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct StateDump {
    /// Where to, or - for standard output
    #[arg(value_name = "FILE|-", default_value = "-")]
    pub target: Source,
}

impl Op for StateDump {
    type Out = StateDone;

    const SHEET: Sheet = Sheet {
        noun: "state",
        verb: "dump",
        about: "Write all records out, a line of JSON each; secrets stay sealed",
        examples: &["state dump > bmid.jsonl", "state dump /root/bmid.jsonl"],
        effect: Effect::Control,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        client.open(&mut self.target, Direction::Output)
    }
}

/// Read a dump into an empty store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct StateRestore {
    /// The dump, or - for standard input
    #[arg(value_name = "FILE|-")]
    pub source: Source,
}

impl Op for StateRestore {
    type Out = StateDone;

    const SHEET: Sheet = Sheet {
        noun: "state",
        verb: "restore",
        about: "Read a dump into an empty store (a fresh host), all or nothing",
        examples: &["state restore bmid.jsonl --yes"],
        effect: Effect::Control,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "the empty store's own engine id: the dump's is taken over",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        client.open(&mut self.source, Direction::Input)
    }
}

/// A broken record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub problem: String,
}

control! {
    /// Look for broken references and counters.
    StateCheck -> Problem {}
    "state" "check" Many "Look for broken references, orphans and wrong counters; lists what is wrong", "state check"; Admin; ""; &["problem"]
}
