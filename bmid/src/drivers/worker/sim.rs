//! The worker driver's simulator: workers as objects of a simulated world. It starts no process.
//!
//! A worker that dies (its object is removed by hand or by a test) is noticed as the real one's death is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::{Id, Kind};
use bmi::step::{Fact, Health, Look, Room, Scope, Seen, StopWorker, WorkerKind, WorkerStep};
use serde::{Deserialize, Serialize};

use super::{Death, KINDS, Watch};
use crate::drivers::sim::World;
use crate::drivers::{Done, Driver, DriverError, StepCx};

/// A running worker: objects of kind `worker` by network and program.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
struct Running {
    /// Another one for each start.
    pid: u32,
    slot: u16,
    port: u16,
}

const WORKER: &str = "worker";
/// As the real driver waits for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The objects that stand for what a tgtd has in memory; their names begin with the network's id.
const TGTD_MEMORY: [&str; 3] = ["targets", "accounts", "portals"];

/// The workers of all networks, simulated. Points: `worker.start`, `worker.stop`; `tgtd.answer` and `dnsmasq.answer` may hang. Clones are handles to the same.
#[derive(Clone)]
pub struct SimWorkers {
    world: World,
    known: Arc<Mutex<BTreeMap<(Id, WorkerKind), Running>>>,
}

impl SimWorkers {
    /// The workers of a simulated world.
    #[must_use]
    pub fn new(world: World) -> SimWorkers {
        SimWorkers { world, known: Arc::default() }
    }

    fn find(&self, network: Id, kind: WorkerKind) -> Result<Option<Running>, DriverError> {
        let found = self.world.get::<Running>(WORKER, &name(network, kind))?;
        if let Some(running) = &found {
            // One that has died and was not told yet stays until it is.
            self.known().entry((network, kind)).or_insert_with(|| running.clone());
        }
        Ok(found)
    }

    /// What a test's host has room for: the world's object `room`.
    fn room(&self, network: Id) -> Result<Option<Room>, DriverError> {
        self.world.get::<Room>("room", &network.to_string())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Id, WorkerKind), Running>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self, kind: WorkerKind) -> bool {
        self.world.answers(&format!("{}.answer", kind.as_str()), ANSWER)
    }

    fn start(&self, s: &bmi::step::StartWorker) -> Result<bool, DriverError> {
        if let Some(running) = self.find(s.network, s.kind)? {
            if !self.answers(s.kind) {
                let why = format!("it runs already and process {} does not answer", running.pid);
                let tried = format!("start {} of network {}", s.kind.as_str(), s.network);
                return Err(DriverError::new(Kind::Unavailable, tried, why));
            }
            return Ok(false);
        }
        self.lose_memory(s.network, s.kind)?;
        let mut random = [0u8; 2];
        // Any number will do; a repeated one would only hide a restart from `died`.
        let _ = getrandom::fill(&mut random);
        let pid = 100_000 + u32::from(u16::from_le_bytes(random));
        let changed = self.world.put(WORKER, &name(s.network, s.kind), &Running { pid, slot: s.slot, port: s.port })?;
        self.find(s.network, s.kind)?;
        Ok(changed)
    }
}

impl SimWorkers {
    /// A tgtd keeps nothing over its end: what the world holds of its memory goes with it.
    fn lose_memory(&self, network: Id, kind: WorkerKind) -> Result<(), DriverError> {
        if kind != WorkerKind::Tgtd {
            return Ok(());
        }
        for memory in TGTD_MEMORY {
            for (object, _) in self.world.list::<serde::de::IgnoredAny>(memory)? {
                if object.starts_with(&network.to_string()) {
                    self.world.del(memory, &object)?;
                }
            }
        }
        Ok(())
    }

    fn stop(&self, s: &StopWorker) -> Result<bool, DriverError> {
        self.known().remove(&(s.network, s.kind));
        self.lose_memory(s.network, s.kind)?;
        self.world.del(WORKER, &name(s.network, s.kind))
    }
}

fn name(network: Id, kind: WorkerKind) -> String {
    format!("{network}@{}", kind.as_str())
}

impl Driver for SimWorkers {
    type Step = WorkerStep;

    fn apply(&self, step: &WorkerStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        match step {
            WorkerStep::StartWorker(s) => self.world.around("worker.start", || self.start(s)),
            WorkerStep::StopWorker(s) => self.world.around("worker.stop", || self.stop(s)),
            WorkerStep::RestartWorker(s) => {
                self.world.around("worker.restart", || self.stop(&s.stop()).and_then(|_| self.start(&s.start)))
            }
        }
        .map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Network { network, .. } => {
                let mut seen = Vec::new();
                for kind in KINDS {
                    let found = self.find(*network, kind)?.filter(|_| self.answers(kind));
                    seen.extend(found.map(|r| Seen::Worker(kind, r.pid)));
                }
                Ok(seen)
            }
            Scope::Networks => {
                let names = self.world.list::<Running>(WORKER)?;
                let mut ids: Vec<Id> = names.iter().filter_map(|(n, _)| n.split_once('@')?.0.parse().ok()).collect();
                ids.dedup();
                Ok(ids.into_iter().map(Seen::Network).collect())
            }
            Scope::Datastore { .. } => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        let health = |network: Id, kind| {
            let found = self.find(network, kind)?;
            let pid = found.as_ref().map_or(0, |r| r.pid);
            let running = found.is_some() && self.answers(kind);
            let problem = match running {
                true => None,
                false if pid == 0 => Some("it does not run".to_owned()),
                false => Some(format!("process {pid} does not answer")),
            };
            let room = if kind == WorkerKind::Tgtd { self.room(network)? } else { None };
            Ok(Health { kind, running, pid, memory: 0, threads: 1, restarts: 0, problem, held: false, room })
        };
        match look {
            Look::Workers(network) => {
                Some(KINDS.iter().map(|k| health(*network, *k)).collect::<Result<_, DriverError>>().map(Fact::Workers))
            }
            Look::Room(network) => Some(self.room(*network).map(Fact::Room)),
            Look::Doctor { .. } => Some(Ok(Fact::Findings(Vec::new()))),
            _ => None,
        }
    }
}

impl SimWorkers {
    fn ended(&self) -> Vec<Death> {
        let mut dead = Vec::new();
        self.known().retain(|&(network, kind), running| {
            let now = self.world.get::<Running>(WORKER, &name(network, kind)).ok().flatten();
            let same = now.as_ref() == Some(running);
            if !same {
                dead.push(Death { network, kind, pid: running.pid, unseen: false });
            }
            same
        });
        dead
    }
}

impl Watch for SimWorkers {
    fn died(&self, limit: Duration) -> Vec<Death> {
        let end = Instant::now() + limit;
        loop {
            let dead = self.ended();
            if !dead.is_empty() || Instant::now() > end {
                return dead;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
