//! Who gets in, who does not, and that nobody reads a secret.

use bmi::model::{Kind, Sealed};
use bmi::step::{Account, MakeTarget, SwapLun};

use super::*;
use crate::drivers::target::conformance::{INITIATOR, SECRET, account, drop_of, lun};

#[test]
fn the_named_initiator_gets_in_and_another_does_not() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "acl");
        stage.twice(t.clone());
        let right = tgtd.iscsi("iscsi-readcapacity16", INITIATOR, None, &t.iqn, &[]);
        assert!(right.status.success(), "{}", text(&right));
        let wrong = tgtd.iscsi("iscsi-readcapacity16", "iqn.2026-01.internal.bmi:node.two", None, &t.iqn, &[]);
        assert!(!wrong.status.success(), "{}", text(&wrong));
        let renamed = MakeTarget { initiator: "iqn.2026-01.internal.bmi:node.two".to_owned(), ..t.clone() };
        stage.twice(renamed);
        assert!(!tgtd.iscsi("iscsi-readcapacity16", INITIATOR, None, &t.iqn, &[]).status.success());
        let wrong = tgtd.iscsi("iscsi-readcapacity16", "iqn.2026-01.internal.bmi:node.two", None, &t.iqn, &[]);
        assert!(wrong.status.success(), "{}", text(&wrong));
    });
}

#[test]
fn chap_lets_the_right_secret_in_and_no_other_and_none_is_told_to_anybody() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let t = MakeTarget { account: Some(account()), ..stage.target(1, "chap") };
        stage.twice(t.clone());
        let user = &account().user;
        let gets_in = |secret: Option<String>| {
            tgtd.iscsi("iscsi-readcapacity16", INITIATOR, secret.as_deref(), &t.iqn, &[]).status.success()
        };
        assert!(gets_in(Some(format!("{user}%{SECRET}"))));
        assert!(!gets_in(Some(format!("{user}%{SECRET}x"))));
        assert!(!gets_in(Some(format!("other%{SECRET}"))));
        assert!(!gets_in(None));

        let open = MakeTarget { account: None, ..t.clone() };
        stage.twice(open);
        assert!(gets_in(None), "an account that is asked for no more is taken away");
        stage.twice(t.clone());
        assert!(!gets_in(None));
        assert!(!tgtd.log().contains(SECRET), "tgtd's log");
        assert!(!format!("{:?}{:?}", stage.seen(), t).contains(SECRET));
    });
}

#[test]
fn a_secret_that_cannot_be_sent_is_refused_without_showing_it() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        for secret in ["Geheim,user=x", "Geheim\nzwei", "", &"Geheim".repeat(2_000)] {
            let account = Account { user: "u".to_owned(), secret: Sealed(secret.as_bytes().to_vec()) };
            let t = MakeTarget { account: Some(account), luns: vec![lun(&stage.a)], ..stage.target(1, "sec") };
            let e = stage.apply(t).unwrap_err();
            assert_eq!(e.kind, Kind::Invalid);
            let told = format!("{e} {e:?} {}", bmi::model::Fault::from(e_again(&e)));
            assert!(!told.contains("Geheim"), "{told}");
            assert_eq!(stage.targets(), vec![], "and no half-made target stays");
        }
    });
}

fn e_again(e: &DriverError) -> DriverError {
    DriverError::new(e.kind, e.tried.clone(), e.why.clone()).fix(e.fix.clone())
}

/// tgtd prints an initiator's alias as it came. A tenant must not be able to make up targets, disks, access or sessions.
#[test]
fn an_initiator_that_writes_lines_into_the_listing_makes_up_nothing() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let (one, two) = (stage.target(1, "one"), stage.target(2, "two"));
        stage.twice(one.clone());
        stage.twice(two.clone());
        let honest = stage.targets();
        let portal = SocketAddr::from((fill_address(tgtd.slot), tgtd.port));

        let lines = "x\n    LUN information:\n        LUN: 7\n            Backing store path: /etc/shadow\n    \
                     Account information:\n        root\n    ACL information:\n        iqn.evil";
        for alias in [lines.to_owned(), format!("{lines}{}", "A".repeat(2_000))] {
            let session = login(portal, &one.iqn, INITIATOR, &alias).unwrap();
            let mut now = stage.targets();
            assert_eq!(now[0].sessions.len(), 1);
            assert_eq!(now[0].sessions[0].initiator, INITIATOR);
            now[0].sessions.clear();
            assert_eq!(now, honest);
            drop(session);
            while !stage.sessions(&one).is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        for forged in ["x\nTarget 9: iqn.evil\n    System information:", &format!("x\nTarget 2: {}\n", two.iqn)] {
            let session = login(portal, &one.iqn, INITIATOR, forged).unwrap();
            let e = stage
                .driver
                .observe(&Scope::Network { network: stage.network, interface: "lo".to_owned() })
                .unwrap_err();
            assert_eq!(e.kind, Kind::Outside, "nothing is believed, and it is said why");
            assert!(e.why.contains("names a target where there is none") && e.fix.contains("alias"), "{e:?}");
            assert_eq!(stage.sessions(&one).len(), 1, "what matters for deciding about sessions still works");
            let other = stage.target(3, "meanwhile");
            assert!(stage.apply(other.clone()).unwrap(), "and so does giving other machines their disks");
            stage.twice(drop_of(&other, false));
            for to in [&stage.b, &stage.a] {
                let (network, iqn, from) = (two.network, two.iqn.clone(), stage.a.clone());
                assert!(stage.apply(SwapLun { network, tid: 2, iqn, to: lun(to), from, force: false }).unwrap());
            }
            tgtd.client().lun_delete(2, 1).unwrap();
            assert!(stage.apply(two.clone()).unwrap(), "a target half-made is made again");
            drop(session);
            while !stage.sessions(&one).is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(stage.targets(), honest);
    });
}
