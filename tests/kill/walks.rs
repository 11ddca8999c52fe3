//! Which cases there are: every point a scenario passes, in every phase, and random ones until the time is up.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Instant;

use bmi::ops::{Effect, OPS};

use crate::case::{Case, play};
use crate::child;
use crate::lab::{Lab, Template};
use crate::scenario::{LOOKS, SCENARIOS};

/// Says on standard error, captured or not, how much was done.
fn say(what: &str, cases: usize, since: Instant) {
    let _ = writeln!(std::io::stderr(), "kill: {cases} cases {what} in {:.1} s", since.elapsed().as_secs_f64());
}

fn none(failed: &[String]) {
    let some: Vec<&str> = failed.iter().take(8).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} cases failed\n\n{}", failed.len(), some.join("\n\n"));
}

/// All scenarios, made ready.
fn all(lab: &Lab, test: &str) -> Vec<std::sync::Arc<Template>> {
    let numbers: Vec<usize> = (0..SCENARIOS.len()).collect();
    none(&lab.each(&numbers, |n| lab.template(test, *n).map(drop)));
    numbers.iter().map(|n| lab.template(test, *n).expect("made")).collect()
}

/// `kill` lines for the points of a trace from `from` on.
fn kills(trace: &[String], from: usize) -> Vec<String> {
    let number = |at: usize| trace[..=at].iter().filter(|p| **p == trace[at]).count();
    (from..trace.len()).map(|at| format!("kill {} {}\n", trace[at], number(at))).collect()
}

#[test]
fn every_operation_that_changes_something_has_a_scenario() {
    let covered: BTreeSet<&str> = SCENARIOS.iter().map(|s| s.op).collect();
    for entry in OPS {
        let method = entry.sheet.method();
        let changes = match entry.sheet.effect {
            Effect::Read => false,
            Effect::Change => true,
            Effect::Control => !LOOKS.contains(&method.as_str()),
        };
        assert_eq!(covered.contains(method.as_str()), changes, "{method}: killed here and changes something");
    }
    for op in covered {
        assert!(OPS.iter().any(|e| e.sheet.method() == op), "there is no operation {op}");
    }
}

#[test]
fn killed_at_every_step_boundary_nothing_is_lost_or_left() {
    const TEST: &str = "walks::killed_at_every_step_boundary_nothing_is_lost_or_left";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let mut cases = Vec::new();
    for template in all(&lab, TEST) {
        cases.push((template.clone(), Case::default()));
        for act in kills(&template.trace, 0) {
            cases.push((template.clone(), Case { act, must_strike: true, ..Case::default() }));
        }
    }
    let failed = lab.each(&cases, |(t, case)| play(&lab, TEST, t, case).map(drop));
    say("killed at every step boundary", cases.len(), since);
    none(&failed);
}
