//! Start and stop: claims first, then the outside's ground, then the open intents go on, then everything that runs by itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmi::model::{Caller, Fault, Kind, Name, Ref, Server, View};
use bmi::ops::args::HostPath;
use bmi::ops::datastore::create::{DatastoreCreate, DatastoreKind};
use bmi::ops::{Defaults, Effect, Facts, Request, Right};
use bmi::protocol::Envelope;

use super::call::{Cancel, Submission};
use super::hub::Live;
use super::{Engine, Seal, claims, control, drive, hub, lanes, sight};
use crate::drivers::DriverSet;
use crate::store::Store;

/// Requests wait at most so long for what a first start makes.
const FIRST_START: Duration = Duration::from_secs(10);
/// A stop takes at most so long.
const STOP: Duration = Duration::from_secs(5);

/// What an engine is started with.
pub struct Config {
    /// The open store.
    pub store: Store,
    /// The outside.
    pub drivers: Arc<DriverSet>,
    /// What plans need of the configuration.
    pub defaults: Defaults,
    /// Seals secrets.
    pub seal: Seal,
    /// Reconcile at least this often.
    pub reconcile_every: Duration,
    /// At first start a datastore `default` is made here; none: no datastore is made.
    pub default_datastore: Option<PathBuf>,
}

impl Engine {
    /// Puts claims back from the journal and begins. The socket may be opened when this returns: recovery and the first
    /// reconcile go on beside it.
    pub fn start(config: Config) -> Result<Arc<Engine>, Fault> {
        Engine::start_with(config, true)
    }

    /// The same, but it reconciles only when asked: for tests that look at what recovery alone leaves.
    #[doc(hidden)]
    pub fn start_unreconciled(config: Config) -> Result<Arc<Engine>, Fault> {
        Engine::start_with(config, false)
    }

    fn start_with(config: Config, reconcile: bool) -> Result<Arc<Engine>, Fault> {
        let sight = sight::Sight::new(Arc::clone(&config.drivers));
        let engine = Arc::new(Engine {
            store: config.store,
            drivers: config.drivers,
            defaults: config.defaults,
            seal: config.seal,
            claims: claims::Claims::default(),
            lanes: lanes::Lanes::default(),
            sight,
            hub: hub::Hub::default(),
            bell: tokio::sync::Notify::new(),
            stopping: Cancel::default(),
            passed_over: AtomicBool::new(false),
            reconcile_every: AtomicU64::new(config.reconcile_every.as_secs()),
            reconciling: tokio::sync::Mutex::new(()),
            back_off: Mutex::default(),
            first_start: Cancel::default(),
            late_after: AtomicU64::new(0),
            // What an earlier bmid wrote may stand in no dump.
            written: AtomicU64::new(1),
            dumped: AtomicU64::new(0),
            undumped: Mutex::default(),
            tasks: tokio_util::task::TaskTracker::new(),
        });
        let open = engine.put_claims_back()?;
        match config.default_datastore.filter(|_| !engine.has_default_datastore()) {
            Some(path) => drop(engine.tasks.spawn(Arc::clone(&engine).make_default_datastore(path))),
            None => engine.first_start.cancel(),
        }
        engine.tasks.spawn(Arc::clone(&engine).begin_work(open, reconcile));
        Ok(engine)
    }

    /// Every open intent holds its objects again before anybody can ask for them.
    pub(super) fn put_claims_back(&self) -> Result<Vec<Arc<Live>>, Fault> {
        let mut open = Vec::new();
        for intent in self.store.intents()? {
            self.claims.take(intent.id, &intent.method, &intent.changes, &intent.uses)?;
            let parts = self.store.parts(intent.id)?;
            let request = match control::request(&intent) {
                Ok(request) => request,
                // Its objects stay held, everything else is served: one bad record must not stop the start.
                Err(fault) => {
                    tracing::error!(operation = %intent.id, method = intent.method, "operation cannot go on and holds its objects: {fault}");
                    continue;
                }
            };
            let live = Arc::new(Live::new(intent, request, Vec::new(), control::standings(&parts)));
            self.hub.add(Arc::clone(&live));
            open.push(live);
        }
        Ok(open)
    }

    async fn begin_work(self: Arc<Engine>, open: Vec<Arc<Live>>, reconcile: bool) {
        self.tasks.spawn(Arc::clone(&self).tell_deaths());
        // The ground first: an operation that was interrupted by the host's restart needs its tgtd and its datastore again.
        if reconcile && let Err(fault) = self.reconcile(super::reconcile::Pass::ByItself).await {
            tracing::warn!("the first reconcile could not look: {fault}");
        }
        self.go_on(open);
        if reconcile {
            self.tasks.spawn(Arc::clone(&self).keep_reconciled());
        }
        self.tasks.spawn(Arc::clone(&self).tell_links());
        self.tasks.spawn(Arc::clone(&self).look_after_workers());
        self.tasks.spawn(Arc::clone(&self).keep_house());
        self.tasks.spawn(Arc::clone(&self).keep_dumps());
    }

    /// Waits for what a first start makes, if the request may be about it: whoever asks as soon as the socket is there
    /// finds the datastore `default` in use. A host on which it hangs is served without it after a while.
    pub(super) async fn after_first_start(&self, call: &mut Submission) -> Result<(), Fault> {
        let sheet = call.request.sheet();
        let waits = match sheet.effect {
            Effect::Change => true,
            Effect::Read => sheet.right == Right::Member,
            Effect::Control => matches!(call.request, Request::StateRestore(_)),
        };
        if !waits || self.first_start.is_cancelled() {
            return Ok(());
        }
        let began = tokio::time::Instant::now();
        let given = call.envelope.timeout_ms.map(Duration::from_millis);
        tokio::select! {
            () = self.first_start.cancelled() => {}
            () = self.stopping.cancelled() => {}
            () = tokio::time::sleep(given.unwrap_or(FIRST_START).min(FIRST_START)) => {
                if given.is_some_and(|given| given < FIRST_START) {
                    return Err(Fault::new(Kind::Timeout, "bmid is still making its first datastore; nothing was begun")
                        .fix("ask again in a moment, or give a longer --timeout"));
                }
            }
        }
        call.envelope.timeout_ms = given.map(|given| millis(given.saturating_sub(began.elapsed())));
        Ok(())
    }

    /// Open operations go on from where their journal says they are.
    pub(super) fn go_on(self: &Arc<Engine>, open: Vec<Arc<Live>>) {
        for live in open {
            match self.store.parts(live.intent.id) {
                Ok(parts) => {
                    tracing::info!(operation = %live.intent.id, method = %live.intent.method, "operation goes on after a restart");
                    self.tasks.spawn(drive::drive(Arc::clone(self), live, parts, Facts::default()));
                }
                Err(fault) => tracing::error!(operation = %live.intent.id, "operation cannot go on: {fault}"),
            }
        }
    }

    /// Stops: nothing new begins, what runs stops at its next step and goes on after the next start. Waits 5 s at most.
    pub async fn stop(&self) {
        let until = Instant::now() + STOP;
        self.stopping.cancel();
        self.tasks.close();
        // What ends at once stands in the last dump as ended; what hangs leaves that dump its time.
        let _ = tokio::time::timeout(STOP / 5, self.tasks.wait()).await;
        self.last_dump(until).await;
        if tokio::time::timeout_at(until.into(), self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls have not returned; their operations go on after the next start");
        }
    }

    /// Has calls be late after this time instead of what their steps say: for tests, which cannot wait for minutes.
    #[doc(hidden)]
    pub fn set_late_after(&self, after: Duration) {
        self.late_after.store(millis(after), Ordering::Relaxed);
    }

    /// Takes a new reconcile interval over.
    pub fn set_reconcile_every(&self, every: Duration) {
        self.reconcile_every.store(every.as_secs(), Ordering::Relaxed);
        self.bell.notify_one();
    }
}

/// The request that makes the embedded default.
#[must_use]
pub fn default_datastore(path: &Path) -> Option<Request> {
    let name: Name = "default".parse().ok()?;
    Some(Request::DatastoreCreate(DatastoreCreate {
        name,
        kind: DatastoreKind::File,
        path: Some(HostPath(path.to_str()?.to_owned())),
        loop_size: None,
        thin: false,
        pool: None,
        namespace: None,
        conf: None,
        id: None,
        keyring: None,
        export: None,
        adopt: None,
    }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The datastore `default`, if there is one.
fn found_default(view: &dyn View) -> Result<Option<Server>, Fault> {
    let name = "default".parse().map_err(|_| Fault::internal("default is a name"))?;
    Ok(bmi::ops::datastore::find(view, &Ref::Own(name)).ok())
}

impl Engine {
    /// Whether the embedded default is there and nothing is being done to it.
    fn has_default_datastore(&self) -> bool {
        matches!(self.store.read(found_default), Ok(Some(server)) if server.operation.is_none())
    }

    /// Makes the embedded default where no datastore of that name is. A failure is said and does not stop the start.
    async fn make_default_datastore(self: Arc<Engine>, path: PathBuf) {
        if self.without_default_datastore().await
            && let Some(request) = default_datastore(&path)
        {
            // Nobody reads the answer.
            let (out, _) = tokio::sync::mpsc::channel(1);
            let (caller, envelope, files) = (Caller::bmid(), Envelope::default(), Vec::new());
            let call = Submission { caller, envelope, request, files, out };
            if let Err(fault) = self.change(call, Cancel::default()).await {
                tracing::warn!("the default datastore could not be made: {fault}");
            }
        }
        self.first_start.cancel();
    }

    /// Whether there is none. One that an interrupted start began to make may be undone now: how that ends is waited for.
    async fn without_default_datastore(&self) -> bool {
        while let Ok(Some(server)) = self.store.read(found_default) {
            let Some(live) = server.operation.and_then(|o| self.hub.get(o)) else { return false };
            let mut end = live.end.subscribe();
            tokio::select! {
                // The operation is gone together with its channel: look again.
                _ = end.wait_for(Option::is_some) => {}
                () = self.stopping.cancelled() => return false,
            }
        }
        true
    }
}
