//! Submit, drive, recover, reconcile: the only place that knows both the store and the drivers.
//!
//! The way of an operation: right, look, plan, intent durable, steps, rows and end of intent durable, answer. Nothing
//! outside changes before its intent is durable; nothing is answered before its rows are.

pub mod call;
mod carry;
mod change;
mod claims;
mod control;
mod drive;
mod dumps;
mod hub;
mod journal;
mod lanes;
mod links;
mod names;
mod reconcile;
mod secret;
mod sight;
mod start;
mod watch;

pub use call::{Cancel, Out, Submission};
pub use start::{Config, default_datastore};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmi::model::{Fault, Id, Intent, Kind, Sealed, Time};
use bmi::ops::{Answering, Asking, Defaults, Effect, Facts};
use bmi::protocol::Ended;
use bmi::rules::rights;
use bmi::step::{Look, Step};
use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::drivers::DriverSet;
use crate::store::{Store, Ticket, Tx};

/// Seals a secret under bmid's key.
pub type Seal = Box<dyn Fn(&str) -> Sealed + Send + Sync>;

/// The running engine.
pub struct Engine {
    store: Store,
    drivers: Arc<DriverSet>,
    defaults: Defaults,
    seal: Seal,
    claims: claims::Claims,
    lanes: lanes::Lanes,
    sight: Arc<sight::Sight>,
    hub: hub::Hub,
    /// Rings when the outside may differ from the rows. It carries no facts.
    bell: Notify,
    stopping: Cancel,
    /// Seconds.
    reconcile_every: AtomicU64,
    /// A reconcile passed over an object because an operation held it: it looks again when one ends.
    passed_over: AtomicBool,
    /// One reconcile at a time.
    reconciling: tokio::sync::Mutex<()>,
    back_off: Mutex<reconcile::BackOff>,
    /// Turned when what a first start makes is there, or could not be made.
    first_start: Cancel,
    /// Milliseconds after which a call is late; 0: as its step says.
    late_after: AtomicU64,
    /// How many writes there were, and how many of them the newest dump may hold.
    written: AtomicU64,
    dumped: AtomicU64,
    /// Why the last dump failed, if it did.
    undumped: Mutex<Option<Fault>>,
    /// What runs until bmid stops.
    tasks: tokio_util::task::TaskTracker,
}

impl Engine {
    /// Takes a request in. The answer goes to its `out`; the switch ends it.
    pub fn submit(self: &Arc<Engine>, call: Submission) -> Cancel {
        let cancel = Cancel::default();
        let (engine, switch) = (Arc::clone(self), cancel.clone());
        tokio::spawn(async move {
            let out = call.out.clone();
            let command = call.request.doing();
            let end = engine.serve(call, switch).await.map_err(|f| f.trying(command));
            // The reader may have gone; what was done is done.
            let _ = out.send(Out::End(end)).await;
        });
        cancel
    }

    async fn serve(self: &Arc<Engine>, mut call: Submission, cancel: Cancel) -> Result<Ended, Fault> {
        call.caller = rights::acting(call.caller, call.envelope.project.take())?;
        if self.is_stopping() {
            return Err(Fault::new(Kind::Unavailable, "bmid stops").fix("ask again when it runs again"));
        }
        let sheet = call.request.sheet();
        rights::judge(&call.caller, sheet.right, &sheet.command())?;
        self.after_first_start(&mut call).await?;
        match sheet.effect {
            Effect::Read => self.read(&call).await,
            Effect::Change => self.change(call, cancel).await,
            Effect::Control => self.control(call, cancel).await,
        }
    }

    /// Answers from rows and facts.
    async fn read(self: &Arc<Engine>, call: &Submission) -> Result<Ended, Fault> {
        let facts = self.facts(call, false).await?;
        let mut items = self.store.read(|view| {
            call.request.answer(&Answering {
                view,
                caller: &call.caller,
                facts: &facts,
                subjects: &[],
                defaults: &self.defaults,
                now: self.now(),
            })
        })?;
        self.tell_parked(&mut items);
        // Rows that were seen may not be durable yet; an answer must not know more than a restart would.
        durable(self.store.settled()).await?;
        for item in items {
            if call.out.send(Out::Item(Box::new(item))).await.is_err() {
                break;
            }
        }
        Ok(Ended { op_id: None, changed: false, running: false })
    }

    /// The facts a request asks for, all questions side by side; `lately`: what was seen a moment ago will do.
    async fn facts(&self, call: &Submission, lately: bool) -> Result<Facts, Fault> {
        let looks = self
            .store
            .read(|view| call.request.looks(&Asking { view, caller: &call.caller, defaults: &self.defaults }))?;
        let looking = async {
            match call.request.sheet().effect {
                Effect::Read => self.look(looks, sight::LISTING).await,
                _ if lately => {
                    Facts(join_all(looks.into_iter().map(|l| self.sight.ask_lately(l, sight::CHANGE))).await)
                }
                Effect::Change | Effect::Control => self.look(looks, sight::CHANGE).await,
            }
        };
        let Some(ms) = call.envelope.timeout_ms else { return Ok(looking.await) };
        tokio::time::timeout(Duration::from_millis(ms), looking).await.map_err(|_| {
            Fault::new(Kind::Timeout, "the host did not answer in the time given; nothing was begun")
                .fix("`bmictl status` says what does not answer; a longer --timeout waits for it")
        })
    }

    async fn look(&self, looks: Vec<Look>, patience: Duration) -> Facts {
        Facts(join_all(looks.into_iter().map(|l| self.sight.ask(l, patience))).await)
    }

    /// A transaction, durable when this returns. `step` names it for a simulated world's script.
    async fn write<T>(&self, step: &str, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let (out, ticket) = self.store.write(f)?;
        self.written.fetch_add(1, Ordering::SeqCst);
        self.journal_point(step, "applied")?;
        durable(ticket).await?;
        self.journal_point(step, "durable")?;
        Ok(out)
    }

    /// Passes a point of the journal. A failure that a simulated world's script has there is the store's: nobody knows
    /// what of the write is on disk.
    fn journal_point(&self, step: &str, when: &str) -> Result<(), Fault> {
        self.drivers.cut("journal", step, when).map_err(|e| {
            let fault = Fault::from(e);
            self.store.fail(fault.clone());
            fault
        })
    }

    /// The store had no room or has failed: those who wait are told, and it is tried again. `None`: bmid stops.
    async fn wait_out(&self, live: &hub::Live, fault: Fault) -> Option<()> {
        tracing::error!(operation = %live.intent.id, "the journal cannot be written: {fault}");
        live.parked.send_replace(Some(fault));
        tokio::select! {
            () = self.stopping.cancelled() => None,
            () = tokio::time::sleep(Duration::from_secs(2)) => {
                live.parked.send_replace(None);
                Some(())
            }
        }
    }

    /// One line in the log for an ended operation, with the fields that a journal is searched by.
    fn log_end(&self, intent: &Intent, result: Result<(), &Fault>) {
        let took_ms = self.now().0.saturating_sub(intent.started_at.0) / 1_000;
        let object = intent.subjects.first().map(|s| s.id.to_string()).unwrap_or_default();
        let name = intent.subjects.first().map_or("", |s| s.name.as_str());
        let (operation, method, caller) = (intent.id, intent.method.as_str(), intent.caller.name.as_str());
        match result {
            Ok(()) => tracing::info!(%operation, method, object, caller, took_ms, "{method} {name}: done"),
            Err(fault) => tracing::warn!(%operation, method, object, caller, took_ms, "{method} {name}: {fault}"),
        }
    }

    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn fresh_id(&self) -> Id {
        let mut b = [0u8; 16];
        random(&mut b);
        Id::from_random(b)
    }

    /// How long a step's call may take before it is late.
    fn deadline(&self, step: &Step) -> Duration {
        match self.late_after.load(Ordering::Relaxed) {
            0 => Duration::from_secs(step.deadline_seconds()),
            ms => Duration::from_millis(ms),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

/// Fills `b` from the kernel's generator.
fn random(b: &mut [u8]) {
    // The kernel's generator cannot fail once the host has booted; going on without it would make guessable ids and secrets.
    #[allow(clippy::expect_used, reason = "see above")]
    getrandom::fill(b).expect("the kernel's random number generator answers");
}

/// Waits until a commit is durable.
async fn durable(mut ticket: Ticket) -> Result<(), Fault> {
    if ticket.settle() {
        return Ok(());
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    ticket.on_durable(Box::new(move |done| {
        // Nobody waits any more when the engine was dropped.
        let _ = tell.send(done);
    }));
    told.await.unwrap_or_else(|_| Err(Fault::internal("the store was closed before a commit was durable")))
}
