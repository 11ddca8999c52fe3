//! The journal's writes: an operation's beginning, its moves, its end; each one transaction with the rows that go with it.

use bincode::Options;
use bmi::model::{
    Answer, Before, Caller, Change, Event, Fault, Id, Intent, Kind, Outcome, Part, Phase, Standing, Subject, Time,
};
use bmi::ops::{Answering, Facts, PartPlan, Plan, Reply, Request};
use bmi::step::{Imported, Script};

use super::Engine;
use crate::store::Tx;

/// Larger answers are not kept for a repeat; it is then answered from the rows.
const ANSWER_KEPT: usize = 48 * 1024;

/// bincode as the journal uses it.
pub(super) fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(16 << 20).reject_trailing_bytes()
}

/// A journal value's bytes.
pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    options()
        .serialize(value)
        .map_err(|e| Fault::new(Kind::Limit, "an operation is too large for the journal").because(e.to_string()))
}

/// A journal value out of its bytes.
pub(super) fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    options().deserialize(bytes).map_err(|e| {
        Fault::new(Kind::Corrupt, "the journal holds bytes this release cannot read").because(e.to_string())
    })
}

/// An operation about to begin.
pub(super) struct Beginning<'a> {
    pub id: Id,
    pub request: &'a Request,
    pub encoded: Vec<u8>,
    pub caller: &'a Caller,
    pub now: Time,
}

impl Beginning<'_> {
    /// Writes the intent with its parts and the rows as they stand while it runs.
    pub(super) fn write(&self, tx: &mut Tx<'_>, plan: Plan) -> Result<(Intent, Vec<Part>), Fault> {
        let mut intent = Intent {
            id: self.id,
            method: self.request.sheet().method(),
            request: self.encoded.clone(),
            caller: self.caller.clone(),
            project: self.caller.project.clone(),
            started_at: self.now,
            parts: u32::try_from(plan.parts.len()).map_err(|_| Fault::new(Kind::Limit, "too many parts"))?,
            atomic: plan.atomic,
            changes: Vec::new(),
            uses: Vec::new(),
            subjects: Vec::new(),
        };
        let mut parts = Vec::with_capacity(plan.parts.len());
        for (index, part) in (0..).zip(plan.parts) {
            parts.push(self.part(tx, &mut intent, index, part)?);
        }
        intent.uses.sort_unstable();
        intent.uses.dedup();
        tx.put_intent(&intent)?;
        for part in &parts {
            tx.put_part(part)?;
        }
        Ok((intent, parts))
    }

    fn part(&self, tx: &mut Tx<'_>, intent: &mut Intent, index: u32, plan: PartPlan) -> Result<Part, Fault> {
        let mut before = Vec::with_capacity(plan.begin.len());
        for change in &plan.begin {
            let (table, id) = change.key();
            before.push(Before { table, id, row: tx.before(change)? });
            tx.apply(change)?;
        }
        intent.changes.extend(&plan.changes);
        intent.uses.extend(&plan.uses);
        intent.subjects.extend(plan.subjects.iter().cloned());
        Ok(Part {
            intent: self.id,
            index,
            standing: Standing::BEGUN,
            script: encode(&plan.script)?,
            before,
            commit: plan.commit,
            subjects: plan.subjects,
        })
    }
}

/// The script of a part.
pub(super) fn script(part: &Part) -> Result<Script, Fault> {
    decode(&part.script)
}

/// Applies a part's ending rows, filled with what its steps found out.
pub(super) fn commit_rows(tx: &mut Tx<'_>, part: &Part, imported: &[Imported], now: Time) -> Result<(), Fault> {
    for change in &part.commit {
        let mut change = change.clone();
        if let Change::Put(bmi::model::Row::Image(image)) = &mut change
            && let Some(found) = imported.iter().find(|i| i.image == image.id)
        {
            image.source_format = Some(found.source_format);
            image.size_bytes = found.size_bytes;
            image.md5 = Some(found.md5.clone());
            image.sha256 = Some(found.sha256.clone());
            image.raw_sha256 = Some(found.raw_sha256.clone());
            image.updated_at = now;
        }
        tx.apply(&change)?;
    }
    Ok(())
}

/// Puts a part's rows back as they were.
pub(super) fn restore_rows(tx: &mut Tx<'_>, part: &Part) -> Result<(), Fault> {
    for before in part.before.iter().rev() {
        match &before.row {
            Some(row) => tx.apply(&Change::Put(row.clone()))?,
            None => tx.apply(&Change::Delete(before.table, before.id))?,
        }
    }
    Ok(())
}

/// What an operation's end writes beside the rows.
pub(super) struct Ending<'a> {
    pub intent: &'a Intent,
    pub request: &'a Request,
    pub facts: &'a Facts,
    /// What is answered for: all of it, or what was done of it.
    pub subjects: Vec<Subject>,
    pub outcome: Outcome,
    pub now: Time,
    pub event: Id,
    /// Its steps are done, or undone: it ends, also where its answer cannot be built.
    pub settled: bool,
}

impl Ending<'_> {
    /// Ends the intent and gives the answer, as of the rows in `tx`.
    pub(super) fn write(self, engine: &Engine, tx: &mut Tx<'_>) -> Result<(Vec<Reply>, Event), Fault> {
        let (items, unanswered) = match &self.outcome {
            Outcome::Failed(_) | Outcome::Abandoned(_) if self.subjects.is_empty() => (Vec::new(), None),
            // A bulk operation of which some parts failed still answers for the others.
            _ => match self.request.answer(&self.answering(tx, engine)) {
                Ok(items) => (items, None),
                Err(fault) if self.settled => (Vec::new(), Some(fault)),
                Err(fault) => return Err(fault),
            },
        };
        let mut kept = encode(&items)?;
        if kept.len() > ANSWER_KEPT {
            kept.clear();
        }
        tx.drop_intent(self.intent.id)?;
        tx.put_answer(&Answer {
            id: self.intent.id,
            method: self.intent.method.clone(),
            request: self.intent.request.clone(),
            caller: self.intent.caller.clone(),
            subjects: self.intent.subjects.clone(),
            started_at: self.intent.started_at,
            ended_at: self.now,
            outcome: self.outcome.clone(),
            items: kept,
        })?;
        let mut event = self.event();
        if let Some(fault) = unanswered {
            let why = format!(
                "it has no answer, because that cannot be built: {fault}; `bmictl state check` lists what is broken"
            );
            tracing::warn!(operation = %self.intent.id, method = %self.intent.method, "{why}");
            event.message = if event.message.is_empty() { why } else { format!("{}; {why}", event.message) };
        }
        tx.put_event(&event)?;
        Ok((items, event))
    }

    fn answering<'b>(&'b self, tx: &'b Tx<'_>, engine: &'b Engine) -> Answering<'b> {
        Answering {
            view: tx,
            caller: &self.intent.caller,
            facts: self.facts,
            subjects: &self.subjects,
            defaults: &engine.defaults,
            now: self.now,
        }
    }

    fn event(&self) -> Event {
        let (outcome, message) = match &self.outcome {
            Outcome::Done { changed: true } => ("done", String::new()),
            Outcome::Done { changed: false } => ("unchanged", String::new()),
            Outcome::Failed(fault) => ("failed", fault.to_string()),
            Outcome::Abandoned(left) => ("abandoned", left.clone()),
        };
        Event {
            at: self.now,
            id: self.event,
            operation: Some(self.intent.id),
            method: self.intent.method.clone(),
            caller: self.intent.caller.name.clone(),
            project: self.intent.project.clone(),
            subjects: self.intent.subjects.clone(),
            outcome: outcome.to_owned(),
            message,
            took_ms: self.now.0.saturating_sub(self.intent.started_at.0) / 1_000,
        }
    }
}

/// Moves a part to another phase, if that is a legal move.
pub(super) fn advance(part: &mut Part, phase: Phase, fault: Option<Fault>) -> Result<(), Fault> {
    let now = part.standing.phase;
    if now == phase {
        part.standing.fault = fault.or(part.standing.fault.take());
        return Ok(());
    }
    if !now.may_become(phase) {
        return Err(Fault::internal(format!("an operation cannot go from {now:?} to {phase:?}")));
    }
    part.standing.parked_in = (phase == Phase::Parked).then_some(now);
    part.standing.phase = phase;
    part.standing.fault = fault.or(part.standing.fault.take());
    Ok(())
}
