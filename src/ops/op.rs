//! What an operation is: what it takes (the struct itself), what it answers, and what it needs beside its plan.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::args::Resolve;
use super::plan::{Cx, Facts, Plan};
use crate::model::journal::Subject;
use crate::model::{Caller, Fault, Id, Owner, Time, View};
use crate::rules::{Defaults, Right};
use crate::step::Look;

/// Whether and where an operation takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing: answers from rows and facts.
    Read,
    /// Changes rows, and the outside through steps.
    Change,
    /// About bmid itself (journal, watches, dumps): the daemon's run room answers it.
    Control,
}

/// How many items an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Exactly one: JSON shows the bare object.
    One,
    /// Any number: JSON shows an array.
    Many,
    /// Text as it is: a script, a dump.
    Text,
}

/// An operation's line of the table, for people and tests.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// `node`; for `status` and its like the whole command.
    pub noun: &'static str,
    /// `provision`; empty for `status` and its like.
    pub verb: &'static str,
    /// One line for help.
    pub about: &'static str,
    /// Command lines for help and man pages, without the leading `bmictl`.
    pub examples: &'static [&'static str],
    /// Whether and where it takes effect.
    pub effect: Effect,
    /// How many items it answers.
    pub shape: Shape,
    /// The right it needs.
    pub right: Right,
    /// Fields a table shows, in order; empty shows all.
    pub columns: &'static [&'static str],
    /// What is lost by it, asked about on a terminal: `the disk of the node`. Empty: nothing.
    pub destroys: &'static str,
}

impl Sheet {
    /// `node.provision`: the name in raw calls, journal and events.
    #[must_use]
    pub fn method(&self) -> String {
        if self.verb.is_empty() {
            self.noun.to_owned()
        } else {
            format!("{}.{}", self.noun, self.verb.replace('-', "_"))
        }
    }

    /// `node provision`: as typed.
    #[must_use]
    pub fn command(&self) -> String {
        format!("{} {}", self.noun, self.verb).trim_end().to_owned()
    }
}

/// What an operation sees when it says which facts it needs.
pub struct Asking<'a> {
    /// The rows.
    pub view: &'a dyn View,
    /// Who asks.
    pub caller: &'a Caller,
    /// What the configuration says.
    pub defaults: &'a Defaults,
}

/// What an answer is made of.
pub struct Answering<'a> {
    /// The rows, as they stand when the operation has ended.
    pub view: &'a dyn View,
    /// Who asks.
    pub caller: &'a Caller,
    /// The facts asked for.
    pub facts: &'a Facts,
    /// What the plan was about.
    pub subjects: &'a [Subject],
    /// What the configuration says.
    pub defaults: &'a Defaults,
    /// Now.
    pub now: Time,
}

impl Asking<'_> {
    /// The acting project.
    #[must_use]
    pub fn project(&self) -> &Owner {
        &self.caller.project
    }
}

impl Answering<'_> {
    /// The acting project.
    #[must_use]
    pub fn project(&self) -> &Owner {
        &self.caller.project
    }

    /// The same, without the facts: for looking things up in both places.
    #[must_use]
    pub fn asking(&self) -> Asking<'_> {
        Asking { view: self.view, caller: self.caller, defaults: self.defaults }
    }
}

/// An operation. The struct is what the command line parses and what crosses the wire.
pub trait Op: Serialize + DeserializeOwned + Clone + Debug + PartialEq + clap::Args {
    /// One item of its answer.
    type Out: Serialize + DeserializeOwned + Clone + Debug + PartialEq;

    /// Its line of the table.
    const SHEET: Sheet;

    /// Client only: opens files, makes paths absolute.
    fn resolve(&mut self, _client: &mut dyn Resolve) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether JSON shows an array.
    fn many(&self) -> bool {
        Self::SHEET.shape == Shape::Many
    }

    /// What is lost by this very request; empty: nothing.
    fn destroys(&self) -> &'static str {
        Self::SHEET.destroys
    }

    /// The facts its plan or answer needs.
    fn looks(&self, _at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(Vec::new())
    }

    /// What it changes. Pure: rows, facts, now and random bytes in; row changes and steps, or a refusal, out.
    fn plan(&self, _cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        Ok(Plan::nothing())
    }

    /// Its answer, when all is done.
    fn answer(&self, _at: &Answering<'_>) -> Result<Vec<Self::Out>, Fault> {
        Err(Fault::internal(format!("{} is answered by the daemon, not by its plan", Self::SHEET.command())))
    }
}

/// The answer of operations that remove something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// What was removed; none if it was not there.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
}

impl Gone {
    /// One line a subject.
    #[must_use]
    pub fn all(subjects: &[Subject]) -> Vec<Gone> {
        subjects.iter().map(|s| Gone { id: Some(s.id), name: s.name.clone() }).collect()
    }
}
