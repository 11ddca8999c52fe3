//! One `node provision` at a time, against a bare clone and the same requests to a tgtd.

use std::time::Duration;

use super::super::figures::{Figures, line, ms, note, ratio, title};
use super::super::house::House;
use super::floor::Floor;
use super::{NODES, Pooled, away};

const ROUNDS: u32 = 40;
/// What it may be, in times the floor.
const GOAL: f64 = 1.2;

/// Measures and prints.
pub(super) fn run(house: &House, pooled: &mut Pooled) {
    title("pool: node provision, one after another (the floor takes turns with it)");
    let floor = Floor::new(pooled, u32::try_from(NODES).expect("few"));
    let (mut bare, mut ours, mut clones, mut targets) =
        (Figures::default(), Figures::default(), Figures::default(), Figures::default());
    let mut client = house.connect();
    for round in 0..ROUNDS {
        let (tid, name) = (1_000 + round, format!("guest{round}"));
        let provision = pooled.one("rack1", &name);
        let mut once = || {
            let (clone, target) = floor.provision(pooled, tid);
            clones.add(clone);
            targets.add(target);
            bare.add(clone + target);
        };
        // Whoever comes second finds warmer caches, so they change places.
        if round % 2 == 0 {
            once();
        }
        ours.time(|| client.must(provision));
        if round % 2 == 1 {
            once();
        }
        floor.deprovision(pooled, tid);
        away(&mut client, &name);
        pooled.settle();
        std::thread::sleep(Duration::from_millis(60));
    }
    let by = ratio(ours.median(), bare.median());
    let found = format!(
        "{by:.2} x floor ({} to {}; p90 {} to {})",
        ms(ours.median()),
        ms(bare.median()),
        ms(ours.percentile(90)),
        ms(bare.percentile(90))
    );
    line(&format!("at {NODES} nodes"), &found, &format!("<= {GOAL}"), by <= GOAL);
    note("of the floor: rbd_clone3", &ms(clones.median()));
    note("of the floor: the requests to tgtd", &ms(targets.median()));
    // bmid's tgtd opens a disk when it is first asked for, so this is the floor beneath the floor.
    note("against rbd_clone3 alone", &format!("{:.2} times", ratio(ours.median(), clones.median())));
}
