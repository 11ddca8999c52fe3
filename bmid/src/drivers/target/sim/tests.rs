//! The simulator passes the conformance suite, and can be cut half-way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::any::Any;
use std::fs;

use super::*;
use crate::drivers::target::conformance::{self, Stage};
use bmi::step::Undoable;

/// Ends a played session.
struct Logout(World, String);

impl Drop for Logout {
    fn drop(&mut self) {
        let _ = self.0.del(SESSIONS, &self.1);
    }
}

fn with_stage(test: impl FnOnce(&Stage<'_>, &std::path::Path)) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).unwrap();
    let driver = SimTarget::new(world.clone());
    let login = |iqn: &str, initiator: &str| -> Box<dyn Any> {
        world.put(SESSIONS, iqn, &[initiator]).unwrap();
        Box::new(Logout(world.clone(), iqn.to_owned()))
    };
    let stage = Stage {
        driver: &driver,
        network: Id::from_random([3; 16]),
        a: "/disks/a".to_owned(),
        b: "/disks/b".to_owned(),
        address: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        port: 3260,
        slot: 1,
        login: &login,
    };
    test(&stage, dir.path());
}

#[test]
fn it_conforms() {
    with_stage(|stage, _| conformance::all(stage));
}

#[test]
fn a_target_cut_half_way_lets_nobody_in_and_the_step_or_its_inverse_settles_it() {
    with_stage(|stage, dir| {
        let t = stage.target(1, "cut");
        fs::write(dir.join("faults"), "fail target.make.middle *\n").unwrap();
        assert_eq!(stage.apply(t.clone()).unwrap_err().kind, Kind::Outside);
        assert_eq!(stage.targets()[0].initiators, Vec::<String>::new());
        fs::remove_file(dir.join("faults")).unwrap();
        stage.twice(t.clone());
        assert_eq!(stage.targets()[0].initiators.first(), Some(&t.initiator));

        let to = Lun { path: "/disks/b".to_owned(), ..t.luns[0].clone() };
        let swap =
            SwapLun { network: t.network, tid: 1, iqn: t.iqn.clone(), to, from: "/disks/a".to_owned(), force: false };
        fs::write(dir.join("faults"), "fail target.swap.middle *\n").unwrap();
        assert!(stage.apply(swap.clone()).is_err());
        assert_eq!(stage.targets()[0].luns, vec![]);
        fs::remove_file(dir.join("faults")).unwrap();
        stage.twice(swap.undo());
        assert_eq!(stage.targets()[0].luns[0].path, "/disks/a");
    });
}
