//! How fast, as ratios: each figure stands beside the floor or the other way of doing it, measured in the same run, turn by
//! turn. Nothing here judges by a clock: a slow machine prints larger numbers and fails nothing.
//!
//! Everything runs in namespaces of its own and ends with this program. `cargo bench --bench speed -- provision client` runs
//! only what is named; BMI_BENCH_DIR says on which disk (some 5 GiB; else below target/).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot be set up has to fail")]

mod bare;
mod client;
mod command;
mod figures;
mod floor;
mod house;
mod many;
mod networks;
mod pools;
mod provision;
mod restart;
mod shell;
mod target;
mod vlans;

use house::House;

/// Measures and prints.
type Part = fn(&mut House);

/// What can be measured, in the order in which it is: what needs a thousand nodes comes when they are there.
const PARTS: [(&str, Part); 8] = [
    ("provision", provision::run),
    ("shell", shell::run),
    ("many", many::run),
    ("restart", restart::run),
    ("client", command::run),
    ("vlans", vlans::run),
    ("pools", pools::run),
    // Afterwards there is more than one tgtd.
    ("networks", networks::run),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [what, socket] = args.as_slice()
        && what == command::BARE
    {
        return command::bare(socket);
    }
    let unknown = |a: &&String| !PARTS.iter().any(|(name, _)| name == a);
    if let Some(what) = args.iter().find(unknown) {
        let all: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no part {what:?}; there are {}", all.join(", "));
        std::process::exit(2);
    }
    if !house::inside(&args) {
        return;
    }
    let mut house = House::new();
    println!("{}", house.machine());
    for (name, run) in PARTS {
        if args.is_empty() || args.iter().any(|a| a == name) {
            run(&mut house);
        }
    }
}
