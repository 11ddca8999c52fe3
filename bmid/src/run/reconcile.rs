//! Reconcile: rows against the outside, object by object. It takes no hint of what changed, so that the path after a crash is
//! the path of every day. It proposes; each repair claims its object, looks at the rows again, and is refused if they moved.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bmi::model::{Caller, Change, Event, Fault, Id, Kind, Node, NodeState, Server, ViewExt};
use bmi::ops::host::Repair;
use bmi::rules::reconcile::{self as rules, Action, Difference, Rows, SeenNetwork, SeenSilent};
use bmi::rules::{unnoted, wanted};
use bmi::step::{Fact, Lane, Look, Scope, Seen, Step, WorkerKind};
use futures_util::future::join_all;

use super::Engine;
use super::change::REPAIR;
use super::lanes::Returned;
use super::sight;
use crate::drivers::{DriverError, DriverSet, StepCx, boot};

/// A driver is asked what it sees within this time.
const OBSERVE: Duration = Duration::from_secs(20);

/// A repair is waited for this long; it goes on beyond.
const REPAIRED: Duration = Duration::from_secs(180);

/// Who wants a pass, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Somebody who only wants to know.
    Check,
    /// Start, timer, a worker's death: puts back what was promised and removes nothing.
    ByItself,
    /// Somebody: removes what no record wants, too.
    Asked,
}

/// Which driver to ask.
#[derive(Clone, Copy)]
enum Ask {
    Storage,
    Target,
    Boot,
    Network,
    Worker,
}

fn observe(drivers: &DriverSet, ask: Ask, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
    match ask {
        Ask::Storage => drivers.storage.observe(scope),
        Ask::Target => drivers.target.observe(scope),
        Ask::Boot => drivers.boot.observe(scope),
        Ask::Network => drivers.network.observe(scope),
        Ask::Worker => drivers.worker.observe(scope),
    }
}

/// How often a worker was started and when it may be again: one that dies at once must not take a core.
#[derive(Default)]
pub(super) struct BackOff(HashMap<Id, (u32, Instant)>);

impl BackOff {
    /// Whether a start is due, counting it if so: at once, then after 1, 2, 4 … 60 s.
    fn due(&mut self, network: Id, now: Instant) -> bool {
        let (tries, last) = self.0.entry(network).or_insert((0, now));
        let pause = match *tries {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1).min(6)).min(Duration::from_secs(60)),
        };
        let since = now.duration_since(*last);
        if since < pause {
            return false;
        }
        // One that had run well for a while starts counting anew.
        *tries = if since > Duration::from_secs(180) { 1 } else { *tries + 1 };
        *last = now;
        true
    }
}

impl Engine {
    /// One pass.
    pub(super) async fn reconcile(self: &Arc<Engine>, pass: Pass) -> Result<Vec<Repair>, Fault> {
        // Who only wants to know waits for a pass that works, but not for one that is stuck.
        let one = self.reconciling.lock();
        let _one = match pass {
            Pass::Check => tokio::time::timeout(sight::LISTING, one).await.ok(),
            Pass::ByItself | Pass::Asked => Some(one.await),
        };
        let rows = Arc::new(self.store.read(Rows::load)?);
        let mut repairs =
            join_all(rows.datastores.iter().map(|s| self.reconcile_datastore(&rows, s, pass))).await.concat();
        let networks = join_all(rows.networks.iter().map(|(n, on)| self.reconcile_network(&rows, n, on, pass))).await;
        repairs.extend(networks.concat());
        repairs.extend(self.reconcile_unknown(&rows, pass).await);
        self.note_repairs(&repairs).await;
        Ok(repairs)
    }

    async fn reconcile_datastore(self: &Arc<Engine>, rows: &Arc<Rows>, server: &Server, pass: Pass) -> Vec<Repair> {
        let Some(place) = server.place.clone() else { return Vec::new() };
        let scope = Scope::Datastore { datastore: server.id, place };
        let seen = match self.observe(Ask::Storage, &scope).await {
            Ok(seen) => seen,
            Err(fault) => return vec![unseen("datastore", server.name.as_str(), fault)],
        };
        let mut out = Vec::new();
        let mut seen = seen;
        if let Some(difference) = rules::datastore(server, &seen) {
            out.extend(self.repair_all(vec![difference], pass).await);
            seen = self.observe(Ask::Storage, &scope).await.unwrap_or_default();
        }
        let mut found = rules::orphan_backings(rows, server, &seen);
        found.extend(rules::disks(rows, server, &seen));
        match self.store.read(|view| unnoted::renew(view, rows, server, &seen)) {
            Ok(bare) => found.extend(bare),
            Err(fault) => out.push(unseen("datastore", server.name.as_str(), fault)),
        }
        out.extend(self.repair_all(found, pass).await);
        out
    }

    async fn reconcile_network(
        self: &Arc<Engine>,
        rows: &Arc<Rows>,
        network: &bmi::model::Network,
        on: &bmi::model::EngineNetwork,
        pass: Pass,
    ) -> Vec<Repair> {
        let want = wanted::network(network, on, &self.defaults);
        let scope = Scope::Network { network: network.id, interface: on.interface.clone() };
        let mut out = Vec::new();
        let mut look = async |ask| match self.observe(ask, &scope).await {
            Ok(seen) => seen,
            Err(fault) => {
                out.push(unseen("network", network.name.as_str(), fault));
                Vec::new()
            }
        };
        let (addresses, boot) = (look(Ask::Network).await, look(Ask::Boot).await);
        let seen = match self.workers_seen(network.id, pass).await {
            Ok((workers, silent)) => SeenNetwork { addresses, boot, workers, silent },
            Err(fault) => {
                out.push(unseen("network", network.name.as_str(), fault));
                return out;
            }
        };
        let mut found = rules::ground(network, &want, &boot::service_digest(&want.serve), &seen);
        found.retain(|d| pass == Pass::Check || self.start_is_due(d));
        out.extend(self.repair_in_order(found, pass).await);
        let entries = rules::entries(rows, network, &seen.boot, &self.defaults, &boot::digest);
        out.extend(self.repair_all(entries, pass).await);
        out.extend(self.reconcile_doors(rows, network, &want, &scope, &seen, pass).await);
        out
    }

    /// Targets, and what is opened when they stand. A tgtd that is silent is not asked for them.
    async fn reconcile_doors(
        self: &Arc<Engine>,
        rows: &Arc<Rows>,
        network: &bmi::model::Network,
        want: &wanted::NetworkWanted,
        scope: &Scope,
        seen: &SeenNetwork,
        pass: Pass,
    ) -> Vec<Repair> {
        let mut out: Vec<Repair> =
            seen.silent.iter().filter(|s| !s.hung).map(|s| silent(network.name.as_str(), s)).collect();
        if self.sight.silent(network.id, WorkerKind::Tgtd).is_some() {
            return out;
        }
        let targets = match self.observe(Ask::Target, scope).await {
            Ok(seen) => seen,
            Err(fault) => {
                out.push(unseen("network", network.name.as_str(), fault));
                return out;
            }
        };
        out.extend(self.repair_all(rules::targets(rows, network, &targets), pass).await);
        let mut doors = rules::doors(network, want, &targets, seen);
        doors.retain(|d| pass == Pass::Check || self.start_is_due(d));
        out.extend(self.repair_in_order(doors, pass).await);
        out
    }

    /// A network's workers: those that answer, and those that live and do not.
    async fn workers_seen(&self, network: Id, pass: Pass) -> Result<(Vec<Seen>, Vec<SeenSilent>), Fault> {
        let patience = if pass == Pass::Check { sight::LISTING } else { OBSERVE };
        let health = match self.sight.ask(Look::Workers(network), patience).await {
            (_, Fact::Workers(health)) => health,
            (_, Fact::Unknown(why)) => return Err(Fault::new(Kind::Timeout, why).trying("look at its workers")),
            _ => return Err(Fault::internal("workers were asked for")),
        };
        let runs = health.iter().filter(|h| h.running).map(|h| Seen::Worker(h.kind, h.pid)).collect();
        let lives = health.iter().filter(|h| !h.running && h.pid != 0);
        let silent = lives.filter_map(|h| self.sight.silent(network, h.kind).map(|s| (h.kind, s)));
        let told = |(kind, s): (WorkerKind, sight::Silent)| SeenSilent { kind, what: s.told(), hung: s.is_hung() };
        Ok((runs, silent.map(told).collect()))
    }

    /// Networks that drivers have something of and rows do not.
    async fn reconcile_unknown(self: &Arc<Engine>, rows: &Arc<Rows>, pass: Pass) -> Vec<Repair> {
        let mut ids: Vec<Id> = Vec::new();
        for ask in [Ask::Worker, Ask::Boot, Ask::Target, Ask::Network] {
            // A driver that cannot say has nothing to collect now; the next pass asks again.
            for seen in self.observe(ask, &Scope::Networks).await.unwrap_or_default() {
                if let Seen::Network(id) = seen {
                    ids.push(id);
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !rows.networks.iter().any(|(n, _)| n.id == *id));
        self.repair_all(ids.into_iter().map(rules::unknown_network).collect(), pass).await
    }

    /// Starting a worker again waits its turn. Asking counts as a try.
    fn start_is_due(&self, difference: &Difference) -> bool {
        let Action::Apply(steps) = &difference.action else { return true };
        let starts = steps.iter().find_map(|s| match s {
            Step::Worker(bmi::step::WorkerStep::StartWorker(w)) => Some((w.network, w.kind)),
            _ => None,
        });
        let Some((network, kind)) = starts else { return true };
        let mut back_off = self.back_off.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = match kind {
            WorkerKind::Tgtd => network,
            WorkerKind::Dnsmasq => network.derived(1),
            WorkerKind::Http => network.derived(2),
        };
        back_off.due(key, Instant::now())
    }

    async fn observe(&self, ask: Ask, scope: &Scope) -> Result<Vec<Seen>, Fault> {
        let lane = match scope {
            Scope::Datastore { datastore, .. } => Lane::Datastore(*datastore),
            Scope::Network { network, .. } => Lane::Network(*network),
            Scope::Networks => Lane::Network(self.store.meta().engine),
        };
        let (drivers, asked) = (Arc::clone(&self.drivers), scope.clone());
        match self.lanes.run(lane, OBSERVE, move || observe(&drivers, ask, &asked)).await? {
            Returned::InTime(seen) => seen.map_err(Fault::from),
            Returned::Late(_) => {
                Err(Fault::new(Kind::Timeout, format!("it was not answered within {} s", OBSERVE.as_secs())))
            }
        }
    }

    /// Repairs of different objects, side by side.
    async fn repair_all(self: &Arc<Engine>, found: Vec<Difference>, pass: Pass) -> Vec<Repair> {
        join_all(found.into_iter().map(|d| self.repair(d, pass))).await.into_iter().flatten().collect()
    }

    /// Repairs of one object, one after another.
    async fn repair_in_order(self: &Arc<Engine>, found: Vec<Difference>, pass: Pass) -> Vec<Repair> {
        let mut out = Vec::new();
        for difference in found {
            out.extend(self.repair(difference, pass).await);
        }
        out
    }

    /// One repair. `None`: an operation holds the object, or the difference has gone meanwhile; the next pass looks again.
    async fn repair(self: &Arc<Engine>, difference: Difference, pass: Pass) -> Option<Repair> {
        if self.is_stopping() {
            return None;
        }
        match pass {
            Pass::Check => {
                let held = self.claims.is_changed(difference.id);
                return (!held).then(|| told(&difference, "proposed", String::new()));
            }
            Pass::ByItself if difference.removes => {
                let held = self.claims.is_changed(difference.id);
                let why = "nothing is removed unless somebody asks: `bmictl reconcile`".to_owned();
                return (!held).then(|| told(&difference, "left", why));
            }
            Pass::ByItself | Pass::Asked => {}
        }
        let (id, object) = (self.fresh_id(), [difference.id]);
        // Ground is repaired under the operations that stand on it: they may be waiting for just that.
        let (changes, uses) = if difference.ground() { (&[][..], &object[..]) } else { (&object[..], &[][..]) };
        if self.claims.take(id, REPAIR, changes, uses).is_err() {
            self.passed_over.store(true, Ordering::SeqCst);
            // Its holder may have ended before it could see that.
            self.claims.take(id, REPAIR, changes, uses).ok()?;
        }
        // A task of its own: should a call not return in time, the claim stays until it has.
        let (engine, of) = (Arc::clone(self), difference.clone());
        let repairing = self.tasks.spawn(async move {
            let done = engine.carry_out(&of).await;
            engine.claims.release(id);
            done
        });
        Some(match tokio::time::timeout(REPAIRED, repairing).await {
            Ok(Ok(Ok(true))) => told(&difference, "done", String::new()),
            Ok(Ok(Ok(false))) => return None,
            Ok(Ok(Err(fault))) => told(&difference, "failed", fault.to_string()),
            Ok(Err(defect)) => told(&difference, "failed", super::lanes::panicked(defect).to_string()),
            Err(_) => told(&difference, "failed", format!("it has not returned within {} s", REPAIRED.as_secs())),
        })
    }

    async fn carry_out(self: &Arc<Engine>, difference: &Difference) -> Result<bool, Fault> {
        let holds = self.store.read(|view| {
            for expect in &difference.expects {
                if !expect.holds(view)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if !holds {
            return Ok(false);
        }
        match &difference.action {
            Action::Mark(cause) => self.mark(difference.id, cause.clone()).await,
            Action::Apply(steps) => {
                for step in steps {
                    self.apply_now(step).await?;
                }
                Ok(true)
            }
        }
    }

    /// One step of a repair, on its lane.
    pub(super) async fn apply_now(&self, step: &Step) -> Result<(), Fault> {
        if let Step::Target(target) = step
            && let Some(silent) = self.sight.silent(target.network(), WorkerKind::Tgtd)
        {
            // A thousand of them would each wait for it.
            return Err(Fault::new(Kind::Unavailable, silent.told()).trying(step.describe()));
        }
        let (drivers, what) = (Arc::clone(&self.drivers), step.clone());
        let deadline = Duration::from_secs(step.deadline_seconds());
        let done = match self.lanes.run(step.lane(), deadline, move || drivers.apply(&what, &StepCx::PLAIN)).await? {
            Returned::InTime(done) => done,
            // It is not sure until it has really returned.
            Returned::Late(handle) => handle.await.map_err(super::lanes::panicked)?,
        };
        if let Step::Worker(worker) = step {
            let (network, kind) = worker.which();
            self.sight.forget(network, kind);
        }
        done.map(|_| ()).map_err(Fault::from)
    }

    /// Says in a node's row that it cannot boot, or can again.
    async fn mark(&self, node: Id, cause: Option<String>) -> Result<bool, Fault> {
        let now = self.now();
        self.write("mark", |tx| {
            let Some(row) = tx.get::<Node>(node)? else { return Ok(false) };
            let state = if cause.is_some() { NodeState::Error } else { NodeState::Ready };
            tx.apply(&Change::from(Node { state, cause, updated_at: now, ..row }))?;
            Ok(true)
        })
        .await
    }

    /// One event a pass that did something, so that a refill of a thousand targets is one line.
    async fn note_repairs(&self, repairs: &[Repair]) {
        let done = repairs.iter().filter(|r| r.outcome == "done").count();
        let failed: Vec<&Repair> = repairs.iter().filter(|r| r.outcome == "failed").collect();
        for repair in &failed {
            tracing::warn!(object = %repair.object, "repair failed: {}: {}", repair.difference, repair.message);
        }
        let left = repairs.iter().filter(|r| r.outcome == "left").count();
        if left > 0 {
            tracing::warn!(
                "{left} things carry this engine's mark and no record wants them; `bmictl reconcile --check` lists them"
            );
        }
        if done == 0 {
            return;
        }
        let some: Vec<String> = repairs
            .iter()
            .filter(|r| r.outcome == "done")
            .take(5)
            .map(|r| format!("{}: {}", r.object, r.difference))
            .collect();
        let message = format!(
            "{done} repaired, {} failed: {}{}",
            failed.len(),
            some.join("; "),
            if done > 5 { "; …" } else { "" }
        );
        tracing::info!("reconcile: {message}");
        self.noticed("reconcile", message).await;
    }

    /// Writes an event about something nobody asked for.
    pub(super) async fn noticed(&self, method: &str, message: String) {
        let caller = Caller::bmid();
        let event = Event {
            at: self.now(),
            id: self.fresh_id(),
            operation: None,
            method: method.to_owned(),
            caller: caller.name,
            project: caller.project,
            subjects: Vec::new(),
            outcome: "noticed".to_owned(),
            message,
            took_ms: 0,
        };
        match self.write("note", |tx| tx.put_event(&event)).await {
            Ok(()) => self.hub.event(event),
            Err(fault) => tracing::warn!("an event could not be written: {fault}"),
        }
    }
}

fn told(difference: &Difference, outcome: &str, message: String) -> Repair {
    let action = match &difference.action {
        Action::Apply(steps) => steps.iter().map(Step::describe).collect::<Vec<_>>().join(", then "),
        Action::Mark(Some(_)) => "mark the node as in error".to_owned(),
        Action::Mark(None) => "mark the node as ready".to_owned(),
    };
    Repair {
        object: format!("{} {}", difference.noun, difference.name),
        difference: difference.what.clone(),
        action,
        outcome: outcome.to_owned(),
        message,
    }
}

/// A worker that is silent and is given time.
fn silent(network: &str, worker: &SeenSilent) -> Repair {
    let its = worker.kind.as_str();
    Repair {
        object: format!("network {network}"),
        difference: format!("its {its} does not answer"),
        action: format!("start a new one if it stays so for {} s", crate::drivers::worker::SILENT),
        outcome: "waiting".to_owned(),
        message: worker.what.clone(),
    }
}

fn unseen(noun: &str, name: &str, fault: Fault) -> Repair {
    Repair {
        object: format!("{noun} {name}"),
        difference: "it could not be looked at".to_owned(),
        action: "look again later".to_owned(),
        outcome: "failed".to_owned(),
        message: fault.to_string(),
    }
}
