//! Control operations: the journal, watches, the store itself, export, reconcile.

use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::{Answer, Fault, Format, Id, Intent, Kind, Outcome, Part, Phase, Server, Standing, ViewExt};
use bmi::ops::event::{EventLs, EventView};
use bmi::ops::image::export::ImageExport;
use bmi::ops::operation::OpView;
use bmi::ops::state::{Problem, StateDone};
use bmi::ops::{Reply, Request, image};
use bmi::protocol::Ended;
use bmi::rules::wanted;
use bmi::step::{Backing, Export, Step, UnmakeStore};

use super::call::{Cancel, Out, Submission};
use super::change::{Waited, send, wait_end};
use super::lanes::Returned;
use super::reconcile::Pass;
use super::{Engine, journal};
use crate::drivers::StepCx;
use crate::store::EventFilter;

impl Engine {
    pub(super) async fn control(self: &Arc<Engine>, mut call: Submission, cancel: Cancel) -> Result<Ended, Fault> {
        let request = call.request.clone();
        let mut changed = false;
        let items: Vec<Reply> = match &request {
            Request::OpLs(op) => self.operations(op.all)?.into_iter().map(Reply::OpLs).collect(),
            Request::OpShow(op) => vec![Reply::OpShow(self.operation(op.id)?)],
            Request::OpWatch(op) => vec![Reply::OpWatch(self.op_watch(op.id, &call, &cancel).await?)],
            Request::OpCancel(_) | Request::OpRetry(_) | Request::OpAbandon(_) => {
                changed = true;
                vec![self.steer(&request, &call).await?]
            }
            Request::EventLs(op) => self.events(op)?.into_iter().map(Reply::EventLs).collect(),
            Request::EventWatch(_) => return self.event_watch(&call, &cancel).await,
            Request::StateDump(_) => vec![Reply::StateDump(self.dump(&mut call).await?)],
            Request::StateRestore(_) => {
                changed = true;
                vec![Reply::StateRestore(self.restore(&mut call).await?)]
            }
            Request::StateCheck(_) => {
                self.check()?.into_iter().map(|problem| Reply::StateCheck(Problem { problem })).collect()
            }
            Request::ImageExport(op) => vec![Reply::ImageExport(self.export(op, &mut call, &cancel).await?)],
            Request::Reconcile(_) => {
                let repairs = self.reconcile(if call.envelope.check { Pass::Check } else { Pass::Asked }).await?;
                changed = repairs.iter().any(|r| r.outcome == "done" || r.outcome == "proposed");
                repairs.into_iter().map(Reply::Reconcile).collect()
            }
            other => return Err(Fault::internal(format!("{} is no control operation", other.sheet().command()))),
        };
        send(&call, items).await;
        Ok(Ended { op_id: None, changed, running: false })
    }

    /// `op cancel`, `op retry` and `op abandon`. With `--check` it is only found out whether they could be carried out.
    async fn steer(&self, request: &Request, call: &Submission) -> Result<Reply, Fault> {
        let (id, show): (Id, fn(OpView) -> Reply) = match request {
            Request::OpCancel(op) => (op.id, Reply::OpCancel),
            Request::OpRetry(op) => (op.id, Reply::OpRetry),
            Request::OpAbandon(op) => (op.id, Reply::OpAbandon),
            other => return Err(Fault::internal(format!("{} steers no operation", other.sheet().command()))),
        };
        let live = self.live(id)?;
        if matches!(request, Request::OpAbandon(_)) && live.parked.borrow().is_none() {
            return Err(Fault::conflict(format!("operation {id} is not parked: it goes on"))
                .fix("`bmictl op cancel` has it undone"));
        }
        if call.envelope.check {
            return self.operation(id).map(show);
        }
        match request {
            Request::OpCancel(_) => live.cancel.cancel(),
            Request::OpRetry(_) => live.retry.notify_one(),
            _ => live.abandoned.cancel(),
        }
        self.settle(id, call).await.map(show)
    }

    /// Has `status` name what is parked: rows do not tell, and its objects are busy until it goes on.
    pub(super) fn tell_parked(&self, items: &mut [Reply]) {
        for item in items {
            let Reply::Status(status) = item else { continue };
            if let Some(fault) = self.dump_problem() {
                status.problems.push(format!("no dumps are written: {fault}"));
                status.healthy = false;
            }
            for live in self.hub.all() {
                let Some(fault) = live.parked.borrow().clone() else { continue };
                let on = live.intent.subjects.first().map_or("", |s| s.name.as_str());
                let (id, method) = (live.intent.id, &live.intent.method);
                status.problems.push(format!("operation {id} ({method} {on}) is parked: {fault}"));
                status.healthy = false;
            }
        }
    }

    fn live(&self, id: Id) -> Result<Arc<super::hub::Live>, Fault> {
        self.hub.get(id).ok_or_else(|| match self.store.answer(id) {
            Ok(Some(_)) => Fault::conflict(format!("operation {id} has ended already"))
                .fix(format!("`bmictl op show {id}` tells how")),
            _ => Fault::not_found("op", id),
        })
    }

    fn operations(&self, all: bool) -> Result<Vec<OpView>, Fault> {
        let mut out: Vec<OpView> = self.hub.all().iter().map(|l| live_view(&l.intent, &standing(l))).collect();
        if all {
            let mut ended: Vec<OpView> = self.store.answers()?.into_iter().map(ended_view).collect();
            ended.sort_by_key(|o| o.started_at);
            ended.append(&mut out);
            out = ended;
        }
        Ok(out)
    }

    fn operation(&self, id: Id) -> Result<OpView, Fault> {
        if let Some(live) = self.hub.get(id) {
            return Ok(live_view(&live.intent, &standing(&live)));
        }
        self.store.answer(id)?.map(ended_view).ok_or_else(|| Fault::not_found("op", id))
    }

    async fn op_watch(&self, id: Id, call: &Submission, cancel: &Cancel) -> Result<OpView, Fault> {
        if let Some(live) = self.hub.get(id) {
            // Looking on must not end it: the watcher's own switch only ends the watching.
            let never = Cancel::default();
            tokio::select! {
                waited = wait_end(&live, call, &never) => if let Waited::TimedOut = waited {
                    return Err(Fault::new(Kind::Timeout, "it has not ended in the time given; it goes on"));
                },
                () = cancel.cancelled() => {}
            }
        }
        self.operation(id)
    }

    /// Gives an operation a moment to react, and shows it.
    async fn settle(&self, id: Id, call: &Submission) -> Result<OpView, Fault> {
        if let Some(live) = self.hub.get(id) {
            let mut end = live.end.subscribe();
            let wait = Duration::from_millis(call.envelope.timeout_ms.unwrap_or(5_000).min(60_000));
            // Not ended by then is fine: the view says so.
            let _ = tokio::time::timeout(wait, end.wait_for(Option::is_some)).await;
        }
        self.operation(id)
    }

    fn events(&self, op: &EventLs) -> Result<Vec<EventView>, Fault> {
        let filter = EventFilter { after: op.since, limit: op.limit.min(100_000) as usize, newest_last: true };
        Ok(self.store.events(filter)?.into_iter().map(EventView::from).collect())
    }

    async fn event_watch(&self, call: &Submission, cancel: &Cancel) -> Result<Ended, Fault> {
        use tokio::sync::broadcast::error::RecvError;
        let mut events = self.hub.events();
        loop {
            let next = tokio::select! {
                next = events.recv() => next,
                () = cancel.cancelled() => break,
                () = self.stopping.cancelled() => break,
                () = call.out.closed() => break,
            };
            let piece = match next {
                Ok(event) => Out::Item(Box::new(Reply::EventWatch(event.into()))),
                Err(RecvError::Lagged(missed)) => Out::Gap(missed),
                Err(RecvError::Closed) => break,
            };
            if call.out.send(piece).await.is_err() {
                break;
            }
        }
        Ok(Ended { op_id: None, changed: false, running: false })
    }

    async fn dump(&self, call: &mut Submission) -> Result<StateDone, Fault> {
        let file = file(call)?;
        let store = self.store.clone();
        blocking(move || {
            let mut out = BufWriter::new(&file);
            let rows = store.dump(&mut out)?;
            std::io::Write::flush(&mut out)
                .map_err(|e| Fault::new(Kind::Outside, format!("the dump could not be written: {e}")))?;
            drop(out);
            // A pipe has nothing to sync; a file that cannot be synced was still written.
            let _ = file.sync_all();
            Ok(StateDone { rows })
        })
        .await
    }

    async fn restore(self: &Arc<Engine>, call: &mut Submission) -> Result<StateDone, Fault> {
        let file = file(call)?;
        let store = self.store.clone();
        if call.envelope.check {
            return blocking(move || Ok(StateDone { rows: store.survey_file(&file)? })).await;
        }
        let before = self.store.read(|view| view.live::<Server>())?;
        // No pass may compare the outside with rows that are being exchanged.
        let still = self.reconciling.lock().await;
        let done = blocking(move || {
            let rows = store.restore_file(&file)?;
            Ok(StateDone { rows })
        })
        .await?;
        drop(still);
        self.written.fetch_add(1, Ordering::SeqCst);
        for server in before {
            self.unmake_replaced(&server).await;
        }
        self.journal_point("restore", "durable")?;
        // What was open when the dump was taken goes on here.
        self.go_on(self.put_claims_back()?);
        self.bell.notify_one();
        Ok(done)
    }

    /// The default datastore of the first start gives its folder up, so that the restored one finds its own or none.
    async fn unmake_replaced(&self, server: &Server) {
        let replaced = self.store.read(|view| Ok(view.get::<Server>(server.id)?.is_none())).unwrap_or(false);
        let (true, Some(place)) = (replaced, server.place.clone()) else { return };
        if let Err(fault) = self.apply_now(&UnmakeStore { datastore: server.id, place }.into()).await {
            tracing::warn!("the replaced datastore {} keeps its folder: {fault}", server.name);
        }
    }

    fn check(&self) -> Result<Vec<String>, Fault> {
        self.store.check()
    }

    async fn export(
        &self,
        op: &ImageExport,
        call: &mut Submission,
        cancel: &Cancel,
    ) -> Result<image::ImageView, Fault> {
        if !matches!(op.format, Format::Raw | Format::Qcow2) {
            return Err(Fault::invalid(format!("{} cannot be written", op.format)).fix("use raw or qcow2"));
        }
        let file = file(call)?;
        let (image, place) = self.store.read(|view| {
            let image = image::usable(view, &call.caller.project, &op.image)?;
            let place = wanted::place(view, image.datastore)?;
            Ok((image, place))
        })?;
        let id = self.fresh_id();
        self.claims.take(id, "image.export", &[], &[image.id, image.datastore])?;
        let step =
            Step::from(Export { datastore: image.datastore, place, what: Backing::image(image.id), format: op.format });
        let (drivers, switch, lane) = (Arc::clone(&self.drivers), cancel.clone(), step.lane());
        let out = call.out.clone();
        let done = self
            .lanes
            .run(lane, Duration::from_secs(24 * 3_600), move || {
                let progress = |done, total| {
                    let p = bmi::protocol::Progress {
                        op_id: id,
                        what: "write the image out".to_owned(),
                        done,
                        total,
                        bytes: true,
                    };
                    let _ = out.try_send(Out::Progress(p));
                };
                let cancelled = || switch.is_cancelled();
                drivers.apply(&step, &StepCx { input: Some(&file), progress: &progress, cancelled: &cancelled })
            })
            .await;
        self.claims.release(id);
        match done? {
            Returned::InTime(done) => done?,
            Returned::Late(_) => return Err(Fault::new(Kind::Timeout, "writing the image out took longer than a day")),
        };
        self.store.read(|view| image::view_of(view, &image))
    }
}

fn standing(live: &super::hub::Live) -> Vec<Standing> {
    live.standing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

fn live_view(intent: &Intent, parts: &[Standing]) -> OpView {
    let worst = parts.iter().filter(|p| p.ended.is_none()).map(|p| p.phase).max_by_key(|p| match p {
        Phase::Forward => 0,
        Phase::Final => 1,
        Phase::Unwinding => 2,
        Phase::Parked => 3,
    });
    OpView {
        id: intent.id,
        method: intent.method.clone(),
        state: format!("{:?}", worst.unwrap_or(Phase::Forward)).to_lowercase(),
        caller: intent.caller.name.clone(),
        subjects: intent.subjects.clone(),
        started_at: intent.started_at,
        ended_at: None,
        parts: intent.parts,
        open_parts: u32::try_from(parts.iter().filter(|p| p.ended.is_none()).count()).unwrap_or(u32::MAX),
        changed: None,
        fault: parts.iter().find_map(|p| p.fault.clone()),
    }
}

fn ended_view(answer: Answer) -> OpView {
    let (state, changed, fault) = match answer.outcome {
        Outcome::Done { changed } => ("done", Some(changed), None),
        Outcome::Failed(fault) => ("failed", None, Some(fault)),
        Outcome::Abandoned(left) => ("abandoned", None, Some(Fault::new(Kind::Cancelled, left))),
    };
    OpView {
        id: answer.id,
        method: answer.method,
        state: state.to_owned(),
        caller: answer.caller.name,
        subjects: answer.subjects,
        started_at: answer.started_at,
        ended_at: Some(answer.ended_at),
        parts: 0,
        open_parts: 0,
        changed,
        fault,
    }
}

/// The parts of an intent that are still open, with what they say of themselves.
pub(super) fn standings(parts: &[Part]) -> Vec<Standing> {
    parts.iter().map(|p| p.standing.clone()).collect()
}

/// The one descriptor a control operation came with.
fn file(call: &mut Submission) -> Result<std::fs::File, Fault> {
    if call.files.is_empty() {
        return Err(
            Fault::invalid("no descriptor came with the request").fix("use bmictl: it opens the file and passes it")
        );
    }
    Ok(call.files.remove(0))
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(f).await.map_err(super::lanes::panicked)?
}

/// What an intent asked for, as it was sent.
pub(super) fn request(intent: &Intent) -> Result<Request, Fault> {
    journal::decode(&intent.request)
}
