//! Start and stop: claims first, then the outside's ground, then the open intents go on, then everything that runs by itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmi::model::{Caller, Fault, Name};
use bmi::ops::args::HostPath;
use bmi::ops::datastore::create::{DatastoreCreate, DatastoreKind};
use bmi::ops::{Defaults, Facts, Request};
use bmi::protocol::Envelope;

use super::call::{Cancel, Out, Submission};
use super::hub::Live;
use super::{Engine, Seal, claims, control, drive, hub, lanes};
use crate::drivers::DriverSet;
use crate::store::Store;

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
        let engine = Arc::new(Engine {
            store: config.store,
            drivers: config.drivers,
            defaults: config.defaults,
            seal: config.seal,
            claims: claims::Claims::default(),
            lanes: lanes::Lanes::default(),
            hub: hub::Hub::default(),
            bell: tokio::sync::Notify::new(),
            stopping: Cancel::default(),
            passed_over: AtomicBool::new(false),
            reconcile_every: AtomicU64::new(config.reconcile_every.as_secs()),
            reconciling: tokio::sync::Mutex::new(()),
            back_off: Mutex::default(),
            tasks: tokio_util::task::TaskTracker::new(),
        });
        let open = engine.put_claims_back()?;
        let begun = Arc::clone(&engine);
        engine.tasks.spawn(async move { begun.begin_work(open, config.default_datastore, reconcile).await });
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

    async fn begin_work(self: Arc<Engine>, open: Vec<Arc<Live>>, default_datastore: Option<PathBuf>, reconcile: bool) {
        // The ground first: an operation that was interrupted by the host's restart needs its tgtd and its datastore again.
        if reconcile && let Err(fault) = self.reconcile(super::reconcile::Pass::ByItself).await {
            tracing::warn!("the first reconcile could not look: {fault}");
        }
        self.go_on(open);
        if reconcile {
            self.tasks.spawn(Arc::clone(&self).keep_reconciled());
        }
        self.tasks.spawn(Arc::clone(&self).look_after_workers());
        self.tasks.spawn(Arc::clone(&self).keep_house());
        if let Some(path) = default_datastore {
            default_datastore_now(&self, &path).await;
        }
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
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls have not returned; their operations go on after the next start");
        }
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
        path: HostPath(path.to_str()?.to_owned()),
        loop_size: None,
        thin: false,
    }))
}

/// Makes the embedded default where no datastore of that name is. A failure is said and does not stop the start.
async fn default_datastore_now(engine: &Arc<Engine>, path: &Path) {
    let find = || {
        engine.store.read(|view| {
            let name = "default".parse().map_err(|_| Fault::internal("default is a name"))?;
            Ok(bmi::ops::datastore::find(view, &bmi::model::Ref::Own(name)).ok())
        })
    };
    // One that an interrupted start began to make may be undone now: how that ends is waited for.
    while let Ok(Some(server)) = find() {
        let Some(live) = server.operation.and_then(|o| engine.hub.get(o)) else { return };
        let mut end = live.end.subscribe();
        tokio::select! {
            // The operation is gone together with its channel: look again.
            _ = end.wait_for(Option::is_some) => {}
            () = engine.stopping.cancelled() => return,
        }
    }
    let Some(request) = default_datastore(path) else { return };
    let (out, mut answers) = tokio::sync::mpsc::channel(8);
    engine.submit(Submission {
        caller: Caller::bmid(),
        envelope: Envelope::default(),
        request,
        files: Vec::new(),
        out,
    });
    while let Some(piece) = answers.recv().await {
        if let Out::End(Err(fault)) = piece {
            tracing::warn!("the default datastore could not be made: {fault}");
        }
    }
}
