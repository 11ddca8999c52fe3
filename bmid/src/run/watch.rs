//! What runs by itself: the reconcile timer and its bell, the watch over workers, forgetting what is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::{Id, Network};
use bmi::rules::wanted;
use bmi::step::{Lane, WorkerKind};

use super::Engine;
use super::lanes::Returned;
use crate::drivers::worker;

/// Workers are looked after this often.
pub(super) const WORKERS: Duration = Duration::from_secs(1);

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

    /// Tells of workers that die, in the moment in which they do, and rings the bell for them.
    pub(super) async fn tell_deaths(self: Arc<Engine>) {
        let watch = Arc::clone(&self.drivers.watch);
        let mut told = listen("deaths", move || watch.died(WORKERS));
        loop {
            let death = tokio::select! {
                () = self.stopping.cancelled() => return,
                death = told.recv() => match death {
                    Some(death) => death,
                    None => return,
                },
            };
            self.sight.forget(death.network, death.kind);
            self.bell.notify_one();
            let Ok(networks) = self.store.read(wanted::networks) else { continue };
            let Some((network, _)) = networks.into_iter().find(|(n, _)| n.id == death.network) else { continue };
            let when = if death.unseen { " while no bmid looked" } else { "" };
            let process = if death.pid == 0 { String::new() } else { format!(" (process {})", death.pid) };
            let what = format!("{} of network {}{process} has died{when}", death.kind.as_str(), network.name);
            tracing::warn!(network = %network.name, "{what}");
            self.noticed("worker.died", format!("{what}; it is started again")).await;
        }
    }

    /// Has every network's workers looked at each second. Rings the bell while one is missing or hung; tells of those that
    /// fall silent, and when they are back.
    pub(super) async fn look_after_workers(self: Arc<Engine>) {
        let mut silent: HashMap<(Id, WorkerKind), u32> = HashMap::new();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(WORKERS) => {}
            }
            let Ok(networks) = self.store.read(wanted::networks) else { continue };
            let ids: Vec<Id> = networks.iter().map(|(n, _)| n.id).collect();
            self.sight.forget_all_but(&ids);
            silent.retain(|(id, _), _| ids.contains(id));
            for (network, _) in networks {
                // What it finds is judged a second later: a tgtd that hangs must not keep the others waiting.
                self.sight.glance(network.id);
                if self.sight.health(network.id).iter().any(|h| h.pid == 0) {
                    self.bell.notify_one();
                }
                for kind in [WorkerKind::Tgtd, WorkerKind::Dnsmasq, WorkerKind::Http] {
                    self.judge(&network, kind, &mut silent).await;
                }
            }
        }
    }

    /// Tells of a worker that has fallen silent or is back.
    async fn judge(&self, network: &Network, kind: WorkerKind, told: &mut HashMap<(Id, WorkerKind), u32>) {
        let key = (network.id, kind);
        let named = format!("{} of network {}", kind.as_str(), network.name);
        let Some(now) = self.sight.silent(network.id, kind) else {
            if let Some(pid) = told.remove(&key)
                && self.sight.health(network.id).iter().any(|h| h.kind == kind && h.running && h.pid == pid)
            {
                self.noticed("worker.answers", format!("{named} (process {pid}) answers again")).await;
            }
            return;
        };
        if now.is_hung() {
            self.bell.notify_one();
        }
        if told.insert(key, now.pid) != Some(now.pid) {
            tracing::warn!(network = %network.name, "{named}: {}", now.told());
            let then = format!("if it stays so for {} s, a new one is started in its place", worker::SILENT);
            self.noticed("worker.silent", format!("{named}: {}; {then}", now.told())).await;
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

/// Waits for something in a thread of its own, which nobody waits for, until nobody listens any more.
pub(super) fn listen<T: Send + 'static>(
    name: &str,
    mut wait: impl FnMut() -> Vec<T> + Send + 'static,
) -> tokio::sync::mpsc::UnboundedReceiver<T> {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let waiting = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while !tell.is_closed() {
            for news in wait() {
                // Closed: bmid stops.
                let _ = tell.send(news);
            }
        }
    });
    if let Err(e) = waiting {
        tracing::warn!("no thread to wait for {name}: they are noticed later: {e}");
    }
    told
}
