//! Pools that cannot be reached, and users that may not: each is told plainly, and soon.

use std::time::Instant;

use bmi::model::Bytes;
use bmi::step::{DatastoreFacts, Step};

use super::ceph::Ceph;
use super::*;
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
    let blind = ceph().user("blind", "allow r", "allow r");
    let path = |p: &std::path::Path| Some(p.to_str().unwrap().to_owned());
    let cases = [
        (RbdPlace { pool: "none".into(), ..good.clone() }, Kind::Unavailable, "has no pool none"),
        (
            RbdPlace { conf: "/nowhere/ceph.conf".into(), ..good.clone() },
            Kind::Unavailable,
            "/nowhere/ceph.conf cannot be read",
        ),
        (
            RbdPlace { keyring: Some("/nowhere/key".into()), ..good.clone() },
            Kind::Unavailable,
            "/nowhere/key cannot be read",
        ),
        (RbdPlace { user: "nobody".into(), ..good.clone() }, Kind::Unavailable, "refuses client.nobody"),
        (RbdPlace { keyring: path(&wrong), ..good.clone() }, Kind::Unavailable, "refuses client.admin"),
        (
            RbdPlace { user: "blind".into(), keyring: path(&blind), ..good.clone() },
            Kind::Outside,
            "an image cannot be made in it",
        ),
    ];
    for (place, kind, why) in cases {
        let e = refused(&place);
        assert!(e.kind == kind && e.why.contains(why), "{e:?}");
        let fault = bmi::model::Fault::from(e).to_string();
        assert!(!fault.contains("AQAAA"), "no key in {fault}");
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
        let total = facts(&rig).total;
        assert!(total > Bytes(0), "the pool tells its size");
        ceph.signal("osd", "STOP");
        std::thread::scope(|scope| {
            let (rig, driver) = (&rig, &driver);
            let step = rig.import(id(1), None);
            let held = scope.spawn(move || {
                let input = crate::drivers::storage::conformance::file(b"bytes");
                let Step::Storage(step) = step.into() else { unreachable!() };
                driver.apply(&step, &StepCx { input: Some(&input), ..StepCx::PLAIN })
            });
            let asked = facts(rig);
            assert!(!asked.available && asked.problem.is_some(), "{asked:?}");
            // The second question does not even wait.
            let begun = Instant::now();
            assert!(!facts(rig).available);
            assert!(begun.elapsed() < PATIENCE, "answered at once while the first still hangs");
            assert_eq!(rig.seen(), Vec::<String>::new(), "nothing is believed gone or there");
            ceph.signal("osd", "CONT");
            assert!(held.join().unwrap().unwrap().changed, "the step went on by itself");
        });
        let back = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            facts(&rig).available
        });
        assert!(back && rig.seen().len() == 2);
    });
}
