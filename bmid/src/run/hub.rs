//! What runs now: the live operations, their progress and their ends, and the stream of events. For waiting and watching.
//!
//! Nothing here is durable and nothing decides by it; after a restart it is filled again from the journal.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use bmi::model::{Event, Fault, Id, Intent, Standing};
use bmi::ops::{Reply, Request};
use bmi::protocol::Progress;
use tokio::sync::{Notify, broadcast, watch};

use super::call::Cancel;

/// How an operation ended, for those who wait for it.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Whether it changed anything, or why it failed.
    pub result: Result<bool, Fault>,
    /// Its answer.
    pub items: Arc<Vec<Reply>>,
}

/// A live operation.
pub(super) struct Live {
    /// Its record.
    pub intent: Intent,
    /// What was asked.
    pub request: Request,
    /// The descriptors it came with.
    pub files: Vec<Arc<File>>,
    /// Ends it.
    pub cancel: Cancel,
    /// Rings when somebody wants a parked one to go on.
    pub retry: Notify,
    /// Set when somebody gave it up.
    pub abandoned: Cancel,
    /// How far it is.
    pub progress: broadcast::Sender<Progress>,
    /// Its parts' standing, for people.
    pub standing: Mutex<Vec<Standing>>,
    /// Set once, at its end.
    pub end: watch::Sender<Option<End>>,
    /// Set while it is parked, with the reason: waiting for it ends then.
    pub parked: watch::Sender<Option<Fault>>,
}

impl Live {
    pub(super) fn new(intent: Intent, request: Request, files: Vec<File>, standing: Vec<Standing>) -> Live {
        Live {
            intent,
            request,
            files: files.into_iter().map(Arc::new).collect(),
            cancel: Cancel::default(),
            retry: Notify::new(),
            abandoned: Cancel::default(),
            progress: broadcast::channel(16).0,
            standing: Mutex::new(standing),
            end: watch::channel(None).0,
            parked: watch::channel(None).0,
        }
    }

    /// Whether anybody would hear what is told.
    pub(super) fn is_watched(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    /// Tells those who watch.
    pub(super) fn tell(&self, what: String, done: u64, total: Option<u64>, bytes: bool) {
        // Nobody watching is fine.
        let _ = self.progress.send(Progress { op_id: self.intent.id, what, done, total, bytes });
    }

    /// Notes a part's standing.
    pub(super) fn note(&self, index: u32, standing: &Standing) {
        let mut all = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = all.get_mut(index as usize) {
            *slot = standing.clone();
        }
    }
}

/// All live operations and the stream of events.
pub(super) struct Hub {
    live: Mutex<HashMap<Id, Arc<Live>>>,
    events: broadcast::Sender<Event>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub { live: Mutex::default(), events: broadcast::channel(1024).0 }
    }
}

impl Hub {
    pub(super) fn add(&self, live: Arc<Live>) {
        self.lock().insert(live.intent.id, live);
    }

    pub(super) fn remove(&self, id: Id) {
        self.lock().remove(&id);
    }

    pub(super) fn get(&self, id: Id) -> Option<Arc<Live>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|l| (l.intent.started_at, l.intent.id));
        all
    }

    pub(super) fn event(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
