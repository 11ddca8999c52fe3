//! The same on a real Ceph: killed at every kind of step on disks in a pool, while it acts, fails, undoes and recovers; at
//! drawn moments in the middle of a step; and by chance. Rows and pool are compared as Ceph itself tells of it, and when the
//! background has done its work nothing may be left: no half-made image, snapshot, entry, watch or object that belongs to
//! nobody, and nothing in the trash that nothing needs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::case::{Case, blind, play};
use crate::child;
use crate::dice::{self, Dice};
use crate::disks::Disks;
use crate::lab::{Lab, Template};
use crate::walks::{Start, Undoing, drawn, kills, none, number, ready, say, start, undoing};

type Cases = Vec<(Arc<Template>, Case)>;

/// The longest a step on a pool takes, more or less.
const STEP: usize = 80_000;

/// The longest that a clone made alike takes, more or less.
const QUICK: usize = 12_000;

/// What is killed, each kind of it once.
struct Wanted {
    seen: BTreeSet<(String, String, String)>,
    cases: Cases,
}

impl Wanted {
    /// A case unless there is one of that phase and point for such an operation. Clones come in both ways.
    fn add(&mut self, template: &Arc<Template>, phase: &str, of: &str, point: &str, case: Case) {
        if point.starts_with("storage.") && self.seen.insert((phase.to_owned(), of.to_owned(), point.to_owned())) {
            if point.starts_with("storage.clone.") && !case.alike {
                self.cases.push((Arc::clone(template), Case { alike: true, ..case.clone() }));
            }
            self.cases.push((Arc::clone(template), case));
        }
    }
}

/// Killed, failing, and killed in the middle: each step of each operation.
fn acting(template: &Arc<Template>, wanted: &mut Wanted, dice: &mut Dice) {
    let op = template.scenario.op;
    let strikes = number("BMI_KILL_STRIKES").map_or(1, |n| usize::try_from(n).expect("a small number"));
    for (kill, point) in kills(&template.trace, 0).into_iter().zip(&template.trace) {
        let must_strike = op != "op.cancel";
        wanted.add(template, "act", op, point, Case { act: kill.clone(), must_strike, ..Case::default() });
        if template.scenario.faults.is_empty() {
            let act = kill.replace("kill ", "fail ");
            wanted.add(template, "fail", "", point, Case { act, ..Case::default() });
        }
        if let Some(step) = kill.strip_prefix("kill ").and_then(|k| k.split_once(".before ")) {
            // A datastore is tried out with many things of its own, one after the other.
            let (times, within) = if step.0 == "storage.make_store" { (4, 2 * STEP) } else { (1, STEP) };
            let times = times * strikes;
            for n in 0..times {
                let at = (within * n + dice.below(within)) / times;
                let act = format!("# strike {} {} {at}\n", step.0, step.1.trim());
                wanted.add(template, &format!("strike {n}"), op, point, Case { act, ..Case::default() });
            }
            let times = if step.0 == "storage.clone" { 5 * strikes } else { 0 };
            for n in 0..times {
                let at = (QUICK * n + dice.below(QUICK)) / times;
                let act = format!("# strike {} {} {at}\n", step.0, step.1.trim());
                let case = Case { act, alike: true, ..Case::default() };
                wanted.add(template, &format!("strike alike {n}"), op, point, case);
            }
        }
    }
}

/// Killed while it undoes, and again while it recovers.
fn more(template: &Arc<Template>, undone: Option<Undoing>, wanted: &mut Wanted) {
    let mut starts = ["journal.begin.durable", "journal.final.durable"].map(|p| start(p, &template.trace, "")).to_vec();
    if let Some(Undoing { fail, trace, from }) = undone {
        for (kill, point) in kills(&trace, from).into_iter().zip(&trace[from..]) {
            let case = Case { act: format!("{kill}{fail}"), must_strike: true, ..Case::default() };
            wanted.add(template, "undo", template.scenario.op, point, case);
        }
        starts.push(start("journal.unwind.durable", &trace, &fail));
    }
    for Start { phase, act, then } in starts {
        for (kill, point) in kills(&then, 0).into_iter().zip(&then) {
            let reconcile = wanted.cases.len() % 2 == 1;
            let recover = vec![kill];
            let case = Case { act: act.clone(), recover, reconcile, must_strike: true, ..Case::default() };
            wanted.add(template, &phase, "", point, case);
        }
    }
}

#[test]
fn killed_at_every_kind_of_step_on_disks_in_a_pool_nothing_is_lost_or_left() {
    const TEST: &str = "pools::killed_at_every_kind_of_step_on_disks_in_a_pool_nothing_is_lost_or_left";
    child::serve();
    let (lab, since) = (Lab::get(), Instant::now());
    let seed = dice::given().unwrap_or_else(|| std::process::id().into());
    let mut dice = Dice(seed);
    let templates = ready(&lab, TEST, Disks::Pool);
    say("made ready in pools", templates.len(), since);
    let mut wanted = Wanted { seen: BTreeSet::new(), cases: Vec::new() };
    let plain =
        |t: &&Arc<Template>| t.scenario.faults.is_empty() && t.scenario.special == crate::scenario::Special::None;
    let undone: Vec<(Arc<Template>, Mutex<Option<Undoing>>)> =
        templates.iter().filter(plain).map(|t| (Arc::clone(t), Mutex::default())).collect();
    none(&lab.each(&undone, |(template, undone)| {
        *undone.lock().expect("no panic") = undoing(&lab, TEST, template)?;
        Ok(())
    }));
    templates.iter().for_each(|t| acting(t, &mut wanted, &mut dice));
    undone.into_iter().for_each(|(t, u)| more(&t, u.into_inner().expect("no panic"), &mut wanted));
    let said = |why: String| format!("BMI_SEED={seed}: {why}");
    let mut failed = lab.each(&wanted.cases, |(t, case)| play(&lab, TEST, t, case).map(drop).map_err(said));
    say("on disks in pools", wanted.cases.len(), since);

    let budget = Duration::from_secs(number("BMI_KILL_SECONDS").unwrap_or(120));
    let points: BTreeSet<String> = templates.iter().flat_map(|t| t.trace.iter().cloned()).collect();
    let (points, mut cases) = (points.into_iter().collect::<Vec<_>>(), 0);
    let _ = writeln!(std::io::stderr(), "kill: random cases on disks in pools with BMI_SEED={seed}");
    while failed.is_empty() && (cases == 0 || lab.started().elapsed() < budget) {
        let batch: Vec<usize> = (cases..cases + 10).collect();
        failed = lab.each(&batch, |n| {
            let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(*n as u64));
            let template = &templates[dice.below(templates.len())];
            let case = drawn(&mut dice, template, &points);
            play(&lab, TEST, template, &case).map(drop).map_err(|why| said(format!("case {n}: {why}")))
        });
        cases += batch.len();
    }
    say("on disks in pools at random", cases, since);
    let locked = AtomicUsize::new(0);
    failed.extend(lab.each(&lab.pools(), |pool| {
        let (wrong, opened) = Disks::Pool.reach(|| pool.settled());
        locked.fetch_add(opened, Ordering::Relaxed);
        if wrong.is_empty() { Ok(()) } else { Err(said(format!("left in {pool:?}: {wrong:#?}"))) }
    }));
    say("looked at when the background was done", cases + wanted.cases.len(), since);
    let (locked, blind) = (locked.into_inner(), blind());
    let _ = writeln!(std::io::stderr(), "kill: {locked} disks were left locked by the dead, and opened");
    let _ = writeln!(std::io::stderr(), "kill: {blind} times what was too slow to be looked at was asked again");
    none(&failed);
}
