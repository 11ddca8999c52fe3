//! What a plan is given and what it gives back.

use crate::model::journal::Subject;
use crate::model::{Caller, Change, Fault, Id, Owner, Ref, Sealed, Time, View, ViewExt};
use crate::rules::Defaults;
use crate::rules::wanted::NodeRecords;
use crate::step::{Fact, Look, Script};

/// Answers of drivers to an operation's questions.
#[derive(Clone, Debug, Default)]
pub struct Facts(pub Vec<(Look, Fact)>);

impl Facts {
    /// The answer to a question.
    #[must_use]
    pub fn get(&self, look: &Look) -> Option<&Fact> {
        self.0.iter().find(|(l, _)| l == look).map(|(_, f)| f)
    }
}

/// What a plan may use.
pub struct Cx<'a> {
    /// The rows.
    pub view: &'a dyn View,
    /// Who asks.
    pub caller: &'a Caller,
    /// The facts it asked for.
    pub facts: &'a Facts,
    /// Now.
    pub now: Time,
    /// This operation's id.
    pub operation: Id,
    /// What the configuration says.
    pub defaults: &'a Defaults,
    /// Random bytes.
    pub dice: &'a mut dyn FnMut(&mut [u8]),
    /// Seals a secret under bmid's key.
    pub seal: &'a dyn Fn(&str) -> Sealed,
}

impl Cx<'_> {
    /// A fresh id.
    pub fn id(&mut self) -> Id {
        let mut b = [0u8; 16];
        (self.dice)(&mut b);
        Id::from_random(b)
    }

    /// A fresh random number.
    pub fn number(&mut self) -> u32 {
        let mut b = [0u8; 4];
        (self.dice)(&mut b);
        u32::from_le_bytes(b)
    }

    /// The acting project.
    #[must_use]
    pub fn project(&self) -> &Owner {
        &self.caller.project
    }

    /// This engine.
    #[must_use]
    pub fn engine(&self) -> Id {
        self.view.meta().engine
    }

    /// A node of the acting project, with all that belongs to it.
    pub fn node_records(&self, node: &Ref) -> Result<NodeRecords, Fault> {
        NodeRecords::load(self.view, self.view.node(self.project(), node)?)
    }
}

/// One part of a plan: all of it happens, or none.
#[derive(Clone, Debug, Default)]
pub struct PartPlan {
    /// Rows as they shall stand while the operation runs.
    pub begin: Vec<Change>,
    /// What is done outside.
    pub script: Script,
    /// Rows as they shall stand when it has ended.
    pub commit: Vec<Change>,
    /// Exclusive claims.
    pub changes: Vec<Id>,
    /// Shared claims.
    pub uses: Vec<Id>,
    /// What it is about.
    pub subjects: Vec<Subject>,
}

impl PartPlan {
    /// Says what it is about, and claims it.
    pub fn about(&mut self, noun: &str, id: Id, name: impl ToString) {
        self.subjects.push(Subject { noun: noun.to_owned(), id, name: name.to_string() });
        self.changes.push(id);
    }

    /// The row stands like `begin` while the operation runs and like `commit` afterwards.
    pub fn row(&mut self, begin: impl Into<Change>, commit: impl Into<Change>) {
        self.begin.push(begin.into());
        self.commit.push(commit.into());
    }
}

/// What an operation wants to happen.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Independent parts: a bulk operation has one per node, any other one, and none means nothing changes.
    pub parts: Vec<PartPlan>,
    /// All parts end together or none does.
    pub atomic: bool,
}

impl Plan {
    /// Nothing changes.
    #[must_use]
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Nothing has to change; what it is about stands already as wanted.
    #[must_use]
    pub fn already(noun: &str, id: Id, name: impl ToString) -> Plan {
        let mut part = PartPlan::default();
        part.subjects.push(Subject { noun: noun.to_owned(), id, name: name.to_string() });
        part.into()
    }

    /// Whether anything would change.
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        self.parts.iter().any(|p| !p.script.is_empty() || !p.commit.is_empty() || !p.begin.is_empty())
    }

    /// Whether anything outside would change.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        self.parts.iter().any(|p| !p.script.is_empty())
    }
}

impl From<PartPlan> for Plan {
    fn from(part: PartPlan) -> Plan {
        Plan { parts: vec![part], atomic: true }
    }
}

/// A plan or the reason against it.
pub type Planned = Result<Plan, Fault>;
