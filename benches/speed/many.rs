//! A rack at once: 24 machines, by 24 requests and by one call.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::client::{Client, request};
use super::figures::{Figures, line, ms, title};
use super::house::{House, mac};

const MACHINES: usize = 24;
const ROUNDS: usize = 7;
const GOAL: Duration = Duration::from_secs(1);
/// Numbers of the machines that come and go.
const GUESTS: usize = 40_000;

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title(&format!("{MACHINES} machines at once, {} nodes there already", house.nodes()));
    let (mut apart, mut bulk) = (Figures::default(), Figures::default());
    let mut client = house.connect();
    for _ in 0..ROUNDS {
        apart.add(side_by_side(house));
        clear(&mut client);
        let names: Vec<String> = (0..MACHINES).map(|i| format!("--node rack{i},{}", mac(GUESTS + i))).collect();
        let all = request(&format!("node provision --image golden --network net1 {}", names.join(" ")));
        assert_eq!(bulk.time(|| client.must(all)).len(), MACHINES);
        clear(&mut client);
    }
    for (what, figures) in [("24 requests, each on its own connection", &apart), ("one call", &bulk)] {
        let found = format!("{} (worst of {}: {})", ms(figures.median()), figures.count(), ms(figures.worst()));
        line(what, &found, "< 1 s", figures.worst() < GOAL);
    }
}

/// All at the same moment; how long until the last was answered.
fn side_by_side(house: &House) -> Duration {
    let start = Barrier::new(MACHINES + 1);
    let mut clients: Vec<Client> = (0..MACHINES).map(|_| house.connect()).collect();
    std::thread::scope(|scope| {
        for (i, client) in clients.iter_mut().enumerate() {
            let start = &start;
            let line = format!("node provision rack{i} --image golden --mac {} --network net1", mac(GUESTS + i));
            scope.spawn(move || {
                let provision = request(&line);
                start.wait();
                client.must(provision)
            });
        }
        start.wait();
        Instant::now()
    })
    .elapsed()
}

fn clear(client: &mut Client) {
    for i in 0..MACHINES {
        client.must(request(&format!("node deprovision rack{i}")));
    }
}
