//! One `node provision` at a time, at 10, 100 and 1,000 nodes on one network, against the floor.

use std::time::Duration;

use super::client::request;
use super::figures::{Figures, line, ms, note, ratio, title};
use super::floor::Floor;
use super::house::{House, mac};

/// How often at each number of nodes.
const ROUNDS: u32 = 150;
/// After each guest is gone dnsmasq reads all its reservations anew, some 20 ms at 1,000: no part of the next provision.
const SETTLE: Duration = Duration::from_millis(60);
/// What it may be, in times the floor.
const GOAL: f64 = 1.5;
/// Numbers of the machines that come and go.
const GUESTS: usize = 20_000;

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title("node provision, one after another, over the socket (the floor takes turns with it)");
    house.fill(10);
    let mut floor = Floor::new(house);
    for nodes in [10, 100, 1_000] {
        let mut filling = Figures::default();
        let before = house.nodes();
        filling.time(|| house.fill(nodes));
        if nodes > before {
            let each = filling.median() / u32::try_from(nodes - before).expect("few");
            note(&format!("{before} to {nodes} nodes in one call"), &format!("{} a node", ms(each)));
        }
        floor.fill(nodes);
        measure(house, &mut floor, nodes);
    }
}

fn measure(house: &House, floor: &mut Floor, nodes: usize) {
    let (mut bare, mut ours) = (Figures::default(), Figures::default());
    let mut client = house.connect();
    for round in 0..ROUNDS {
        let provision = request(&format!(
            "node provision guest{round} --image golden --mac {} --network net1",
            mac(GUESTS + round as usize)
        ));
        let tid = 1_000_000 + round;
        // Whoever comes second finds warmer caches, so they change places.
        if round % 2 == 0 {
            bare.time(|| floor.provision(tid));
        }
        ours.time(|| client.must(provision));
        if round % 2 == 1 {
            bare.time(|| floor.provision(tid));
        }
        floor.deprovision(tid);
        client.must(request(&format!("node deprovision guest{round}")));
        std::thread::sleep(SETTLE);
    }
    let by = ratio(ours.median(), bare.median());
    let found = format!(
        "{by:.2} x floor ({} to {}; p99 {} to {})",
        ms(ours.median()),
        ms(bare.median()),
        ms(ours.percentile(99)),
        ms(bare.percentile(99))
    );
    line(&format!("at {nodes} nodes"), &found, &format!("<= {GOAL}"), by <= GOAL);
}
