//! One case: a scenario is killed, perhaps killed again while it recovers, and then looked at, recovered, looked at, reconciled,
//! looked at, and asked again. All that may be wrong is said in words; nothing here decides what to kill.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bmid::store::Store;
use tokio::runtime::Runtime;

use crate::child::{self, Job, Said};
use crate::disks;
use crate::lab::{Lab, Template, engine};
use crate::rig::Rig;
use crate::scenario::Special;
use crate::shape::{self, Shape};

/// How often a reconcile could not look at something and was asked again.
static BLIND: AtomicUsize = AtomicUsize::new(0);

/// So often until now, in all cases.
pub fn blind() -> usize {
    BLIND.load(Ordering::Relaxed)
}

/// What is done to a scenario.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Faults while it runs, beside the scenario's own.
    pub act: String,
    /// Faults of each recovery that is killed.
    pub recover: Vec<String>,
    /// Whether those recoveries reconcile by themselves, as a daemon does.
    pub reconcile: bool,
    /// The host went down with it: nothing that lives in memory is left.
    pub host: bool,
    /// In a pool, each process that clones a golden image has done so before: it makes clones alike (`storage/rbd/alike.rs`).
    pub alike: bool,
    /// Each script must have struck.
    pub must_strike: bool,
}

impl Case {
    /// Whether it was killed at a moment that no point tells.
    fn struck(&self) -> bool {
        [&self.act].into_iter().chain(&self.recover).any(|s| s.contains("# strike "))
    }
}

/// What is to be expected, out of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Before,
    After,
    Either,
}

/// Everything about a case while it is judged.
struct Judged<'a> {
    template: &'a Template,
    dir: &'a Path,
    store: Store,
    rig: Rig,
    expect: Expect,
    /// It may end as failed, and a repeat say so again.
    may_fail: bool,
    /// It lost its input and must end as interrupted; and whether something of it had come.
    interrupted: Option<bool>,
    said: Option<Said>,
}

/// Plays a case to its end. The error says how it can be played again.
pub fn play(lab: &Lab, test: &str, template: &Template, case: &Case) -> Result<Vec<String>, String> {
    let case_in = || {
        let folder = lab.copy(template);
        played(test, template, case, &folder.0)
    };
    template.disks.reach(case_in).map_err(|why| {
        let scripts = [&case.act].into_iter().chain(&case.recover).map(|s| s.trim_end().replace('\n', ", "));
        let scripts: Vec<String> = scripts.collect();
        let host = if case.host { ", host lost" } else { "" };
        let alike = if case.alike { ", alike" } else { "" };
        let at = template.disks;
        format!("{} in {at:?}: [{}]{host}{alike}: {why}", template.scenario.name(), scripts.join("] then ["))
    })
}

fn played(test: &str, template: &Template, case: &Case, dir: &Path) -> Result<Vec<String>, String> {
    let alike = if case.alike { disks::ALIKE } else { "" };
    let script = format!("{alike}{}{}", case.act, template.scenario.faults);
    let mut died = child::run(test, &template.job(dir, template.lines.clone()), &script)?;
    let mut trace = died.trace.clone();
    strikes(case, &case.act, &died.trace)?;
    for script in &case.recover {
        whole(template, dir)?;
        lose(case, dir);
        // After a host's end nothing runs before reconcile has started it.
        let job = Job { reconcile: case.reconcile || case.host, ..template.job(dir, Vec::new()) };
        died = child::run(test, &job, &format!("{alike}{script}"))?;
        strikes(case, script, &died.trace)?;
        trace.extend(died.trace.iter().cloned());
    }
    whole(template, dir)?;
    lose(case, dir);
    let repeat = template.scenario.repeat;
    let waited = template.lines.get(repeat).is_some_and(|l| !l.starts_with('&'));
    let said = died.said.get(repeat).filter(|_| waited).cloned();
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(judge(template, case, dir, &trace, said))?;
    Ok(trace)
}

/// A kill that did not strike proves nothing.
fn strikes(case: &Case, script: &str, trace: &[String]) -> Result<(), String> {
    let Some(kill) = script.lines().find_map(|l| l.strip_prefix("kill ")) else { return Ok(()) };
    let (point, number) = kill.split_once(' ').expect("a kill has a number");
    let passed = trace.iter().filter(|p| *p == point).count();
    if !case.must_strike || passed >= number.parse().expect("a number") {
        return Ok(());
    }
    Err(format!("it was never killed at {kill}; passed last: {:?}", &trace[trace.len().saturating_sub(5)..]))
}

/// At the moment of the kill.
fn whole(template: &Template, dir: &Path) -> Result<(), String> {
    let skip = template.scenario.special == Special::Restore || template.scenario.op == "reconcile";
    if skip || !dir.join("state/db").exists() {
        return Ok(());
    }
    let wrong = shape::torn(&Rig::open(dir), dir);
    if wrong.is_empty() { Ok(()) } else { Err(format!("torn when killed: {wrong:#?}")) }
}

/// What a host forgets when it goes down.
fn lose(case: &Case, dir: &Path) {
    for kind in ["worker", "targets", "accounts", "portals", "address", "sessions", "vlan"] {
        let objects = fs::read_dir(dir.join("world/objects").join(kind)).into_iter().flatten().flatten();
        for object in objects.filter(|_| case.host) {
            fs::remove_file(object.path()).expect("an object");
        }
    }
}

fn expected(template: &Template, case: &Case, trace: &[String]) -> Expect {
    let passed = |p: &str| trace.iter().any(|t| t == p);
    let last = trace.last().map(String::as_str).unwrap_or_default();
    match template.scenario.special {
        _ if unseen(case, trace) => return Expect::Either,
        Special::Parts if passed("journal.unwind.applied") => return Expect::Either,
        Special::Repairs | Special::Restore => return Expect::Either,
        Special::FirstStart => return Expect::After,
        _ => {}
    }
    if passed("journal.unwind.durable") {
        Expect::Before
    } else if !passed("journal.begin.durable") || last == "journal.unwind.applied" || case.host {
        Expect::Either
    } else if template.scenario.special == Special::Import && !passed("storage.import.after") {
        // Its input is gone, and not all of it had come; or nobody knows whether it had.
        if case.struck() { Expect::Either } else { Expect::Before }
    } else {
        Expect::After
    }
}

/// A step was to fail and one beside it was killed: that it is undone may have become durable in the moment before the kill,
/// too late for the trace.
fn unseen(case: &Case, trace: &[String]) -> bool {
    let says = |verb: &str| [&case.act].into_iter().chain(&case.recover).any(|s| s.contains(verb));
    says("fail ") && says("kill ") && !trace.iter().any(|p| p == "journal.unwind.durable")
}

async fn judge(
    template: &Template,
    case: &Case,
    dir: &Path,
    trace: &[String],
    said: Option<Said>,
) -> Result<(), String> {
    let mut expect = expected(template, case, trace);
    let passed = |p: &str| trace.iter().any(|t| t == p);
    let import = template.scenario.special == Special::Import;
    let fails = [&case.act].into_iter().chain(&case.recover).any(|s| s.contains("fail"));
    // What is applied may be durable. After a host's end an operation may fail while nobody keeps a trace.
    let may_fail = if import {
        fails || case.struck()
    } else {
        passed("journal.unwind.applied") || case.host || unseen(case, trace)
    };
    let lost = import && !fails && !case.struck() && passed("journal.begin.durable") && !passed("storage.import.after");
    let interrupted = lost.then(|| passed("storage.import.staged"));
    if matches!(said, Some(Said::Done(_))) && template.scenario.special != Special::Parts {
        if expect == Expect::Before {
            return Err("it was undone and answered as done".to_owned());
        }
        expect = Expect::After;
    }
    let (rig, store) = engine(dir, Rig::open(dir), template.scenario.special, case.host);
    let j = Judged { template, dir, store, rig, expect, may_fail, interrupted, said };
    let found = j.all(case).await;
    j.rig.stop().await;
    found
}

impl Judged<'_> {
    async fn all(&self, case: &Case) -> Result<(), String> {
        self.rig.settle().await?;
        if let Some(came) = self.interrupted {
            self.interrupted(came).await?;
        }
        if self.template.scenario.special == Special::FirstStart {
            self.rig.until("datastore show default", |a| a["state"] == "active").await;
            // Its row stands a moment before it has ended for those who wait.
            self.rig.settle().await?;
        }
        // What no record wants stays until somebody asks for a reconcile.
        let repairs = self.template.scenario.special == Special::Repairs;
        if case.host && !repairs {
            // Nobody asks here: what went down with the host comes back by itself.
            self.by_itself().await?;
        } else if !repairs {
            self.look("recovered").await?;
        }
        self.reconcile().await?;
        self.look("reconciled").await?;
        self.again().await
    }

    fn shape(&self) -> Shape {
        Shape::of(&self.store, self.dir, &self.template.known)
    }

    /// Rows, world and usage are one, and they are what may come of it.
    async fn look(&self, when: &str) -> Result<(), String> {
        self.sound(when).await?;
        let shape = self.shape();
        let import = self.template.scenario.special == Special::Import;
        let shape = if import { shape.without_staging() } else { shape };
        let (before, after) = (&self.template.before, &self.template.after);
        let wanted: Vec<&Shape> = match self.expect {
            Expect::Before => vec![before],
            Expect::After => vec![after],
            Expect::Either => [before, after].into_iter().chain(&self.template.also).collect(),
        };
        if wanted.contains(&&shape) {
            return Ok(());
        }
        let diff: String = wanted.iter().map(|w| format!("  compared:\n{}", shape.differs(w))).collect();
        let ended = self.rig.run(&format!("op show {}", child::op_id(0))).await;
        let fault = ended.items.first().map(|op| &op["fault"]).filter(|f| !f.is_null());
        let told = fault.map(|f| format!(" (its operation ended with {f})")).unwrap_or_default();
        Err(format!("{when}, expected {:?}{told}:\n{diff}", self.expect))
    }

    /// An import without its input ends as interrupted and keeps what had come, for the repeat.
    async fn interrupted(&self, came: bool) -> Result<(), String> {
        let op = self.rig.run(&format!("op show {}", child::op_id(0))).await;
        if op.one()["fault"]["kind"] != "interrupted" {
            return Err(format!("it lost its input and ended as {op:?}"));
        }
        let kept = self.shape() != self.shape().without_staging();
        if kept == came { Ok(()) } else { Err(format!("something had come: {came}, and it was kept: {kept}")) }
    }

    async fn by_itself(&self) -> Result<(), String> {
        // A minute: beside other work everything may take long, and what never comes back is told all the same.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(why) = self.sound("left alone").await {
            if std::time::Instant::now() > end {
                return Err(why);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Nothing is open, broken or to be repaired.
    async fn sound(&self, when: &str) -> Result<(), String> {
        let open = self.rig.run("op ls").await.items;
        let broken = self.rig.run("state check").await.items;
        let (proposed, blind) = self.rig.to_be_repaired().await.map_err(|f| format!("{when}: {f}"))?;
        BLIND.fetch_add(blind, Ordering::Relaxed);
        match (open.as_slice(), broken.as_slice(), proposed.as_slice()) {
            ([], [], []) => Ok(()),
            _ => Err(format!("{when}: open {open:#?}\nbroken {broken:#?}\nto be repaired {proposed:#?}")),
        }
    }

    /// Until there is nothing to do; without anything to repair, it changes nothing.
    async fn reconcile(&self) -> Result<(), String> {
        for _ in 0..100 {
            let done = self.rig.run("reconcile").await.items;
            if done.is_empty() {
                return Ok(());
            }
            if done.iter().any(|r| r["outcome"] != "done") {
                // A worker that was started a moment ago waits its turn.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        Err("reconcile finds no end".to_owned())
    }

    /// The same command again: under the same operation id, and if that had failed, under a fresh one.
    async fn again(&self) -> Result<(), String> {
        let Some(line) = self.template.lines.get(self.template.scenario.repeat) else { return Ok(()) };
        let line = line.trim_start_matches(['&', ' ']);
        let special = self.template.scenario.special;
        if special == Special::Restore && self.shape() == self.template.after {
            // Only an empty store takes a dump.
            return Ok(());
        }
        match (child::ask(&self.rig, child::op_id(self.template.scenario.repeat), line).await, &self.said) {
            (Said::Done(now), Some(Said::Done(_))) if now.iter().any(|i| i["chap_secret"].is_string()) => {
                return Err(format!("repeated, it told a secret again: {now:?}"));
            }
            (Said::Done(now), Some(Said::Done(then)))
                if !then.is_empty() && untold(&now) != untold(then) && self.is_change() =>
            {
                return Err(format!("repeated, it answered {now:?} and before {then:?}"));
            }
            (Said::Done(_), _) => {}
            (Said::Refused(fault), Some(Said::Done(_))) => {
                return Err(format!("answered as done, and repeated: {fault}"));
            }
            (Said::Refused(fault), _) if self.may_fail || special == Special::Repairs => {
                if let Said::Refused(again) = child::ask(&self.rig, child::op_id(99), line).await {
                    return Err(format!("repeated: {fault}; and under a fresh id: {again}"));
                }
            }
            (Said::Refused(fault), _) => return Err(format!("repeated: {fault}")),
        }
        self.sound("repeated").await?;
        let shape = self.shape();
        if shape == self.template.after {
            return Ok(());
        }
        Err(format!("repeated:\n{}", shape.differs(&self.template.after)))
    }

    /// Whether its answers are kept.
    fn is_change(&self) -> bool {
        bmi::ops::OPS
            .iter()
            .any(|e| e.sheet.method() == self.template.scenario.op && e.sheet.effect == bmi::ops::Effect::Change)
    }
}

/// Answers without their secrets, which are told once, and without when and to whom.
fn untold(items: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let mut items = items.to_vec();
    for field in ["chap_secret", "chap_shown_at", "chap_shown_to"] {
        items.iter_mut().filter_map(|i| i.get_mut(field)).for_each(|v| *v = serde_json::Value::Null);
    }
    items
}
