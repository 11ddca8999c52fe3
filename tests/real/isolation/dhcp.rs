//! DHCP: whose questions are heard where, and whose answers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::bench::{A, B, MACS, attack};
use super::wire::{Card, DISCOVER, Offer, Question, answer, at, mac};

fn of_b(offer: &Offer) -> bool {
    let inside = |a: Ipv4Addr| a.octets()[..3] == [10, 200, 0];
    inside(offer.address) || offer.server.is_some_and(inside)
}

/// A machine asks as any machine does: what it is offered first.
fn asks(machine: &str, as_mac: &str) -> Offer {
    at(machine, || {
        let card = Card::at(68);
        let xid = card.ask(&Question::discover(mac(as_mac)));
        card.offer(xid).unwrap_or_else(|e| panic!("{machine}: {e}"))
    })
}

#[test]
fn another_networks_reservations_are_not_given_out() {
    attack("isolation::dhcp::another_networks_reservations_are_not_given_out", |bench| {
        let own = asks("b", MACS[B]);
        assert_eq!(own.address.to_string(), bench.of(B, "address"), "B's own machine gets it");
        let stolen = asks("a", MACS[B]);
        assert!(!of_b(&stolen) && stolen.address.octets()[..3] == [10, 100, 0], "{stolen:?}");
        assert_eq!(asks("a", MACS[A]).address.to_string(), bench.of(A, "address"));

        // As a relay that says to stand in B's subnet, as one that selects it, of B's own server; what comes back to
        // anybody. A relay's answers go to where it says to be: `b2` takes them there.
        let of = |relay: [u8; 4], to: [u8; 4], more: &[&[u8]]| Question {
            mac: mac(MACS[B]),
            relay: relay.into(),
            options: [&DISCOVER[..], &more.concat()].concat(),
            to: to.into(),
        };
        let (all, engine, theirs) = ([255; 4], [10, 100, 0, 1], [10, 200, 0, 1]);
        let subnet: &[u8] = &[118, 4, 10, 200, 0, 0];
        let agent: &[u8] = &[82, 12, 5, 4, 10, 200, 0, 0, 11, 4, 10, 200, 0, 1];
        let wants: &[u8] = &[50, 4, 10, 200, 0, 77, 54, 4, 10, 200, 0, 1];
        let questions = [
            of([0; 4], theirs, &[]),
            of([0; 4], theirs, &[wants]),
            of([10, 200, 0, 51], all, &[]),
            of([10, 200, 0, 51], theirs, &[]),
            of([10, 100, 0, 50], theirs, &[]),
            of([10, 100, 0, 50], engine, &[subnet]),
            of([10, 100, 0, 50], engine, &[agent]),
            of([10, 100, 0, 50], theirs, &[agent, subnet]),
            of([0; 4], all, &[subnet, wants]),
            of([0; 4], all, &[agent]),
        ];
        let relay = at("b2", || Card::at(67));
        let came = at("a", || {
            let (client, server) = (Card::at(68), Card::at(67));
            for question in &questions {
                client.ask(question);
            }
            // When this is answered, so were those.
            client.offer(client.ask(&Question::discover(mac(MACS[A])))).unwrap();
            asks("b", MACS[B]);
            [client.came(), server.came()].into_iter().flatten().collect::<Vec<_>>()
        });
        assert!(came.iter().all(|o| !of_b(o)), "A is told of B: {came:?}");
        assert_eq!(relay.came(), [], "B's machines are sent nothing for it");
    });
}

#[test]
fn a_dhcp_server_on_one_network_is_not_heard_on_another() {
    attack("isolation::dhcp::a_dhcp_server_on_one_network_is_not_heard_on_another", |bench| {
        let evil = Offer {
            address: Ipv4Addr::new(10, 200, 0, 66),
            server: Some(Ipv4Addr::new(10, 100, 0, 50)),
            file: "evil".to_owned(),
        };
        let (stop, heard_b) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                at("a", || {
                    let card = Card::at(67);
                    while !stop.load(Ordering::Relaxed) {
                        let Some(question) = card.next(Duration::from_millis(50)) else { continue };
                        if question.len() > 240 && question[28..34] == mac(MACS[B]) {
                            heard_b.fetch_add(1, Ordering::Relaxed);
                        }
                        if question.first() == Some(&1) && question.len() > 240 {
                            card.tell(&answer(&question, &evil));
                        }
                    }
                });
            });
            let _stop = StopAtEnd(&stop);
            // It is heard where it stands: that it answers is seen, and doctor tells of it.
            at("a2", || {
                let card = Card::at(68);
                let is_there = (0..200).any(|_| {
                    card.ask(&Question::discover([2, 0, 0, 0, 0, 9]));
                    card.came().contains(&evil)
                });
                assert!(is_there, "the hostile server is heard on its own network");
            });
            let warned = |on: &str| {
                let check = format!("DHCP on {on}");
                bench.run("doctor").items.iter().any(|f| f["check"] == check.as_str() && f["severity"] == "error")
            };
            assert!(warned("bmi-v100"), "doctor tells of it");
            assert!(!warned("bmi-v200"), "there, and not on the other network");
            for _ in 0..5 {
                let (offer, more) = at("b", || {
                    let card = Card::at(68);
                    let offer = card.offer(card.ask(&Question::discover(mac(MACS[B])))).unwrap();
                    (offer, card.came())
                });
                assert_eq!(offer.server, Some(Ipv4Addr::new(10, 200, 0, 1)), "{offer:?}");
                assert!(more.iter().chain([&offer]).all(|o| *o != evil), "{more:?}");
            }
        });
        assert_eq!(heard_b.load(Ordering::Relaxed), 0, "B's questions are not heard on A");
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
