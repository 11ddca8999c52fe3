//! Targets: told, named, reached.

use std::net::SocketAddr;
use std::time::Duration;

use super::bench::{A, B, Bench, attack, on};
use super::wire::at;
use crate::house::sh;
use crate::initiator::Session;

const LIMIT: Duration = Duration::from_secs(20);

/// A machine logs in as that node's, at that node's portal.
pub fn logs_in(bench: &Bench, machine: &str, node: usize, portal: usize) -> std::io::Result<Session> {
    let portal: SocketAddr = bench.of(portal, "portal").parse().unwrap();
    at(machine, || Session::open(portal, bench.of(node, "iqn"), bench.of(node, "initiator"), LIMIT))
}

#[test]
fn targets_of_another_network_are_not_told_and_not_reached() {
    attack("isolation::names::targets_of_another_network_are_not_told_and_not_reached", |bench| {
        for node in [A, B] {
            let machine = ["a", "b"][node];
            logs_in(bench, machine, node, node).expect("a machine reaches its own disk");
            let (told, said) = on(
                machine,
                &format!("iscsi-ls -i {} iscsi://{}", bench.of(node, "initiator"), bench.of(node, "portal")),
            );
            assert!(told && said.contains(bench.of(node, "iqn")), "it is told its own target: {said}");
        }
        for name in [A, B] {
            let portal = bench.of(A, "portal");
            let (_, said) = on("a", &format!("iscsi-ls -i {} iscsi://{portal}", bench.of(name, "initiator")));
            assert!(!said.contains(bench.of(B, "iqn")), "told on A: {said}");
        }
        assert!(logs_in(bench, "a", B, A).is_err(), "B's target by its exact name, at A's portal");
        assert!(logs_in(bench, "a", B, B).is_err(), "at B's portal, by a route of its own");
        assert!(logs_in(bench, "a", A, B).is_err());
        let (told, said) =
            on("a", &format!("timeout 3 iscsi-ls -i {} iscsi://{}", bench.of(B, "initiator"), bench.of(B, "portal")));
        assert!(!told && !said.contains(bench.of(B, "iqn")), "told by B's portal: {said}");
        // Those who were turned away are counted, once bmid has looked at its tgtd again.
        bench.until("doctor", |f| {
            f["check"] == "door on bmi-v200" && f["found"].as_str().is_some_and(|t| t.contains("from other networks"))
        });
    });
}

#[test]
fn nothing_but_what_a_network_needs_listens_on_its_address() {
    attack("isolation::names::nothing_but_what_a_network_needs_listens_on_its_address", |_| {
        let listening = sh("ss -Hlntu | awk '{print $1, $5}'");
        let (mut open, mut tgtds) = (Vec::new(), 0);
        for (kind, address) in listening.lines().filter_map(|l| l.split_once(' ')) {
            let port = address.rsplit(':').next().unwrap();
            match (kind, port) {
                ("tcp", "3260") if address.starts_with("10.") => tgtds += 1,
                // Boot files by HTTP.
                ("tcp", "8067") if address.starts_with("10.") || address.starts_with("[fd97:") => {}
                // Transfers of boot files that are on their way have ports of their own.
                ("udp", "67" | "69") => {}
                ("udp", _) if address.starts_with("10.") => {}
                _ => open.push(format!("{kind} {address}")),
            }
        }
        assert!(open.is_empty() && tgtds == 2, "{open:?} in {listening}");
    });
}
