//! What runs by itself: the reconcile timer and its bell, the look after workers, the hourly dump, forgetting what is old.

use std::collections::HashSet;
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
/// Dumps kept: two days of hourly ones.
const DUMPS: usize = 48;

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
            if let Err(fault) = self.reconcile(false).await {
                tracing::warn!("reconcile could not look: {fault}");
            }
        }
    }

    /// Rings the bell when a worker that ran is gone.
    pub(super) async fn look_after_workers(self: Arc<Engine>) {
        let mut running: HashSet<(Id, WorkerKind)> = HashSet::new();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(WORKERS) => {}
            }
            let Ok(networks) = self.store.read(wanted::networks) else { continue };
            let mut missing = false;
            for (network, on) in networks {
                let scope = Scope::Network { network: network.id, interface: on.interface };
                let drivers = Arc::clone(&self.drivers);
                let seen = self
                    .lanes
                    .run(Lane::Network(network.id), Duration::from_secs(10), move || drivers.worker.observe(&scope))
                    .await;
                let Ok(Returned::InTime(Ok(seen))) = seen else { continue };
                for kind in [WorkerKind::Tgtd, WorkerKind::Dnsmasq] {
                    if seen.iter().any(|s| matches!(s, Seen::Worker(k, _) if *k == kind)) {
                        running.insert((network.id, kind));
                        continue;
                    }
                    missing = true;
                    if running.remove(&(network.id, kind)) {
                        tracing::warn!(network = %network.name, "{} of network {} has died", kind.as_str(), network.name);
                        self.noticed(
                            "worker.died",
                            format!("{} of network {} has died; it is started again", kind.as_str(), network.name),
                        )
                        .await;
                    }
                }
            }
            if missing {
                self.bell.notify_one();
            }
        }
    }

    /// Once an hour: a dump, and old answers and events forgotten; the reserve file made again when there is room.
    pub(super) async fn keep_house(self: Arc<Engine>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
            }
            let (store, now) = (self.store.clone(), self.now());
            let kept = tokio::task::spawn_blocking(move || {
                let done = store.dump_to(&store.dir().join("dumps"), DUMPS, now).map(|_| ());
                let purged = store.purge(now).map(|_| ());
                done.and(purged).and(store.remake_reserve().map(|_| ()))
            })
            .await;
            match kept {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => tracing::warn!("the hourly dump failed: {fault}"),
                Err(e) => tracing::error!("the hourly dump failed: {e}"),
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
