//! bmid killed and started again with a thousand nodes; their tgtd killed; what bmid takes of memory meanwhile.

use std::time::{Duration, Instant};

use super::client::request;
use super::figures::{Figures, line, ms, title};
use super::house::{ADDRESS, House, sh};
use super::target;

const NODES: usize = 1_000;
const STARTS: usize = 5;
const DEATHS: usize = 3;
const MEMORY_KIB: u64 = 64 << 10;

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title(&format!("restart and memory with {NODES} nodes"));
    house.fill(NODES);
    memory(house, "memory after provisioning them");
    let mut starts = Figures::default();
    for _ in 0..STARTS {
        house.kill();
        starts.add(house.up());
        settle(house);
    }
    memory(house, "memory after a restart");
    let found = format!("{} (worst of {STARTS}: {})", ms(starts.median()), ms(starts.worst()));
    line("start to first answer", &found, "< 1 s", starts.worst() < Duration::from_secs(1));
    let mut refills = Figures::default();
    for _ in 0..DEATHS {
        refills.add(refill(house));
        // A new bmid: one that has just started a worker waits before it starts it again.
        house.kill();
        house.up();
        settle(house);
    }
    let found = format!("{} (worst of {DEATHS}: {})", ms(refills.median()), ms(refills.worst()));
    line("tgtd killed: all targets back, portal open", &found, "< 5 s", refills.worst() < Duration::from_secs(5));
    memory(house, "memory after refilling");
}

/// Waits until the first look at everything outside is over: a second one has nothing to do and waits for the first.
fn settle(house: &House) {
    house.connect().must(request("reconcile"));
}

fn refill(house: &House) -> Duration {
    let socket = house.tgtd();
    let all = target::count(&socket).expect("tgtd answers");
    assert!(all >= NODES, "{all} targets");
    let pid = sh(&format!("cat {}", socket.with_file_name("pid").display()));
    let begun = Instant::now();
    sh(&format!("kill -9 {pid}"));
    let end = begun + Duration::from_secs(120);
    while target::count(&socket) != Some(all) || !target::listens(&socket, ADDRESS) {
        assert!(Instant::now() < end, "the targets did not come back: {:?} of {all}", target::count(&socket));
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn memory(house: &House, what: &str) {
    let (now, most) = (house.about("VmRSS"), house.about("VmHWM"));
    let found = format!(
        "{:.1} MiB (at most {:.1}), {} threads",
        now as f64 / 1024.0,
        most as f64 / 1024.0,
        house.about("Threads")
    );
    line(what, &found, "< 64 MiB", most < MEMORY_KIB);
}
