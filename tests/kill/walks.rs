//! Which cases there are: every point a scenario passes, in every phase, and random ones until the time is up.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmi::ops::{Effect, OPS};

use crate::case::{Case, play};
use crate::child;
use crate::dice::{self, Dice};
use crate::disks::Disks;
use crate::lab::{Lab, Template};
use crate::scenario::{LOOKS, SCENARIOS, Special};

/// A number that whoever runs the tests may give.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().expect("a number"))
}

/// Says on standard error, captured or not, how much was done.
pub fn say(what: &str, cases: usize, since: Instant) {
    let _ = writeln!(std::io::stderr(), "kill: {cases} cases {what} in {:.1} s", since.elapsed().as_secs_f64());
}

pub fn none(failed: &[String]) {
    let some: Vec<&str> = failed.iter().take(8).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} cases failed\n\n{}", failed.len(), some.join("\n\n"));
}

/// All scenarios, made ready.
fn all(lab: &Lab, test: &str) -> Vec<Arc<Template>> {
    ready(lab, test, Disks::Simulated)
}

/// All scenarios that such disks can be used for, made ready.
pub fn ready(lab: &Lab, test: &str, disks: Disks) -> Vec<Arc<Template>> {
    let used = |n: &usize| disks == Disks::Simulated || SCENARIOS[*n].is_of_disks();
    let numbers: Vec<usize> = (0..SCENARIOS.len()).filter(used).collect();
    none(&lab.each(&numbers, |n| lab.template(test, *n, disks).map(drop)));
    numbers.iter().map(|n| lab.template(test, *n, disks).expect("made")).collect()
}

/// `kill` lines for the points of a trace from `from` on.
pub fn kills(trace: &[String], from: usize) -> Vec<String> {
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
            // How far an operation has come when it is cancelled is chance.
            let must_strike = template.scenario.op != "op.cancel";
            cases.push((template.clone(), Case { act, must_strike, ..Case::default() }));
        }
    }
    let failed = lab.each(&cases, |(t, case)| play(&lab, TEST, t, case).map(drop));
    say("killed at every step boundary", cases.len(), since);
    none(&failed);
}

/// A scenario made to undo all it can.
pub struct Undoing {
    /// The fault that makes it.
    pub fail: String,
    /// The points it passes.
    pub trace: Vec<String>,
    /// Where in them the undoing begins.
    pub from: usize,
}

/// How a scenario is made to undo all it can; none if there is nothing to be undone in it.
pub fn undoing(lab: &Lab, test: &str, template: &Template) -> Result<Option<Undoing>, String> {
    const LINES: [&str; 2] = ["journal.final.applied", "journal.end.applied"];
    let end = template.trace.iter().position(|p| LINES.contains(&p.as_str())).unwrap_or(0);
    let Some(at) = template.trace[..end].iter().rposition(|p| p.ends_with(".after")) else { return Ok(None) };
    if !template.scenario.faults.is_empty() {
        return Ok(None);
    }
    let fail = kills(&template.trace[..=at], at)[0].replace("kill ", "fail ");
    let trace = play(lab, test, template, &Case { act: fail.clone(), ..Case::default() })?;
    match trace.iter().position(|p| p == "journal.unwind.applied") {
        Some(from) => Ok(Some(Undoing { fail, trace, from })),
        None => Err(format!("{}: {fail} does not make it undo", template.scenario.name())),
    }
}

#[test]
fn failing_at_every_step_boundary_it_is_undone_or_goes_on() {
    const TEST: &str = "walks::failing_at_every_step_boundary_it_is_undone_or_goes_on";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let mut cases = Vec::new();
    for template in all(&lab, TEST).into_iter().filter(|t| t.scenario.faults.is_empty()) {
        for kill in kills(&template.trace, 0).iter().filter(|k| !k.starts_with("kill journal.")) {
            cases.push((template.clone(), Case { act: kill.replace("kill ", "fail "), ..Case::default() }));
        }
    }
    let failed = lab.each(&cases, |(t, case)| play(&lab, TEST, t, case).map(drop));
    say("failing at every step boundary", cases.len(), since);
    none(&failed);
}

#[test]
fn killed_at_every_step_boundary_of_undoing_nothing_is_lost_or_left() {
    const TEST: &str = "walks::killed_at_every_step_boundary_of_undoing_nothing_is_lost_or_left";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let cases = Mutex::new(Vec::new());
    let found = lab.each(&all(&lab, TEST), |template| {
        if let Some(Undoing { fail, trace, from }) = undoing(&lab, TEST, template)? {
            for kill in kills(&trace, from) {
                let case = Case { act: format!("{kill}{fail}"), must_strike: true, ..Case::default() };
                cases.lock().expect("no panic").push((template.clone(), case));
            }
        }
        Ok(())
    });
    none(&found);
    let cases = cases.into_inner().expect("no panic");
    let failed = lab.each(&cases, |(t, case)| play(&lab, TEST, t, case).map(drop));
    say("killed at every step boundary of undoing", cases.len(), since);
    none(&failed);
}

/// A first kill, and the points that a recovery from there passes.
#[derive(Clone)]
pub struct Start {
    pub phase: String,
    pub act: String,
    pub then: Vec<String>,
}

/// A recovery does what was not done yet, and before its line also what was.
pub fn start(phase: &str, trace: &[String], fail: &str) -> Start {
    let at = trace.iter().position(|p| p == phase).map_or(trace.len(), |at| at + 1);
    Start { phase: phase.to_owned(), act: format!("kill {phase} 1\n{fail}"), then: trace[at..].to_vec() }
}

/// An import recovers without its input: what it passes then is found out by trying.
pub fn import(lab: &Lab, test: &str, template: &Template) -> Result<Vec<Start>, String> {
    let tried = |phase: &str| {
        let case = Case { act: format!("kill {phase} 1\n"), recover: vec![String::new()], ..Case::default() };
        let trace = play(lab, test, template, &case)?;
        let Start { act, then, .. } = start(phase, &trace, "");
        Ok(Start { phase: format!("{phase} of an import"), act, then })
    };
    ["journal.begin.durable", "storage.import.staged", "storage.import.after"].map(tried).into_iter().collect()
}

#[test]
fn killed_again_while_recovering_at_every_kind_of_step_nothing_is_lost_or_left() {
    const TEST: &str = "walks::killed_again_while_recovering_at_every_kind_of_step_nothing_is_lost_or_left";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let templates = all(&lab, TEST);
    let undone: Vec<Mutex<Option<Undoing>>> = templates.iter().map(|_| Mutex::default()).collect();
    let numbers: Vec<usize> = (0..templates.len()).collect();
    none(&lab.each(&numbers, |n| {
        *undone[*n].lock().expect("no panic") = undoing(&lab, TEST, &templates[*n])?;
        Ok(())
    }));
    let (mut seen, mut cases) = (BTreeSet::new(), Vec::new());
    for (template, undone) in templates.iter().zip(undone) {
        let mut starts = match template.scenario.special {
            _ if !template.scenario.faults.is_empty() => continue,
            Special::Import => import(&lab, TEST, template).unwrap_or_else(|e| panic!("{e}")),
            _ => ["journal.begin.durable", "journal.final.durable"].map(|p| start(p, &template.trace, "")).to_vec(),
        };
        if let Some(Undoing { fail, trace, .. }) = undone.into_inner().expect("no panic") {
            starts.push(start("journal.unwind.durable", &trace, &fail));
        }
        for Start { phase, act, then } in starts {
            for (kill, point) in kills(&then, 0).into_iter().zip(then) {
                // A secret is handed out to whoever began, who is gone after a crash: recovery never comes there.
                if point.starts_with("journal.secret.") {
                    continue;
                }
                // Each kind of step once in each phase; the rest is left to chance.
                if seen.insert((phase.clone(), point)) {
                    let reconcile = cases.len() % 2 == 1;
                    let recover = vec![kill];
                    let case = Case { act: act.clone(), recover, reconcile, must_strike: true, ..Case::default() };
                    cases.push((template.clone(), case));
                }
            }
        }
    }
    let failed = lab.each(&cases, |(t, case)| play(&lab, TEST, t, case).map(drop));
    say("killed again while recovering", cases.len(), since);
    none(&failed);
}

/// A random case: perhaps a failing step, a kill somewhere, perhaps more kills while recovering, perhaps the host with it.
pub fn drawn(dice: &mut Dice, template: &Template, points: &[String]) -> Case {
    let line = |dice: &mut Dice, verb: &str, own: bool| {
        let from = if own && !template.trace.is_empty() { &template.trace } else { points };
        format!("{verb} {} {}\n", from[dice.below(from.len())], 1 + dice.below(2) / dice.below(2).max(1))
    };
    let mut act = String::new();
    if dice.one_in(2) {
        act += &line(dice, "fail", true);
    }
    let own = dice.one_in(2);
    act += &line(dice, "kill", own);
    let mut recover = Vec::new();
    for _ in 0..dice.below(3) {
        let fail = if dice.one_in(4) { line(dice, "fail", true) } else { String::new() };
        let own = dice.one_in(2);
        recover.push(line(dice, "kill", own) + &fail);
    }
    let (reconcile, host, alike) = (dice.one_in(2), dice.one_in(4), dice.one_in(2));
    Case { act, recover, reconcile, host, alike, must_strike: false }
}

#[test]
fn failing_killed_and_killed_again_at_random_nothing_is_lost_or_left() {
    const TEST: &str = "walks::failing_killed_and_killed_again_at_random_nothing_is_lost_or_left";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let seed = dice::given().unwrap_or_else(|| std::process::id().into());
    let budget = Duration::from_secs(number("BMI_KILL_SECONDS").unwrap_or(120));
    let mut templates = all(&lab, TEST);
    templates.retain(|t| t.scenario.faults.is_empty());
    let points: BTreeSet<String> = templates.iter().flat_map(|t| t.trace.iter().cloned()).collect();
    let points: Vec<String> = points.into_iter().collect();
    let _ = writeln!(std::io::stderr(), "kill: random cases with BMI_SEED={seed}");
    let (mut failed, mut cases) = (Vec::new(), 0);
    while failed.is_empty() && (cases == 0 || lab.started().elapsed() < budget) {
        let batch: Vec<usize> = (cases..cases + templates.len()).collect();
        failed = lab.each(&batch, |n| {
            let template = &templates[n % templates.len()];
            let case = drawn(&mut Dice(seed.wrapping_mul(1_000_003).wrapping_add(*n as u64)), template, &points);
            play(&lab, TEST, template, &case).map(drop).map_err(|why| format!("BMI_SEED={seed}, case {n}: {why}"))
        });
        cases += batch.len();
    }
    say("failing and killed at random", cases, since);
    none(&failed);
}
