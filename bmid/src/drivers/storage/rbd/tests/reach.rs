//! Pools that cannot be reached, and users that may not: each is told plainly, and soon.

use std::path::Path;
use std::time::Instant;

use bmi::model::Bytes;
use bmi::step::{Backing, DatastoreFacts, Step};

use super::ceph::Ceph;
use super::*;
use crate::drivers::krbd::{self, Hand, KeyFile};
use crate::drivers::storage::conformance::facts;

fn refused(place: &RbdPlace) -> DriverError {
    let (driver, _scratch) = driver();
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(110) };
        let e = rig.apply(rig.make()).unwrap_err();
        assert!(!e.tried.is_empty() && !e.fix.is_empty(), "{e:?}");
        e
    })
}

#[test]
fn what_is_wrong_with_a_pool_is_said_plainly() {
    let good = place(id(110));
    let wrong = ceph().path("keyring.wrong");
    std::fs::write(&wrong, "[client.admin]\n\tkey = AQAAAAAAAAAAABAAyLQWw8Z9hNq0ZZ3VvLqTqJx8hA6qWQ==\n").unwrap();
    // Configurations that lack a line.
    let without = |line: &str, name: &str| {
        let text = std::fs::read_to_string(ceph().conf()).unwrap();
        let path = ceph().path(name);
        let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with(line)).collect();
        std::fs::write(&path, kept.join("\n") + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let of = |user: &str, mon: &str, osd: &str| {
        let key = ceph().user(user, mon, osd).to_str().unwrap().to_owned();
        RbdPlace { user: user.into(), keyring: Some(key), ..good.clone() }
    };
    let wrong = RbdPlace { keyring: Some(wrong.to_str().unwrap().to_owned()), ..good.clone() };
    let no_monitor = RbdPlace { conf: without("mon_", "conf.mon"), ..good.clone() };
    let no_keyring = RbdPlace { conf: without("keyring", "conf.key"), ..good.clone() };
    let none = RbdPlace { keyring: Some("/nowhere/key".into()), ..good.clone() };
    let caps = |user: &str| {
        let namespace = good.namespace.as_deref().unwrap();
        format!("ceph auth caps client.{user} mon 'profile rbd' osd 'profile rbd pool=rbd namespace={namespace}'")
    };
    let cases = [
        (RbdPlace { pool: "none".into(), ..good.clone() }, "has no pool none", "rbd pool init".to_owned()),
        (RbdPlace { conf: "/nowhere/c".into(), ..good.clone() }, "/nowhere/c cannot be read", "copy it".to_owned()),
        (none, "/nowhere/key cannot be read", "ceph auth get client.".to_owned()),
        (RbdPlace { user: "nobody".into(), ..good.clone() }, "refuses client.nobody", "ceph auth get".to_owned()),
        (wrong, "refuses client.admin", "ceph auth get".to_owned()),
        (no_monitor, "names no monitors", "mon_host = ".to_owned()),
        (no_keyring, "no keyring with a key for client.admin", "ceph auth get client.admin".to_owned()),
        (of("blind", "allow r", "allow r"), "an image cannot be made in it", caps("blind")),
        (of("reader", "profile rbd", "profile rbd-read-only pool=rbd"), "an image cannot be made", caps("reader")),
        (of("lame", "allow r", "profile rbd pool=rbd"), "cannot be shut out (`osd blocklist`)", caps("lame")),
    ];
    for (place, why, fix) in cases {
        let e = refused(&place);
        assert!(e.why.contains(why) && e.fix.contains(&fix), "{e:?}");
        let fault = bmi::model::Fault::from(e).to_string();
        assert!(!fault.contains("AQAAA"), "no key in {fault}");
    }
    let left = ceph().tool(&["rbd", "ls", &good.spec()]);
    assert_eq!(left, "", "a refused pool is left as it was");
}

/// Pools that go with it: one of them serves nothing, and whoever asks every pool would wait for it.
struct Gone(&'static [&'static str]);

impl Drop for Gone {
    fn drop(&mut self) {
        for pool in self.0 {
            let mut tool = ceph().command();
            tool.args(["ceph", "--conf"]).arg(ceph().conf()).args(["osd", "pool", "rm", pool, pool]);
            let _ = tool.arg("--yes-i-really-really-mean-it").output();
        }
    }
}

#[test]
fn pools_that_are_not_made_for_disks_or_are_full_are_refused_before_anything_is_written() {
    let _gone = Gone(&["bare", "small", "coded"]);
    let good = RbdPlace { namespace: None, ..place(id(114)) };
    let tool = |line: &str| ceph().tool(&line.split(' ').collect::<Vec<_>>());
    tool("ceph osd pool create bare 1 1 --size 1");
    tool("ceph osd pool create small 1 1 --size 1");
    tool("ceph osd erasure-code-profile set coded k=2 m=1 crush-failure-domain=osd");
    tool("ceph osd pool create coded 1 1 erasure coded");
    tool("rbd pool init small");
    tool("ceph osd pool set-quota small max_objects 1");
    let full = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        tool("ceph osd dump").lines().any(|l| l.contains("'small'") && l.contains("full_quota"))
    });
    assert!(full, "the quota is noticed");
    for (pool, kind, why, fix) in [
        ("bare", Kind::Invalid, "not initialised for RBD", "`rbd pool init bare`"),
        ("coded", Kind::Invalid, "coded is erasure coded", "rbd_default_data_pool = coded"),
        ("small", Kind::Full, "small has reached its quota", "ceph osd pool set-quota small"),
    ] {
        let e = refused(&RbdPlace { pool: pool.to_owned(), ..good.clone() });
        assert!(e.kind == kind && e.why.contains(why) && e.fix.contains(fix), "{e:?}");
    }
}

#[test]
fn the_rights_of_profile_rbd_are_enough() {
    let key = ceph().user("plain", "profile rbd", "profile rbd pool=rbd");
    let place = RbdPlace { user: "plain".into(), keyring: Some(key.to_str().unwrap().to_owned()), ..place(id(111)) };
    let (driver, _scratch) = driver();
    ceph().inside(|| suite(&Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(111) }));
}

#[test]
fn monitors_that_do_not_answer_cost_seconds_and_not_minutes() {
    let (driver, scratch) = driver();
    let conf = scratch.path().join("ceph.conf");
    // An address of the documentation's that nobody answers for; here even the way to it is missing.
    std::fs::write(&conf, "[global]\nmon_host = 192.0.2.1\nauth_client_required = none\n").unwrap();
    let place = RbdPlace { conf: conf.to_str().unwrap().to_owned(), ..place(id(112)) };
    let rig = Rig { driver: &driver, place: Place::Rbd(place), datastore: id(112) };
    ceph().inside(|| {
        let e = rig.apply(rig.make()).unwrap_err();
        assert!(e.kind == Kind::Unavailable && e.why.contains("no monitor answers"), "{e:?}");
        let DatastoreFacts { available, problem, .. } = facts(&rig);
        assert!(!available && problem.is_some_and(|p| p.contains("no monitor answers")));
    });
}

#[test]
fn a_cluster_that_falls_silent_holds_steps_and_not_questions_and_steps_go_on_when_it_is_back() {
    let ceph = Ceph::start();
    let (driver, _scratch) = driver();
    let place = RbdPlace { namespace: None, conf: ceph.conf().to_str().unwrap().to_owned(), ..place(id(113)) };
    let rig = Rig { driver: &driver, place: Place::Rbd(place), datastore: id(113) };
    ceph.inside(|| {
        rig.apply(rig.make()).unwrap();
        let told = (0..300).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            facts(&rig).total > Bytes(0)
        });
        assert!(told, "the pool tells its size");
        std::thread::scope(|scope| {
            let stopped = ceph.stopped("osd");
            let (rig, driver) = (&rig, &driver);
            let step = rig.import(id(1), None);
            let held = scope.spawn(move || {
                let input = crate::drivers::storage::conformance::file(b"bytes");
                let Step::Storage(step) = step.into() else { unreachable!() };
                driver.apply(&step, &StepCx { input: Some(&input), ..StepCx::PLAIN })
            });
            // What was so a moment ago is not asked again.
            let told = (0..100).map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                facts(rig)
            });
            let asked = { told }.find(|f| !f.available);
            assert!(asked.as_ref().is_some_and(|f| f.problem.is_some()), "{asked:?}");
            // The second question does not even wait.
            let begun = Instant::now();
            assert!(!facts(rig).available);
            assert!(begun.elapsed() < PATIENCE, "answered at once while the first still hangs");
            assert_eq!(rig.seen(), Vec::<String>::new(), "nothing is believed gone or there");
            drop(stopped);
            assert!(held.join().unwrap().unwrap().changed, "the step went on by itself");
        });
        let back = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            facts(&rig).available
        });
        assert!(back && rig.seen().len() == 2);
        a_step_waits_for_monitors(&ceph, &rig);
    });
}

/// As after bmid's restart: nothing is connected, and no monitor answers in the time that connecting has.
fn a_step_waits_for_monitors(ceph: &Ceph, rig: &Rig<'_>) {
    let (fresh, _scratch) = driver();
    let step = rig.clone(Backing::image(id(1)), Backing::volume(id(2), 0));
    let Step::Storage(step) = Step::from(step) else { unreachable!() };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let stopped = ceph.stopped("mon");
        let held = scope.spawn(|| fresh.apply(&step, &StepCx::PLAIN));
        let asked = Rig { driver: &fresh, place: rig.place.clone(), datastore: rig.datastore };
        assert!(!facts(&asked).available, "who only asks is told");
        // Whoever was told so was given up by librados, and the step with it.
        std::thread::sleep(std::time::Duration::from_secs(6).saturating_sub(begun.elapsed()));
        drop(stopped);
        assert!(held.join().unwrap().unwrap().changed, "it went on by itself");
    });
}

/// A hand for a kernel without the module.
struct NoModule;

impl Hand for NoModule {
    fn write(&self, _: &Path, _: &str, _: Option<(&str, &KeyFile)>) -> Result<(), krbd::Refusal> {
        unreachable!("there is nothing to write to")
    }
    fn loadable(&self) -> bool {
        false
    }
    fn load(&self) {}
}

#[test]
fn a_kernel_that_cannot_map_is_told_when_a_datastore_is_made_and_by_the_doctor() {
    let (driver, scratch) = driver();
    let driver = driver.with_kernel(Arc::new(Krbd::new(scratch.path(), Box::new(NoModule))));
    let place = RbdPlace { export: RbdExport::Kernel, ..place(id(114)) };
    ceph().inside(|| {
        let by = |place: &RbdPlace| Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(114) };
        let e = by(&place).apply(by(&place).make()).unwrap_err();
        assert!(e.why.contains("no rbd module") && e.fix.contains("modprobe rbd"), "{e:?}");
        match driver.look(&Look::RbdClient) {
            Some(Ok(Fact::RbdClient(Some(fault)))) => assert!(fault.why.contains("no rbd module"), "{fault}"),
            other => panic!("{other:?}"),
        }
        let other = RbdPlace { export: RbdExport::Librbd, ..place.clone() };
        by(&other).apply(by(&other).make()).unwrap();
        assert!(facts(&by(&place)).available, "it lost the module later");
        let Some(Ok(Fact::Findings(found))) = driver.look(&Look::Doctor { networks: vec![] }) else { panic!() };
        let lost = found.iter().find(|f| f.found.contains("cannot be mapped"));
        assert!(lost.is_none(), "it goes by librbd: {found:?}");
        let _ = driver.observe(&Scope::Datastore { datastore: id(114), place: Place::Rbd(place.clone()) });
        let Some(Ok(Fact::Findings(found))) = driver.look(&Look::Doctor { networks: vec![] }) else { panic!() };
        let lost = found.iter().find(|f| f.found.contains("cannot be mapped"));
        assert!(lost.is_some_and(|f| f.severity == Severity::Error && f.fix.contains("modprobe rbd")), "{found:?}");
    });
}
