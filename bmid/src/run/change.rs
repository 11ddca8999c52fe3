//! Changes: looked at, planned, written down, begun, waited for.

use std::sync::Arc;
use std::time::Duration;

use bmi::model::{Answer, Event, Fault, Id, Intent, Kind, Outcome, Part};
use bmi::ops::{Cx, Facts, Plan, Reply, Request};
use bmi::protocol::{Ended, Envelope};

use super::call::{Cancel, Out, Submission};
use super::hub::{End, Live};
use super::{Engine, drive, journal, random};
use crate::store::Tx;

/// The method name under which repairs claim.
pub(super) const REPAIR: &str = "reconcile";

/// What a plan came to.
enum Begun {
    /// Everything is written: there were no steps.
    Whole(Intent, Vec<Reply>, Event, bool),
    /// Steps are to be driven.
    Open(Intent, Vec<Part>),
}

/// What a begin that failed says beside its fault.
#[derive(Default)]
struct Tried {
    /// It took claims, which nobody else holds under this id.
    claimed: bool,
    /// What is in the way is gone in a moment: a repair, or an operation whose end is written.
    passing: bool,
}

impl Engine {
    pub(super) async fn change(self: &Arc<Engine>, mut call: Submission, cancel: Cancel) -> Result<Ended, Fault> {
        let encoded = journal::encode(&call.request)?;
        if let Some(id) = call.envelope.op_id
            && let Some(ended) = self.again(&call, id, &encoded, &cancel).await?
        {
            return Ok(ended);
        }
        let lately = !call.envelope.check;
        let mut facts = self.facts_in_time(&mut call, lately).await?;
        let id = call.envelope.op_id.unwrap_or_else(|| self.fresh_id());
        if call.envelope.check {
            let plan = self.store.read(|view| self.plan(view, &call, id, &facts))?;
            if call.request.foretells() {
                send(&call, self.foretold(&call, &plan, &facts)?).await;
            }
            return Ok(Ended { op_id: None, changed: plan.changes_anything(), running: false });
        }
        let mut begun = self.begin_when_free(&call, id, &encoded, &facts).await;
        if begun.as_ref().is_err_and(|fault| matches!(fault.kind, Kind::Limit | Kind::Full)) {
            // What was seen a moment ago lets somebody go on; it refuses nobody.
            facts = self.facts_in_time(&mut call, false).await?;
            begun = self.begin_when_free(&call, id, &encoded, &facts).await;
        }
        match begun? {
            Begun::Whole(intent, items, event, changed) => {
                self.log_end(&intent, Ok(()));
                self.claims.release(id);
                self.hub.event(event);
                if changed && call.request.leaves_to_reconcile() {
                    self.bell.notify_one();
                }
                send(&call, self.hand_out(&call, id, items, true).await?).await;
                Ok(Ended { op_id: Some(id), changed, running: false })
            }
            Begun::Open(intent, parts) => {
                let standing = parts.iter().map(|p| p.standing.clone()).collect();
                let live = Arc::new(Live::new(intent, call.request.clone(), std::mem::take(&mut call.files), standing));
                self.hub.add(Arc::clone(&live));
                let drive = drive::drive(Arc::clone(self), Arc::clone(&live), parts, facts);
                self.drive_and_wait(drive, &live, &call, &cancel).await
            }
        }
    }

    /// The facts a change asks for. Looking is part of the caller's waiting.
    async fn facts_in_time(&self, call: &mut Submission, lately: bool) -> Result<Facts, Fault> {
        let began = tokio::time::Instant::now();
        let facts = self.facts(call, lately).await?;
        let looked = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        call.envelope.timeout_ms = call.envelope.timeout_ms.map(|ms| ms.saturating_sub(looked));
        Ok(facts)
    }

    /// What an operation would answer, for those whose answer is worth that.
    fn foretold(&self, call: &Submission, plan: &Plan, facts: &Facts) -> Result<Vec<Reply>, Fault> {
        let subjects: Vec<_> = plan.parts.iter().flat_map(|p| p.subjects.iter().cloned()).collect();
        self.store.read(|view| {
            call.request.answer(&bmi::ops::Answering {
                view,
                caller: &call.caller,
                facts,
                subjects: &subjects,
                defaults: &self.defaults,
                now: self.now(),
            })
        })
    }

    /// Drives an operation in the task of who asked, who waits for it anyway; it goes on in one of its own where the waiting
    /// ends first.
    async fn drive_and_wait(
        self: &Arc<Engine>,
        drive: impl Future<Output = ()> + Send + 'static,
        live: &Arc<Live>,
        call: &Submission,
        cancel: &Cancel,
    ) -> Result<Ended, Fault> {
        let mut drive = Box::pin(self.tasks.track_future(drive));
        let mut wait = std::pin::pin!(self.wait(live, call, cancel, true));
        tokio::select! {
            biased;
            // Not begun anew: it may be sending the answer already.
            () = &mut drive => wait.await,
            ended = &mut wait => {
                tokio::spawn(drive);
                ended
            }
        }
    }

    /// Begins. What holds an object for a moment only is waited for; an operation in the way is a refusal.
    async fn begin_when_free(&self, call: &Submission, id: Id, encoded: &[u8], facts: &Facts) -> Result<Begun, Fault> {
        let mut tries = 100;
        loop {
            let mut tried = Tried::default();
            let begun = self.write("begin", |tx| self.begin(tx, call, id, encoded.to_vec(), facts, &mut tried)).await;
            let Err(fault) = begun else { return begun };
            if tried.claimed {
                self.claims.release(id);
            }
            tries -= 1;
            if tries == 0 || !tried.passing {
                return Err(fault);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn plan(&self, view: &dyn bmi::model::View, call: &Submission, id: Id, facts: &Facts) -> Result<Plan, Fault> {
        call.request.plan(&mut Cx {
            view,
            caller: &call.caller,
            facts,
            now: self.now(),
            operation: id,
            defaults: &self.defaults,
            dice: &mut random,
            seal: &self.seal,
        })
    }

    /// Plans, claims and writes down, in one transaction.
    fn begin(
        &self,
        tx: &mut Tx<'_>,
        call: &Submission,
        id: Id,
        encoded: Vec<u8>,
        facts: &Facts,
        tried: &mut Tried,
    ) -> Result<Begun, Fault> {
        if tx.intent(id)?.is_some() || tx.answer(id)?.is_some() {
            return Err(Fault::new(Kind::Busy, format!("operation {id} has begun meanwhile")).fix("ask again"));
        }
        let plan = self.plan(tx, call, id, facts)?;
        let method = call.request.sheet().method();
        for part in &plan.parts {
            if let Err(held) = self.claims.take(id, &method, &part.changes, &part.uses) {
                tried.passing = held.method == REPAIR || tx.answer(held.by)?.is_some();
                return Err(held.into());
            }
            tried.claimed = true;
        }
        let begin = journal::Beginning { id, request: &call.request, encoded, caller: &call.caller, now: self.now() };
        if plan.has_steps() {
            let (intent, parts) = begin.write(tx, plan)?;
            return Ok(Begun::Open(intent, parts));
        }
        let changed = plan.changes_anything();
        let subjects = plan.parts.iter().flat_map(|p| p.subjects.iter().cloned()).collect::<Vec<_>>();
        for part in &plan.parts {
            for change in part.begin.iter().chain(&part.commit) {
                tx.apply(change)?;
            }
        }
        let intent = Intent {
            id,
            method,
            request: begin.encoded,
            caller: call.caller.clone(),
            project: call.caller.project.clone(),
            started_at: begin.now,
            parts: 0,
            atomic: true,
            changes: Vec::new(),
            uses: Vec::new(),
            subjects: subjects.clone(),
        };
        let ending = journal::Ending {
            intent: &intent,
            request: &call.request,
            facts,
            subjects,
            outcome: Outcome::Done { changed },
            now: self.now(),
            event: self.fresh_id(),
            settled: false,
        };
        let (items, event) = ending.write(self, tx)?;
        Ok(Begun::Whole(intent, items, event, changed))
    }

    /// The same operation id again: the same answer for the same request, else refused.
    async fn again(
        self: &Arc<Engine>,
        call: &Submission,
        id: Id,
        encoded: &[u8],
        cancel: &Cancel,
    ) -> Result<Option<Ended>, Fault> {
        if let Some(live) = self.hub.get(id) {
            same(&live.intent.request, encoded, &live.intent.method, id)?;
            return self.wait(&live, call, cancel, false).await.map(Some);
        }
        let Some(answer) = self.store.answer(id)? else { return Ok(None) };
        same(&answer.request, encoded, &answer.method, id)?;
        let changed = match &answer.outcome {
            Outcome::Done { changed } => *changed,
            // It lost its input; the same command resumes it, under the same id too.
            Outcome::Failed(fault) if fault.kind == Kind::Interrupted => {
                self.write("forget", |tx| tx.drop_answer(id)).await?;
                return Ok(None);
            }
            Outcome::Failed(fault) => return Err(fault.clone()),
            Outcome::Abandoned(left) => return Err(Fault::new(Kind::Cancelled, format!("it was given up: {left}"))),
        };
        send(call, self.hand_out(call, id, self.kept(call, &answer)?, false).await?).await;
        Ok(Some(Ended { op_id: Some(id), changed, running: false }))
    }

    /// The items of an earlier answer, or the answer as of now where it was too large to keep.
    fn kept(&self, call: &Submission, answer: &Answer) -> Result<Vec<Reply>, Fault> {
        if !answer.items.is_empty() {
            return journal::decode(&answer.items);
        }
        let items = self.store.read(|view| {
            call.request.answer(&bmi::ops::Answering {
                view,
                caller: &answer.caller,
                facts: &Facts::default(),
                subjects: &answer.subjects,
                defaults: &self.defaults,
                now: self.now(),
            })
        });
        // It is done; what it was about may be gone or broken by now.
        Ok(items.unwrap_or_else(|fault| {
            tracing::warn!(operation = %answer.id, "an answer cannot be built again: {fault}");
            Vec::new()
        }))
    }

    /// Waits for a live operation as its envelope says, sending progress and then the answer. `first`: it was begun by this
    /// very call.
    async fn wait(&self, live: &Arc<Live>, call: &Submission, cancel: &Cancel, first: bool) -> Result<Ended, Fault> {
        let id = live.intent.id;
        if call.envelope.no_wait {
            return Ok(Ended { op_id: Some(id), changed: true, running: true });
        }
        let waited = tokio::select! {
            waited = wait_end(live, call, cancel) => waited,
            () = self.stopping.cancelled() => return Err(stops(id)),
        };
        match waited {
            Waited::End(end) => {
                send(call, self.hand_out(call, id, end.items.to_vec(), first).await?).await;
                end.result.map(|changed| Ended { op_id: Some(id), changed, running: false })
            }
            Waited::Parked(fault) => Err(Fault { kind: if fault.kind == Kind::Timeout { Kind::Timeout } else { Kind::Unavailable }, ..fault }
                .fix(format!("it is tried again by itself; `bmictl op show {id}` tells how it goes, `op retry` and `op abandon` decide"))),
            Waited::TimedOut => {
                Err(Fault::new(Kind::Timeout, "it has not ended in the time given; it goes on").fix(format!("`bmictl op watch {id}` waits for it")))
            }
        }
    }
}

fn stops(id: Id) -> Fault {
    Fault::new(Kind::Unavailable, "bmid stops; the operation goes on after its next start")
        .fix(format!("`bmictl op watch {id}` waits for it then"))
}

/// The same operation id with another request is refused; the difference itself is not shown, it may be secret.
fn same(kept: &[u8], given: &[u8], method: &str, id: Id) -> Result<(), Fault> {
    let shape = |b: &[u8]| journal::decode::<Request>(b).ok();
    if kept == given || (shape(kept).is_some() && shape(kept) == shape(given)) {
        return Ok(());
    }
    Err(Fault::new(Kind::Conflict, format!("operation id {id} belongs to a {method} with other arguments"))
        .fix("use a fresh operation id for a new request"))
}

/// Sends an answer's items; the reader may have gone.
pub(super) async fn send(call: &Submission, items: Vec<Reply>) {
    for item in items {
        if call.out.send(Out::Item(Box::new(item))).await.is_err() {
            return;
        }
    }
}

pub(super) enum Waited {
    End(End),
    Parked(Fault),
    TimedOut,
}

/// Waits until a live operation ends, is parked, or the caller's time is up.
pub(super) async fn wait_end(live: &Arc<Live>, call: &Submission, cancel: &Cancel) -> Waited {
    let Envelope { timeout_ms, progress: wants, .. } = &call.envelope;
    let deadline = timeout_ms.map(Duration::from_millis).unwrap_or(Duration::from_secs(7 * 24 * 3_600));
    let (mut end, mut parked) = (live.end.subscribe(), live.parked.subscribe());
    let mut progress = wants.then(|| live.progress.subscribe());
    let timer = tokio::time::sleep(deadline);
    tokio::pin!(timer);
    let mut cancelled = false;
    loop {
        if let Some(end) = end.borrow_and_update().clone() {
            return Waited::End(end);
        }
        if let Some(fault) = parked.borrow_and_update().clone() {
            return Waited::Parked(fault);
        }
        tokio::select! {
            _ = end.changed() => {}
            _ = parked.changed() => {}
            p = async { match &mut progress {
                Some(progress) => progress.recv().await,
                None => std::future::pending().await,
            } } => if let Ok(p) = p {
                // Progress is a courtesy: a slow reader misses some.
                let _ = call.out.try_send(Out::Progress(p));
            },
            () = cancel.cancelled(), if !cancelled => {
                cancelled = true;
                live.cancel.cancel();
            }
            () = &mut timer => return Waited::TimedOut,
        }
    }
}
