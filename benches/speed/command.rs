//! `bmictl status` from its start to its end, against a bare program that connects, greets and asks the same.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::client::{Client, request};
use super::figures::{Figures, line, ms, note, ratio, title};
use super::house::House;

/// The argument that makes this program the bare one.
pub(crate) const BARE: &str = "--bare-status";
const RUNS: usize = 200;
const GOAL: Duration = Duration::from_millis(10);

/// The bare program.
pub(crate) fn bare(socket: &str) {
    let mut client = Client::connect(Path::new(socket)).expect("bmid answers");
    client.must(request("status"));
}

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title(&format!("bmictl status, a process each time, {} nodes", house.nodes()));
    let (mut floor, mut ours, mut asked) = (Figures::default(), Figures::default(), Figures::default());
    let mut client = house.connect();
    let program = std::env::current_exe().expect("a program has a path");
    for _ in 0..RUNS {
        floor.time(|| quiet(Command::new(&program).arg(BARE).arg(house.socket())));
        ours.time(|| quiet(house.client().arg("status")));
        asked.time(|| client.must(request("status")));
    }
    let by = ratio(ours.median(), floor.median());
    let found = format!(
        "{} (p99 {}), {by:.2} x a bare client ({})",
        ms(ours.median()),
        ms(ours.percentile(99)),
        ms(floor.median())
    );
    line(&format!("start to end, {RUNS} runs"), &found, "< 10 ms", ours.median() < GOAL);
    note("of that the answer itself", &ms(asked.median()));
}

fn quiet(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("it starts").success());
}
