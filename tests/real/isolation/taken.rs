//! What there is a bounded number of: leases, transfers of boot files.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::bench::{A, B, MACS, attack};
use super::wire::{Card, Question, ask_for, at, mac};
use crate::house::sh;

/// What is not offered within this time is taken not to be.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn leases_taken_under_invented_macs_leave_provisioned_machines_theirs_and_are_bounded() {
    let name = "isolation::taken::leases_taken_under_invented_macs_leave_provisioned_machines_theirs_and_are_bounded";
    attack(name, |bench| {
        let leases = |n: usize| {
            let file = bench.run_folder().join("net").join(&bench.networks[n]).join("dnsmasq/leases");
            std::fs::read_to_string(file).unwrap_or_default()
        };
        let of_b = leases(B);
        at("a", || {
            let card = Card::at(68);
            for n in 0..60 {
                let invented = [2, 0xee, 0, 0, 0, n];
                // Nothing is offered any more when all are taken.
                if let Ok(offer) = card.offer_within(AT_ONCE, card.ask(&Question::discover(invented))) {
                    card.ask(&Question::request(invented, offer.address, offer.server.unwrap()));
                }
            }
            card.came();
        });
        let lines = leases(A).lines().filter(|l| l.contains("10.100.0.")).count();
        assert!((40..=51).contains(&lines), "{lines} of 51: {}", leases(A));
        assert_eq!(leases(B), of_b, "B's are as they were");
        // Who has a reservation gets it, and who is provisioned now gets one, too.
        let asks = |as_mac: &str| {
            at("a2", || {
                let card = Card::at(68);
                card.offer(card.ask(&Question::discover(mac(as_mac)))).map(|o| o.address.to_string()).unwrap()
            })
        };
        assert_eq!(asks(MACS[A]), bench.of(A, "address"));
        let late = "52:54:00:00:00:41";
        let node = bench.run(&format!("node provision late --image golden --mac {late} --network t100")).one().clone();
        assert_eq!(asks(late), node["address"].as_str().unwrap());
        bench.run("node deprovision late");
    });
}

#[test]
fn boot_files_that_are_asked_for_and_never_taken_keep_no_other_network_waiting() {
    let name = "isolation::taken::boot_files_that_are_asked_for_and_never_taken_keep_no_other_network_waiting";
    attack(name, |bench| {
        let pids = || sh("pgrep -x dnsmasq | sort");
        let before = pids();
        let engine = |vlan: u8| IpAddr::V4(Ipv4Addr::new(10, vlan, 0, 1));
        let held: Vec<_> = at("a", || (0..800).map(|_| ask_for(engine(100), "boot.ipxe")).collect());
        let script = format!("mac/{}.ipxe", MACS[B].replace(':', "-"));
        let file = at("b", || ask_for(engine(200), &script).file()).expect("B's machine has its script");
        assert!(String::from_utf8_lossy(&file).contains(bench.of(B, "iqn")));
        assert_eq!(pids(), before, "both servers stand");
        drop(held);
    });
}
