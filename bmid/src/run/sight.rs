//! Looking outside for those who only ask: with a short deadline, shared by everybody who asks the same at the same time,
//! and on places of its own, so that a tgtd that hangs holds up neither an answer nor a step.
//!
//! It also knows which workers live and do not answer, and since when: found out by whoever looks, and by the watch, which
//! looks at every network each second. While a tgtd is known to be silent nobody waits for it. Never decides what is done
//! about it, and never takes a worker that is silent for one that is gone.

mod lately;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bmi::model::{Id, Time};
use bmi::step::{Fact, Health, Lane, Look, WorkerKind};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use self::lately::Lately;
use super::lanes::{Lanes, Returned, panicked};
use crate::drivers::DriverSet;
use crate::drivers::worker::SILENT;

/// A listing waits so long for a network's workers, and then says what it knows.
pub(super) const LISTING: Duration = Duration::from_secs(1);
/// A change waits so long: it would be refused for not knowing.
pub(super) const CHANGE: Duration = Duration::from_secs(5);
/// A question may be out so long before it is given up. Drivers give up sooner.
const OUT: Duration = Duration::from_secs(30);
/// Looks without an answer before a worker counts as hung, whatever the clock says: a host that slept has answered none.
const LOOKS: u32 = 3;

type Asked = Shared<BoxFuture<'static, Fact>>;

/// A worker that lives and does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    /// Its process.
    pub(super) pid: u32,
    /// What is known, for people: `process 12 does not answer: it was stopped by a signal`.
    pub(super) what: String,
    /// When it was first asked in vain.
    since: Time,
    began: Instant,
    looks: u32,
    held: bool,
}

impl Silent {
    fn new(pid: u32, what: String, held: bool) -> Silent {
        Silent { pid, what, since: now(), began: Instant::now(), looks: 1, held }
    }

    /// What is known, with its beginning.
    pub(super) fn told(&self) -> String {
        format!("{}, since {}", self.what, self.since)
    }

    /// It has been silent for so long that it serves nobody, and a new one would.
    pub(super) fn is_hung(&self) -> bool {
        !self.held && self.looks >= LOOKS && self.began.elapsed() >= Duration::from_secs(SILENT)
    }
}

/// What is known of one network's workers.
#[derive(Default)]
struct Known {
    health: Vec<Health>,
    silent: HashMap<WorkerKind, Silent>,
}

/// See the file's head.
pub(super) struct Sight {
    drivers: Arc<DriverSet>,
    lanes: Lanes,
    asked: Mutex<HashMap<Look, Asked>>,
    known: Mutex<HashMap<Id, Known>>,
    lately: Lately,
}

/// The network whose tgtd must answer for this.
fn of_tgtd(look: &Look) -> Option<Id> {
    match look {
        Look::Sessions { network, .. } | Look::Targets(network) => Some(*network),
        _ => None,
    }
}

impl Sight {
    pub(super) fn new(drivers: Arc<DriverSet>) -> Arc<Sight> {
        let (lanes, asked, known, lately) = Default::default();
        Arc::new(Sight { drivers, lanes, asked, known, lately })
    }

    /// Asks one question for an answer within `patience`. What is not answered by then is unknown, and why.
    pub(super) async fn ask(self: &Arc<Sight>, look: Look, patience: Duration) -> (Look, Fact) {
        if let Some(fact) = self.known_without_asking(&look) {
            return (look, fact);
        }
        let patience = match look {
            Look::Doctor { .. } | Look::Stores(_) | Look::Contents(..) => OUT,
            // Disks that sleep take their time to wake up.
            Look::Datastore(..) | Look::Interfaces => 2 * patience,
            _ => patience,
        };
        let fact = match tokio::time::timeout(patience, self.begin(&look)).await {
            Ok(fact) => fact,
            Err(_) => self.late(&look, patience),
        };
        (look, fact)
    }

    /// The same for a change, which goes on by what was seen a moment ago, too.
    pub(super) async fn ask_lately(self: &Arc<Sight>, look: Look, patience: Duration) -> (Look, Fact) {
        match self.lately.get(&look) {
            Some(fact) => (look, fact),
            None => self.ask(look, patience).await,
        }
    }

    /// Looks at a network's workers, without waiting for what comes of it.
    pub(super) fn glance(self: &Arc<Sight>, network: Id) {
        // The look goes on by itself.
        drop(self.begin(&Look::Workers(network)));
    }

    /// A network's workers as they were last seen; none before the first look.
    pub(super) fn health(&self, network: Id) -> Vec<Health> {
        self.known().get(&network).map(|k| k.health.clone()).unwrap_or_default()
    }

    /// A worker that is known to live and not to answer.
    pub(super) fn silent(&self, network: Id, kind: WorkerKind) -> Option<Silent> {
        self.known().get(&network)?.silent.get(&kind).cloned()
    }

    /// A worker was ended: what was known of it is of no use any more.
    pub(super) fn forget(&self, network: Id, kind: WorkerKind) {
        if let Some(known) = self.known().get_mut(&network) {
            known.silent.remove(&kind);
            known.health.retain(|h| h.kind != kind);
        }
        self.lately.forget(&Lane::Network(network));
        // A look that is out may have seen it: whoever asks from now on looks again.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&Look::Workers(network));
    }

    /// A step failed there, or has not returned in time: the next change looks for itself.
    pub(super) fn doubt(&self, lane: Lane) {
        self.lately.forget(&lane);
    }

    /// Networks that are there no more.
    pub(super) fn forget_all_but(&self, networks: &[Id]) {
        self.known().retain(|id, _| networks.contains(id));
    }

    fn known_without_asking(self: &Arc<Sight>, look: &Look) -> Option<Fact> {
        if let Some(network) = of_tgtd(look) {
            return self.silent(network, WorkerKind::Tgtd).map(|s| Fact::Unknown(format!("tgtd: {}", s.told())));
        }
        let Look::Workers(network) = look else { return None };
        let known = self.known();
        let known = known.get(network)?;
        (!known.silent.is_empty()).then(|| told(known))
    }

    fn begin(self: &Arc<Sight>, look: &Look) -> Asked {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(out) = asked.get(look) {
            return out.clone();
        }
        let (sight, what) = (Arc::clone(self), look.clone());
        let looking = tokio::spawn(async move {
            let asked = Instant::now();
            let fact = sight.drivers_say(&what).await;
            if let (Look::Workers(network), Fact::Workers(health)) = (&what, &fact) {
                sight.note(*network, health);
            }
            sight.lately.saw(&what, asked, &fact);
            sight.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&what);
            fact
        });
        let out = looking.map(|f| f.unwrap_or_else(|e| Fact::Unknown(panicked(e).to_string()))).boxed().shared();
        asked.insert(look.clone(), out.clone());
        out
    }

    async fn drivers_say(&self, look: &Look) -> Fact {
        let lane = match look {
            Look::Datastore(id, _) => Some(Lane::Datastore(*id)),
            Look::Sessions { network, .. } | Look::Targets(network) | Look::Script(network, _) => {
                Some(Lane::Network(*network))
            }
            // Few, and one of them tells whether a network's lane is stuck.
            Look::Workers(_)
            | Look::Interfaces
            | Look::Doctor { .. }
            | Look::RbdClient
            | Look::Stores(_)
            | Look::Contents(..)
            | Look::Room(_)
            | Look::Routing => None,
        };
        let (drivers, asked) = (Arc::clone(&self.drivers), look.clone());
        let ask = move || drivers.look(&asked);
        let Some(lane) = lane else {
            return tokio::task::spawn_blocking(ask).await.unwrap_or_else(|e| Fact::Unknown(panicked(e).to_string()));
        };
        // A question that has waited in vain for its place is not asked any more.
        match tokio::time::timeout(CHANGE, self.lanes.run(lane, OUT, ask)).await {
            Ok(Ok(Returned::InTime(fact))) => fact,
            Ok(Ok(Returned::Late(_))) | Err(_) => Fact::Unknown("it does not answer".to_owned()),
            Ok(Err(fault)) => Fact::Unknown(fault.to_string()),
        }
    }

    /// Not answered in time. Workers that were asked in vain are silent from now on, until a look that is out comes back.
    fn late(&self, look: &Look, patience: Duration) -> Fact {
        let Look::Workers(network) = look else {
            return Fact::Unknown(format!("no answer within {patience:?}"));
        };
        let mut all = self.known();
        let known = all.entry(*network).or_default();
        // dnsmasq is never waited for, so it is tgtd that does not answer.
        let last = known.health.iter().find(|h| h.kind == WorkerKind::Tgtd);
        let Some(pid) = last.map(|h| h.pid).filter(|pid| *pid != 0) else {
            return Fact::Unknown(format!("no answer within {patience:?}"));
        };
        let what = format!("process {pid} does not answer");
        silence(known, WorkerKind::Tgtd, Silent { looks: 0, ..Silent::new(pid, what, false) });
        told(known)
    }

    /// What a look at a network's workers came to.
    fn note(&self, network: Id, health: &[Health]) {
        let mut all = self.known();
        let known = all.entry(network).or_default();
        known.health = health.to_vec();
        for worker in health {
            match (worker.running, worker.pid) {
                (false, pid @ 1..) => {
                    let what = worker.problem.clone().unwrap_or_else(|| format!("process {pid} does not answer"));
                    silence(known, worker.kind, Silent::new(pid, what, worker.held));
                }
                _ => {
                    known.silent.remove(&worker.kind);
                }
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Id, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker was asked in vain, perhaps not for the first time.
fn silence(known: &mut Known, kind: WorkerKind, seen: Silent) {
    let silent = match known.silent.remove(&kind) {
        Some(before) if before.pid == seen.pid => {
            let looks = before.looks.saturating_add(seen.looks);
            Silent { since: before.since, began: before.began, looks, ..seen }
        }
        _ => seen,
    };
    known.silent.insert(kind, silent);
}

/// A network's workers as they are known, the silent ones as such.
fn told(known: &Known) -> Fact {
    let of = |health: &Health| match known.silent.get(&health.kind) {
        Some(silent) => Health { running: false, problem: Some(silent.told()), ..health.clone() },
        None => health.clone(),
    };
    Fact::Workers(known.health.iter().map(of).collect())
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Whole seconds: it is read by people.
    Time(since.as_secs() * 1_000_000)
}

#[cfg(test)]
mod tests;
