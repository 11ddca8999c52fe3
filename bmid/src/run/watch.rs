//! What runs by itself: the reconcile timer and its bell, the look after workers, forgetting what is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::Id;
use bmi::rules::wanted;
use bmi::step::{Lane, Scope, Seen, WorkerKind};

use super::Engine;
use super::lanes::Returned;

/// Workers are looked after this often.
const WORKERS: Duration = Duration::from_secs(1);

impl Engine {
    /// Reconcile on a timer and whenever the bell rings, until bmid stops.
    pub(super) async fn keep_reconciled(self: Arc<Engine>) {
        loop {
            let every = Duration::from_secs(self.reconcile_every.load(Ordering::Relaxed).max(1));
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(every) => {}
            }
            if let Err(fault) = self.reconcile(super::reconcile::Pass::ByItself).await {
                tracing::warn!("reconcile could not look: {fault}");
            }
        }
    }

    /// Rings the bell when a worker that ran is gone, or is another process: systemd may have started it again, empty.
    pub(super) async fn look_after_workers(self: Arc<Engine>) {
        let mut known: HashMap<(Id, WorkerKind), u32> = HashMap::new();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(WORKERS) => {}
            }
            let Ok(networks) = self.store.read(wanted::networks) else { continue };
            known.retain(|(id, _), _| networks.iter().any(|(n, _)| n.id == *id));
            let mut ring = false;
            for (network, on) in networks {
                let Some(seen) = self.workers_of(network.id, on.interface).await else { continue };
                for kind in [WorkerKind::Tgtd, WorkerKind::Dnsmasq] {
                    let key = (network.id, kind);
                    let now = seen
                        .iter()
                        .find_map(|s| if let Seen::Worker(k, pid) = s { (*k == kind).then_some(*pid) } else { None });
                    let before = match now {
                        Some(pid) => known.insert(key, pid),
                        None => known.remove(&key),
                    };
                    ring |= now.is_none() || before.is_some_and(|b| Some(b) != now);
                    if before.is_some() && before != now {
                        tracing::warn!(network = %network.name, "{} of network {} has died", kind.as_str(), network.name);
                        self.noticed(
                            "worker.died",
                            format!("{} of network {} has died; it is started again", kind.as_str(), network.name),
                        )
                        .await;
                    }
                }
            }
            if ring {
                self.bell.notify_one();
            }
        }
    }

    /// The workers of a network that run now; none if it could not be found out.
    async fn workers_of(&self, network: Id, interface: String) -> Option<Vec<Seen>> {
        let scope = Scope::Network { network, interface };
        let drivers = Arc::clone(&self.drivers);
        match self
            .lanes
            .run(Lane::Network(network), Duration::from_secs(10), move || drivers.worker.observe(&scope))
            .await
        {
            Ok(Returned::InTime(Ok(seen))) => Some(seen),
            _ => None,
        }
    }

    /// Once an hour: old answers and events forgotten; the reserve file made again when there is room.
    pub(super) async fn keep_house(self: Arc<Engine>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
            }
            let (store, now) = (self.store.clone(), self.now());
            let kept = tokio::task::spawn_blocking(move || {
                let purged = store.purge(now).map(|_| ());
                purged.and(store.remake_reserve().map(|_| ()))
            })
            .await;
            match kept {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => tracing::warn!("what is old could not be forgotten: {fault}"),
                Err(e) => tracing::error!("what is old could not be forgotten: {e}"),
            }
            self.collect_staging().await;
        }
    }

    /// Unfinished imports older than seven days go.
    async fn collect_staging(&self) {
        let Ok(rows) = self.store.read(bmi::rules::reconcile::Rows::load) else { return };
        for server in rows.datastores {
            let (Some(place), now) = (server.place, self.now()) else { continue };
            let collect =
                move || crate::drivers::storage::file::collect_staging(&place, 7 * 24 * 3_600, now.0 / 1_000_000);
            match self.lanes.run(Lane::Import(server.id), Duration::from_secs(600), collect).await {
                Ok(Returned::InTime(0)) | Err(_) | Ok(Returned::Late(_)) => {}
                Ok(Returned::InTime(n)) => {
                    tracing::info!(datastore = %server.name, "{n} unfinished imports older than 7 days were removed")
                }
            }
        }
    }
}
