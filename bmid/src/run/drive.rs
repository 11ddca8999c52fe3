//! Drives an intent to its end: forward, over the line, or back. The ordinary path and the one after a crash are this one.
//!
//! A group is what ends together: all parts of an atomic operation, or one part of a bulk one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::{Fault, Kind, Outcome, Part, Phase, Subject};
use bmi::ops::Facts;
use bmi::step::{Fact, Imported, Look, Script, Step, TargetStep, WorkerKind};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::carry::Carry;
use super::hub::{End, Live};
use super::lanes::{Returned, panicked};
use super::{Engine, journal};
use crate::drivers::{Done, DriverError, StepCx};
use crate::store::give_back_memory;

/// Pauses between tries of a step that must succeed in the end; after them it is parked.
const TRIES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1), Duration::from_secs(3)];
/// From so many parts on, what an operation took of memory is given back to the system at its end: a call for a thousand
/// machines takes some 100 MiB for a moment, which the allocator would keep for good.
const LARGE: usize = 64;
/// A parked operation tries again by itself this often.
const PARKED: Duration = Duration::from_secs(30);

/// How a group ended.
enum Ran {
    /// All its steps are done.
    Done(Vec<Imported>),
    /// All its steps are undone.
    Undone(Fault),
    /// Somebody gave it up; what may be left.
    Abandoned(String),
    /// bmid stops: the intent stays open for the next start.
    Stopped,
}

/// Drives `live` from wherever its parts stand. Ends with its claims released and its end told, unless bmid stops.
pub(super) async fn drive(engine: Arc<Engine>, live: Arc<Live>, parts: Vec<Part>, facts: Facts) {
    let atomic = live.intent.atomic || parts.len() <= 1;
    let large = parts.len() >= LARGE;
    let ended = if atomic {
        together(&engine, &live, parts, &facts).await
    } else {
        one_by_one(&engine, &live, parts, &facts).await
    };
    let Some(end) = ended else { return };
    engine.claims.release(live.intent.id);
    engine.hub.remove(live.intent.id);
    if engine.passed_over.swap(false, Ordering::SeqCst) {
        engine.bell.notify_one();
    }
    engine.log_end(&live.intent, end.result.as_ref().map(|_| ()));
    live.end.send_replace(Some(end));
    if large {
        // Nobody waits for it; that it could not be done costs only memory.
        let _ = tokio::task::spawn_blocking(give_back_memory).await;
    }
}

async fn together(engine: &Arc<Engine>, live: &Arc<Live>, mut parts: Vec<Part>, facts: &Facts) -> Option<End> {
    let (ran, undo) = match run_group(engine, live, &mut parts).await {
        Ran::Stopped => return None,
        Ran::Done(imported) => (Ok(imported), None),
        Ran::Undone(fault) => (Err(Outcome::Failed(fault.clone())), Some(fault)),
        Ran::Abandoned(left) => (Err(Outcome::Abandoned(left.clone())), Some(abandoned(&left))),
    };
    let all: Vec<Subject> = parts.iter().flat_map(|p| p.subjects.iter().cloned()).collect();
    let items = end_with(engine, live, |tx, ending| {
        for part in &parts {
            match &ran {
                Ok(imported) => journal::commit_rows(tx, part, imported, ending.now)?,
                Err(_) => journal::restore_rows(tx, part)?,
            }
        }
        let (outcome, subjects) = match &ran {
            Ok(_) => (Outcome::Done { changed: true }, all.clone()),
            Err(outcome) => (outcome.clone(), Vec::new()),
        };
        journal::Ending {
            intent: &live.intent,
            request: &live.request,
            facts,
            subjects,
            outcome,
            now: ending.now,
            event: ending.event,
            settled: true,
        }
        .write(engine, tx)
    })
    .await?;
    Some(End { result: undo.map_or(Ok(true), Err), items: Arc::new(items) })
}

/// Each part goes its own way and ends by itself; the operation ends when the last has.
async fn one_by_one(engine: &Arc<Engine>, live: &Arc<Live>, parts: Vec<Part>, facts: &Facts) -> Option<End> {
    let ended = join_all(parts.into_iter().map(|part| one(engine, live, part))).await;
    let ended: Vec<Part> = ended.into_iter().collect::<Option<_>>()?;
    let done: Vec<Subject> = ended
        .iter()
        .filter(|p| matches!(p.standing.ended, Some(Outcome::Done { .. })))
        .flat_map(|p| p.subjects.clone())
        .collect();
    let failed: Vec<(&Part, &Fault)> = ended
        .iter()
        .filter_map(|p| match &p.standing.ended {
            Some(Outcome::Failed(f)) => Some((p, f)),
            _ => None,
        })
        .collect();
    let fault = failed.first().map(|(_, first)| {
        let mut f = Fault::new(first.kind, format!("{} of {} failed, the others are done", failed.len(), ended.len()))
            .fix("repeat the same command: what is done stays as it is");
        for (part, why) in failed.iter().take(20) {
            f = f.because(format!("{}: {why}", part.subjects.first().map_or("", |s| s.name.as_str())));
        }
        f
    });
    let outcome = fault.clone().map_or(Outcome::Done { changed: true }, Outcome::Failed);
    let items = end_with(engine, live, |tx, ending| {
        journal::Ending {
            intent: &live.intent,
            request: &live.request,
            facts,
            subjects: done.clone(),
            outcome: outcome.clone(),
            now: ending.now,
            event: ending.event,
            settled: true,
        }
        .write(engine, tx)
    })
    .await?;
    Some(End { result: fault.map_or(Ok(true), Err), items: Arc::new(items) })
}

/// One part of a bulk operation, with its own end in the journal.
async fn one(engine: &Arc<Engine>, live: &Arc<Live>, part: Part) -> Option<Part> {
    if part.standing.ended.is_some() {
        return Some(part);
    }
    let mut group = vec![part];
    let ran = run_group(engine, live, &mut group).await;
    let mut part = group.pop()?;
    let outcome = match &ran {
        Ran::Stopped => return None,
        Ran::Done(_) => Outcome::Done { changed: true },
        Ran::Undone(fault) => Outcome::Failed(fault.clone()),
        Ran::Abandoned(left) => Outcome::Failed(abandoned(left)),
    };
    part.standing.ended = Some(outcome);
    loop {
        let written = engine.write("part", |tx| {
            match &ran {
                Ran::Done(imported) => journal::commit_rows(tx, &part, imported, engine.now())?,
                _ => journal::restore_rows(tx, &part)?,
            }
            tx.put_part(&part)
        });
        match written.await {
            Ok(()) => return Some(part),
            Err(fault) => engine.wait_out(live, fault).await?,
        }
    }
}

fn abandoned(left: &str) -> Fault {
    Fault::new(Kind::Cancelled, format!("it was given up: {left}")).fix("`bmictl reconcile` collects what is left")
}

/// What an end needs fresh at every try.
struct Fresh {
    now: bmi::model::Time,
    event: bmi::model::Id,
}

/// Writes an operation's end; tries again while the store has no room for it.
async fn end_with<F>(engine: &Arc<Engine>, live: &Arc<Live>, mut f: F) -> Option<Vec<bmi::ops::Reply>>
where
    F: FnMut(&mut crate::store::Tx<'_>, &Fresh) -> Result<(Vec<bmi::ops::Reply>, bmi::model::Event), Fault>,
{
    loop {
        let fresh = Fresh { now: engine.now(), event: engine.fresh_id() };
        match engine.write("end", |tx| f(tx, &fresh)).await {
            Ok((items, event)) => {
                engine.hub.event(event);
                return Some(items);
            }
            Err(fault) => engine.wait_out(live, fault).await?,
        }
    }
}

/// Takes a group from where it stands to done or undone.
async fn run_group(engine: &Arc<Engine>, live: &Arc<Live>, parts: &mut [Part]) -> Ran {
    let scripts: Vec<Script> = match parts.iter().map(journal::script).collect() {
        Ok(scripts) => scripts,
        // Bytes that cannot be read cannot be undone either: hold the objects until somebody decides.
        Err(fault) => return hold(engine, live, fault).await,
    };
    let mut imported = Vec::new();
    if parts.iter().all(|p| p.standing.phase == Phase::Forward) {
        let tried = join_all(scripts.iter().map(|s| forward(engine, live, s))).await;
        match tried.into_iter().collect::<Result<Vec<_>, Fault>>() {
            Ok(found) => imported = found.into_iter().flatten().collect(),
            Err(_) if engine.is_stopping() => return Ran::Stopped,
            // A call may still run: nothing is undone under it.
            Err(_) if live.abandoned.is_cancelled() => return given_up(scripts.iter().flat_map(Script::steps)),
            Err(fault) => {
                if advance(engine, live, parts, Phase::Unwinding, Some(fault)).await.is_none() {
                    return Ran::Stopped;
                }
            }
        }
    }
    if parts.iter().any(|p| p.standing.phase == Phase::Unwinding) {
        return unwind(engine, live, parts, &scripts).await;
    }
    if scripts.iter().any(|s| !s.forward().is_empty()) {
        if advance(engine, live, parts, Phase::Final, None).await.is_none() {
            return Ran::Stopped;
        }
        let steps: Vec<Vec<Step>> = scripts.iter().flat_map(|s| s.forward().iter().cloned()).collect();
        if let Some(ended) = insist(engine, live, parts, steps, false).await {
            return ended;
        }
    }
    Ran::Done(imported)
}

/// Reversible stages, in order; the first failure ends it.
async fn forward(engine: &Arc<Engine>, live: &Arc<Live>, script: &Script) -> Result<Vec<Imported>, Fault> {
    let mut imported = Vec::new();
    let stages = script.reversible();
    let cancelled = || Fault::new(Kind::Cancelled, "it was cancelled");
    let mut carried: Option<Result<Done, DriverError>> = None;
    for (at, stage) in stages.iter().enumerate() {
        if let (Some(returned), [only]) = (carried.take(), stage.as_slice()) {
            imported.extend(settle(engine, only, returned).await?.imported);
            continue;
        }
        if engine.is_stopping() || live.cancel.is_cancelled() {
            return Err(cancelled());
        }
        if live.is_watched() {
            let what = stage.first().map(|step| engine.called(step)).unwrap_or_default();
            live.tell(what, at as u64, Some(stages.len() as u64), false);
        }
        let next = match stages.get(at + 1).map(Vec::as_slice) {
            Some([only]) => Some((only.clone(), engine.deadline(only))),
            _ => None,
        };
        let carry = Arc::new(Carry::new(stage.len(), next));
        let tried = match stage.as_slice() {
            [only] => vec![carrying(engine, live, only, &carry).await],
            many => join_all(many.iter().map(|s| carrying(engine, live, s, &carry))).await,
        };
        for done in tried {
            imported.extend(done?.imported);
        }
        carried = carry.returned();
    }
    // The line is not crossed yet, so a switch turned during the last steps counts too.
    if live.cancel.is_cancelled() { Err(cancelled()) } else { Ok(imported) }
}

/// Every step taken back, last first; errors do not stop it, and it is tried until there are none.
async fn unwind(engine: &Arc<Engine>, live: &Arc<Live>, parts: &mut [Part], scripts: &[Script]) -> Ran {
    let reason = parts
        .iter()
        .find_map(|p| p.standing.fault.clone())
        .unwrap_or_else(|| Fault::internal("it unwinds without a reason"));
    let steps: Vec<Vec<Step>> = scripts
        .iter()
        .flat_map(|s| s.reversible().iter().rev().map(|stage| stage.iter().filter_map(Step::inverse).collect()))
        .collect();
    match insist(engine, live, parts, steps, true).await {
        Some(ended) => ended,
        None => Ran::Undone(reason),
    }
}

/// Steps that must succeed in the end. `None`: they have. Where it undoes, a thing that is not there needs no undoing: a
/// tgtd that went down with the host has no target any more, and reconcile makes it once its node is free.
async fn insist(
    engine: &Arc<Engine>,
    live: &Arc<Live>,
    parts: &mut [Part],
    stages: Vec<Vec<Step>>,
    undoes: bool,
) -> Option<Ran> {
    let mut left: Vec<Step> = stages.into_iter().flatten().collect();
    let mut tries = TRIES.iter();
    loop {
        let mut failed = Vec::new();
        let mut faults: Vec<Fault> = Vec::new();
        for s in left {
            if engine.is_stopping() {
                return Some(Ran::Stopped);
            }
            match step(engine, live, &s).await {
                Ok(_) => {}
                Err(fault) if undoes && fault.kind == Kind::NotFound => {}
                Err(fault) => {
                    faults.push(fault);
                    failed.push(s);
                }
            }
        }
        let first = faults.first().cloned()?;
        left = failed;
        if live.abandoned.is_cancelled() {
            return Some(given_up(left.iter()));
        }
        let fault = faults.iter().skip(1).fold(first, |f, more| f.because(more.to_string()));
        match tries.next() {
            Some(pause) => tokio::time::sleep(*pause).await,
            None => match park(engine, live, parts, fault).await {
                Parked::Again => tries = TRIES.iter(),
                Parked::Stopped => return Some(Ran::Stopped),
                Parked::Abandoned => return Some(given_up(left.iter())),
            },
        }
    }
}

/// Given up, with the steps whose outcome nobody knows.
fn given_up<'a>(steps: impl Iterator<Item = &'a Step>) -> Ran {
    Ran::Abandoned(format!("left as it is: {}", steps.map(Step::describe).collect::<Vec<_>>().join(", ")))
}

enum Parked {
    Again,
    Abandoned,
    Stopped,
}

/// Waits until somebody or time has it go on. Those who wait for the operation are told.
async fn park(engine: &Engine, live: &Live, parts: &[Part], fault: Fault) -> Parked {
    tracing::warn!(operation = %live.intent.id, method = %live.intent.method, "operation parked: {fault}");
    for part in parts {
        let mut shown = part.clone();
        // Only shown, not stored: after a restart it is tried again anyway.
        let _ = journal::advance(&mut shown, Phase::Parked, Some(fault.clone()));
        live.note(part.index, &shown.standing);
    }
    live.parked.send_replace(Some(fault));
    let ended = tokio::select! {
        () = live.retry.notified() => Parked::Again,
        () = live.abandoned.cancelled() => Parked::Abandoned,
        () = engine.stopping.cancelled() => Parked::Stopped,
        () = tokio::time::sleep(PARKED) => Parked::Again,
    };
    live.parked.send_replace(None);
    for part in parts {
        live.note(part.index, &part.standing);
    }
    ended
}

/// Holds an operation that cannot be read until somebody gives it up.
async fn hold(engine: &Engine, live: &Live, fault: Fault) -> Ran {
    loop {
        match park(engine, live, &[], fault.clone()).await {
            Parked::Again => {}
            Parked::Stopped => return Ran::Stopped,
            Parked::Abandoned => return Ran::Abandoned("its journal could not be read".to_owned()),
        }
    }
}

/// Moves all parts of a group, durably. `None`: bmid stops.
async fn advance(
    engine: &Arc<Engine>,
    live: &Arc<Live>,
    parts: &mut [Part],
    phase: Phase,
    fault: Option<Fault>,
) -> Option<()> {
    for part in parts.iter_mut() {
        if let Err(defect) = journal::advance(part, phase, fault.clone()) {
            tracing::error!(operation = %live.intent.id, "{defect}");
        }
        live.note(part.index, &part.standing);
    }
    let step = if phase == Phase::Unwinding { "unwind" } else { "final" };
    loop {
        let written = engine.write(step, |tx| parts.iter().try_for_each(|p| tx.put_part(p)));
        match written.await {
            Ok(()) => return Some(()),
            Err(fault) => engine.wait_out(live, fault).await?,
        }
    }
}

/// One step on its lane. A call that is late keeps the operation parked until it really returns.
async fn step(engine: &Arc<Engine>, live: &Arc<Live>, step: &Step) -> Result<Done, Fault> {
    carrying(engine, live, step, &Arc::new(Carry::new(1, None))).await
}

/// One step on its lane, that may carry on with the next stage's.
async fn carrying(engine: &Arc<Engine>, live: &Arc<Live>, step: &Step, carry: &Arc<Carry>) -> Result<Done, Fault> {
    let deadline = engine.deadline(step);
    let (drivers, of, what) = (Arc::clone(&engine.drivers), Arc::clone(live), step.clone());
    let namer = Arc::clone(engine);
    let (stopping, lanes, on) = (engine.stopping.clone(), engine.lanes.clone(), Arc::clone(carry));
    let call = move |place| {
        let cancelled = || of.cancel.is_cancelled() || stopping.is_cancelled();
        let apply = |what: &Step| {
            let called = std::sync::OnceLock::new();
            let progress = |done, total| {
                if of.is_watched() {
                    of.tell(called.get_or_init(|| namer.called(what)).clone(), done, total, true);
                }
            };
            let cx = StepCx { input: of.files.first().map(AsRef::as_ref), progress: &progress, cancelled: &cancelled };
            drivers.apply(what, &cx)
        };
        let returned = apply(&what);
        if returned.is_ok() {
            // Nothing is begun for an operation that was given up meanwhile.
            on.done(place, &lanes, || !cancelled() && !of.abandoned.is_cancelled(), apply);
        }
        returned
    };
    let returned = match engine.lanes.run_on(step.lane(), deadline, || carry.since(), call).await? {
        Returned::InTime(done) => done,
        Returned::Late(mut handle) => {
            let running = carry.running().unwrap_or(step);
            engine.sight.doubt(running.lane());
            let what = running.describe();
            let seconds = carry.since().map_or(deadline, |(_, limit)| limit).as_secs();
            let why = Fault::new(Kind::Timeout, format!("it has not returned within {seconds} s and is not sure yet"))
                .trying(what.clone())
                .fix(format!("`bmictl op show {}` tells how it goes on", live.intent.id));
            live.parked.send_replace(Some(why));
            let late = tokio::select! {
                late = &mut handle => late.map_err(panicked),
                () = live.abandoned.cancelled() => {
                    engine.tasks.spawn(returned_late(Arc::clone(engine), Arc::clone(live), what, handle));
                    Err(Fault::new(Kind::Cancelled, "it was given up while a call had not returned"))
                }
            };
            live.parked.send_replace(None);
            late?
        }
    };
    settle(engine, step, returned).await
}

/// What a step returned, where what it takes away may have gone by itself.
async fn settle(engine: &Engine, step: &Step, returned: Result<Done, DriverError>) -> Result<Done, Fault> {
    let returned = returned.inspect_err(|_| engine.sight.doubt(step.lane()));
    match returned {
        Err(e) if e.kind == Kind::Unavailable && went_with_its_tgtd(engine, step).await => Ok(Done::ALREADY),
        returned => returned.map_err(|e| engine.named(step.lane(), Fault::from(e))),
    }
}

/// A call of an operation that was given up has returned at last: what it did, or undid, is looked at then, by somebody's
/// reconcile where it has to be removed.
async fn returned_late(
    engine: Arc<Engine>,
    live: Arc<Live>,
    what: String,
    handle: JoinHandle<Result<Done, DriverError>>,
) {
    let returned = tokio::select! {
        returned = handle => returned,
        () = engine.stopping.cancelled() => return,
    };
    let how = match returned {
        Ok(Ok(_)) => "it was done".to_owned(),
        Ok(Err(e)) => format!("it failed: {}", Fault::from(e)),
        Err(defect) => panicked(defect).to_string(),
    };
    let (id, method) = (live.intent.id, &live.intent.method);
    let message = format!(
        "a call of {method} {id}, which was given up, has returned: {what}: {how}; `bmictl reconcile` collects what it left"
    );
    tracing::warn!(operation = %id, "{message}");
    engine.noticed("op.late", message).await;
    engine.bell.notify_one();
}

/// Whether what the step takes away is gone because the tgtd that had it in memory is no process any more. One that is
/// there and does not answer may still serve it.
async fn went_with_its_tgtd(engine: &Engine, step: &Step) -> bool {
    let Step::Target(taken @ (TargetStep::DropTarget(_) | TargetStep::ClosePortal(_))) = step else { return false };
    let (_, fact) = engine.sight.ask(Look::Workers(taken.network()), super::sight::CHANGE).await;
    let Fact::Workers(workers) = fact else { return false };
    workers.iter().any(|w| w.kind == WorkerKind::Tgtd && w.pid == 0)
}
