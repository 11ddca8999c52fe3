//! What runs by itself: the reconcile timer and its bell, the watch over workers, forgetting what is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::{EngineNetwork, Id, Network};
use bmi::rules::wanted;
use bmi::step::network::ipv6_address;
use bmi::step::{Fact, InterfaceFacts, Lane, Look, WorkerKind};

use super::Engine;
use super::lanes::Returned;
use crate::drivers::worker;

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

    /// Rings the bell when what a network stands on has changed: its interface came back, its address vanished.
    pub(super) async fn tell_links(self: Arc<Engine>) {
        let news = Arc::clone(&self.drivers.news);
        let mut told = listen("links", move || news.changed(WORKERS).then_some(()).into_iter().collect());
        let mut before = self.grounds().await;
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                heard = told.recv() => if heard.is_none() { return },
            }
            // All that came meanwhile is one look; most changes on a host are of interfaces that no network stands on.
            while told.try_recv().is_ok() {}
            let now = self.grounds().await;
            // A network that was not there before is being made, and what it needs is done by that operation.
            if now.iter().any(|(id, ground)| before.get(id).is_some_and(|then| then != ground)) {
                self.bell.notify_one();
            }
            before = now;
        }
    }

    /// What the interfaces of all networks are like now: one look for all of them.
    async fn grounds(&self) -> HashMap<Id, Ground> {
        let Ok(networks) = self.store.read(wanted::networks) else { return HashMap::new() };
        let drivers = Arc::clone(&self.drivers);
        let look = move || {
            let Some(Ok(Fact::Interfaces(all))) = drivers.network.look(&Look::Interfaces) else {
                return HashMap::new();
            };
            let all: HashMap<&str, &InterfaceFacts> = all.iter().map(|i| (i.name.as_str(), i)).collect();
            let of = |(network, on): (Network, EngineNetwork)| {
                // A VLAN's interface comes back when its parent does.
                let parent = on.trunk.as_ref().map(|t| t.parent.as_str());
                let stands = [Some(on.interface.as_str()), parent].into_iter().flatten();
                (network.id, stands.filter_map(|name| all.get(name).map(|i| needed(&network, i))).collect())
            };
            networks.into_iter().map(of).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
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

/// A network's interface and its parent, those that are there.
type Ground = Vec<InterfaceFacts>;

/// What a network needs of an interface. Other addresses come and go by themselves: the kernel makes one out of every router advertisement,
/// those of the network's own dnsmasq too, and each would have all networks looked at.
fn needed(network: &Network, on: &InterfaceFacts) -> InterfaceFacts {
    let mut kept = on.clone();
    kept.addresses.retain(|a| *a == network.address);
    kept.private.retain(|a| *a == ipv6_address(network.id));
    kept
}

/// Waits for something in a thread of its own, which nobody waits for, until nobody listens any more.
fn listen<T: Send + 'static>(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use bmi::model::{Dhcp, NetworkState, Time};

    use super::*;

    #[test]
    fn a_network_stands_on_its_own_addresses_alone() {
        let id = Id::from_random([7; 16]);
        let network = Network {
            id,
            owner: None,
            name: "rack1".parse().unwrap(),
            vlan: None,
            address: "10.9.0.1/24".parse().unwrap(),
            range: None,
            dhcp: Dhcp::Serve,
            state: NetworkState::Ready,
            slot: 1,
            created_at: Time(1),
            operation: None,
            router: None,
            dns: Vec::new(),
        };
        let on = InterfaceFacts {
            name: "eth1".to_owned(),
            addresses: vec![network.address],
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            vlan: None,
            private: vec![ipv6_address(id)],
        };
        let ground = needed(&network, &on);
        let with = |change: &dyn Fn(&mut InterfaceFacts)| {
            let mut on = on.clone();
            change(&mut on);
            needed(&network, &on)
        };
        let advertised = std::net::Ipv6Addr::from(u128::from(ipv6_address(id)) | 0xc0db_74ff);
        assert_eq!(with(&|i| i.private.insert(0, advertised)), ground, "the kernel made it out of an advertisement");
        assert_eq!(with(&|i| i.addresses.push("10.8.0.1/24".parse().unwrap())), ground);
        let lost: [&dyn Fn(&mut InterfaceFacts); 6] = [
            &|i| i.private.clear(),
            &|i| i.addresses.clear(),
            &|i| i.addresses = vec!["10.9.0.1/16".parse().unwrap()],
            &|i| i.up = false,
            &|i| i.carrier = false,
            &|i| i.mtu = 1400,
        ];
        for lost in lost {
            assert_ne!(with(lost), ground);
        }
    }
}
