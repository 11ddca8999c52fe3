//! Rings the bell for reconcile when what a network stands on has changed: its interface came back, its address vanished. The kernel's news
//! come in bursts and tell nothing here but that somebody should look. Never changes anything itself.

use std::collections::HashMap;
use std::sync::Arc;

use bmi::model::{EngineNetwork, Id, Network};
use bmi::rules::wanted;
use bmi::step::network::ipv6_address;
use bmi::step::{Fact, InterfaceFacts, Look};

use super::Engine;
use super::watch::{WORKERS, listen};

/// What a network stands on, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ground {
    /// Its interface is there, up, and has the network's address.
    whole: bool,
    /// Its interface and the parent of that, those that are there.
    on: Vec<InterfaceFacts>,
}

/// Of each network that is set up.
type Grounds = HashMap<Id, Ground>;

/// What a look says is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Something is otherwise than it was seen last.
    Changed,
    /// Nothing is, but what a network needs is not there: it was lost before anybody looked, or again before it was seen repaired.
    Missing,
}

impl Engine {
    /// Rings the bell when what a network stands on has changed or is not there.
    pub(super) async fn tell_links(self: Arc<Engine>) {
        let news = Arc::clone(&self.drivers.news);
        let mut told = listen("links", move || news.changed(WORKERS).then_some(()).into_iter().collect());
        let mut before = Grounds::new();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                heard = told.recv() => if heard.is_none() { return },
            }
            // All that came meanwhile is one look; most changes on a host are of interfaces that no network stands on.
            while told.try_recv().is_ok() {}
            let now = self.grounds().await;
            let need = need(&before, &now);
            before = now;
            if need != Need::Nothing {
                self.bell.notify_one();
            }
            if need == Need::Missing {
                // What bmid cannot repair is not tried for each interface that comes and goes beside it.
                tokio::time::sleep(WORKERS).await;
            }
        }
    }

    /// What the interfaces of all networks are like now: one look for all of them.
    async fn grounds(&self) -> Grounds {
        let Ok(networks) = self.store.read(wanted::networks) else { return Grounds::new() };
        let drivers = Arc::clone(&self.drivers);
        let look = move || {
            let Some(Ok(Fact::Interfaces(all))) = drivers.network.look(&Look::Interfaces) else {
                return Grounds::new();
            };
            let all: HashMap<&str, &InterfaceFacts> = all.iter().map(|i| (i.name.as_str(), i)).collect();
            networks.iter().map(|(network, on)| (network.id, ground(network, on, &all))).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// What one network stands on.
fn ground(network: &Network, engine: &EngineNetwork, all: &HashMap<&str, &InterfaceFacts>) -> Ground {
    let own = all.get(engine.interface.as_str());
    // A VLAN's interface comes back when its parent does.
    let parent = engine.trunk.as_ref().and_then(|t| all.get(t.parent.as_str()));
    let whole = own.is_some_and(|i| i.up && i.addresses.contains(&network.address));
    Ground { whole, on: [own, parent].into_iter().flatten().map(|i| needed(network, i)).collect() }
}

/// What a network needs of an interface. Other addresses come and go by themselves: the kernel makes one out of every router advertisement,
/// those of the network's own dnsmasq too, and each would have all networks looked at.
fn needed(network: &Network, on: &InterfaceFacts) -> InterfaceFacts {
    let mut kept = on.clone();
    kept.addresses.retain(|a| *a == network.address);
    kept.private.retain(|a| *a == ipv6_address(network.id));
    kept
}

/// What is to be done. A network that was not there before has just been made, and what it needs was put there by that operation.
fn need(before: &Grounds, now: &Grounds) -> Need {
    if now.iter().any(|(id, ground)| before.get(id).is_some_and(|then| then != ground)) {
        return Need::Changed;
    }
    if now.values().any(|ground| !ground.whole) { Need::Missing } else { Need::Nothing }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use bmi::model::{Dhcp, NetworkState, Time};

    use super::*;

    fn network() -> Network {
        Network {
            id: Id::from_random([7; 16]),
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
        }
    }

    fn interface() -> InterfaceFacts {
        InterfaceFacts {
            name: "eth1".to_owned(),
            addresses: vec![network().address],
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            vlan: None,
            private: vec![ipv6_address(network().id)],
        }
    }

    /// The network seen on eth1, as it usually is but for a change.
    fn seen(change: impl FnOnce(&mut InterfaceFacts)) -> Grounds {
        let mut on = interface();
        change(&mut on);
        grounds(&HashMap::from([("eth1", &on)]))
    }

    fn grounds(all: &HashMap<&str, &InterfaceFacts>) -> Grounds {
        let network = network();
        let engine = EngineNetwork {
            id: Id::from_random([8; 16]),
            network: network.id,
            engine: Id::from_random([9; 16]),
            interface: "eth1".to_owned(),
            address_ours: true,
            trunk: None,
        };
        Grounds::from([(network.id, ground(&network, &engine, all))])
    }

    #[test]
    fn a_network_stands_on_its_own_addresses_alone() {
        let before = seen(|_| {});
        let advertised = std::net::Ipv6Addr::from(u128::from(ipv6_address(network().id)) | 0xc0db_74ff);
        let made = seen(|i| i.private.insert(0, advertised));
        assert_eq!(need(&before, &made), Need::Nothing, "the kernel made it out of an advertisement");
        assert_eq!(need(&before, &seen(|i| i.addresses.push("10.8.0.1/24".parse().unwrap()))), Need::Nothing);
        let lost: [fn(&mut InterfaceFacts); 6] = [
            |i| i.private.clear(),
            |i| i.addresses.clear(),
            |i| i.addresses = vec!["10.9.0.1/16".parse().unwrap()],
            |i| i.up = false,
            |i| i.carrier = false,
            |i| i.mtu = 1400,
        ];
        for lost in lost {
            assert_eq!(need(&before, &seen(lost)), Need::Changed);
            assert_eq!(need(&seen(lost), &before), Need::Changed, "it is back");
        }
    }

    #[test]
    fn what_was_lost_before_anybody_looked_or_again_meanwhile_is_missed_all_the_same() {
        let whole = seen(|_| {});
        assert_eq!(need(&Grounds::new(), &whole), Need::Nothing, "a network was made");
        let gone = grounds(&HashMap::new());
        let lost: [Grounds; 3] = [seen(|i| i.addresses.clear()), seen(|i| i.up = false), gone];
        for lost in lost {
            assert_eq!(need(&Grounds::new(), &lost), Need::Missing, "its making was not seen");
            assert_eq!(need(&lost, &lost), Need::Missing, "its repair was not seen");
        }
        let unplugged = seen(|i| i.carrier = false);
        assert_eq!(need(&unplugged, &unplugged), Need::Nothing, "nothing that bmid could repair");
    }
}
