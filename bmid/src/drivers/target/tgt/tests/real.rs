//! Steps on a real tgtd.

use bmi::model::Kind;
use bmi::step::{Lun, MakeTarget, OpenPortal, Seen, SwapLun, Undoable};

use super::client::On;
use super::*;
use crate::drivers::target::conformance::{self, INITIATOR, account, drop_of, lun};

#[test]
fn it_conforms() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(conformance::all);
}

/// All states that a process killed between two requests can leave.
#[test]
fn a_target_half_made_at_any_request_is_completed_and_its_inverse_takes_it_away() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let t = MakeTarget { account: Some(account()), ..stage.target(1, "half") };
        let l = &t.luns[0];
        let c = tgtd.client();
        for cut in 1..=5 {
            for undo in [false, true] {
                c.target_new(t.tid, &t.iqn).unwrap();
                if cut > 1 {
                    c.lun_new(t.tid, 1, &l.path).unwrap();
                }
                if cut > 2 {
                    c.lun_mark(t.tid, 1, &l.serial, &l.scsi_id, On::File).unwrap();
                }
                if cut > 3 {
                    c.account_new("user-0f8e7c1a", "another-secret-from-before").unwrap();
                }
                if cut > 4 {
                    c.account_delete("user-0f8e7c1a").unwrap();
                    c.account_new("user-0f8e7c1a", conformance::SECRET).unwrap();
                    c.account_bind(t.tid, "user-0f8e7c1a").unwrap();
                }
                if !undo {
                    stage.twice(t.clone());
                    let whole = &c.listing().unwrap()[0];
                    assert_eq!((whole.luns[0].serial.as_str(), whole.ready), (l.serial.as_str(), true), "cut {cut}");
                    let user = format!("{}%{}", account().user, conformance::SECRET);
                    let inq = tgtd.iscsi("iscsi-inq", INITIATOR, Some(&user), &t.iqn, &[]);
                    assert!(inq.status.success(), "cut {cut}: {}", text(&inq));
                }
                stage.twice(t.undo());
                assert_eq!(stage.targets(), vec![], "cut {cut}");
                assert_eq!(c.account_delete("user-0f8e7c1a").unwrap_err().code(), Some(wire::Code::NO_USER));
            }
        }
    });
}

#[test]
fn a_drop_or_swap_cut_short_is_completed_by_itself_by_its_inverse_and_by_making_the_target_again() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let c = tgtd.client();
        let t = stage.target(1, "cut");
        let swap = |to: &str, from: &str| SwapLun {
            network: t.network,
            tid: t.tid,
            iqn: t.iqn.clone(),
            to: lun(to),
            from: from.to_owned(),
            force: false,
        };
        let forth = swap(&stage.b, &stage.a);
        for cut in 1..=3 {
            let repairs: [bmi::step::Step; 3] = [forth.clone().into(), forth.undo(), t.clone().into()];
            for repair in repairs {
                stage.twice(t.clone());
                c.target_ready(t.tid, false).unwrap();
                if cut > 1 {
                    c.lun_delete(t.tid, 1).unwrap();
                }
                if cut > 2 {
                    c.lun_new(t.tid, 1, &stage.b).unwrap();
                }
                let portal = SocketAddr::from((fill_address(tgtd.slot), tgtd.port));
                assert_eq!(login(portal, &t.iqn, INITIATOR, "x").unwrap_err(), 0x0300, "nobody meets it half-swapped");
                stage.twice(repair);
                let now = &c.listing().unwrap()[0];
                assert!(now.ready && now.luns[0].serial == t.luns[0].serial, "{now:?}");
                drop(login(portal, &t.iqn, INITIATOR, "x").unwrap());
                stage.apply(drop_of(&t, true)).unwrap();
            }
        }
    });
}

#[test]
fn a_swap_keeps_serial_scsi_id_and_lun_and_shows_the_new_bytes() {
    let tgtd = Tgtd::start();
    fs::write(tgtd.disk("b"), vec![0xb7; 4 << 20]).unwrap();
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "swap");
        stage.twice(t.clone());
        let inquiry = || text(&tgtd.iscsi("iscsi-inq", INITIATOR, None, &t.iqn, &["-e", "1", "-c", "128"]));
        let device = || text(&tgtd.iscsi("iscsi-inq", INITIATOR, None, &t.iqn, &["-e", "1", "-c", "131"]));
        let size = || text(&tgtd.iscsi("iscsi-readcapacity16", INITIATOR, None, &t.iqn, &[]));
        let before = (inquiry(), device(), size());
        assert!(before.0.contains(&t.luns[0].serial), "{}", before.0);
        stage.twice(SwapLun {
            network: t.network,
            tid: t.tid,
            iqn: t.iqn.clone(),
            to: lun(&stage.b),
            from: stage.a.clone(),
            force: false,
        });
        assert_eq!((inquiry(), device()), (before.0, before.1));
        assert_ne!(size(), before.2, "the other disk has another size");
        let standard = text(&tgtd.iscsi("iscsi-inq", INITIATOR, None, &t.iqn, &[]));
        assert!(standard.contains("Vendor:IET") && standard.contains("Product:VIRTUAL-DISK"), "{standard}");
    });
}

#[test]
fn a_busy_initiator_that_comes_back_at_once_does_not_keep_its_target_from_being_dropped_by_force() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "busy");
        stage.twice(t.clone());
        let url = format!("iscsi://{}:{}/{}/1", fill_address(tgtd.slot), tgtd.port, t.iqn);
        let mut load = Load(
            Command::new("iscsi-perf").args(["-i", INITIATOR, "-t", "60", &url]).stdout(Stdio::null()).spawn().unwrap(),
        );
        let mut tries = 0;
        while stage.sessions(&t).is_empty() {
            tries += 1;
            assert!(tries < 3_000 && load.0.try_wait().unwrap().is_none(), "the load did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let swap = SwapLun {
            network: t.network,
            tid: t.tid,
            iqn: t.iqn.clone(),
            to: lun(&stage.b),
            from: stage.a.clone(),
            force: true,
        };
        assert!(stage.apply(swap).unwrap(), "under load");
        assert!(stage.apply(drop_of(&t, true)).unwrap());
        assert_eq!(stage.targets(), vec![]);
        stage.twice(stage.target(1, "after"));
    });
}

/// tgtd drops commands of live sessions of a target that is set offline: the machine would wait for its disk for ever.
#[test]
fn a_target_is_put_right_under_a_working_session_and_no_command_of_it_is_lost() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "mended");
        stage.twice(t.clone());
        let url = format!("iscsi://{}:{}/{}/1", fill_address(tgtd.slot), tgtd.port, t.iqn);
        let mut load = Load(
            Command::new("iscsi-perf").args(["-i", INITIATOR, "-t", "8", &url]).stdout(Stdio::null()).spawn().unwrap(),
        );
        let mut mended = 0;
        let mut looks = 0;
        while load.0.try_wait().unwrap().is_none() {
            looks += 1;
            assert!(looks < 8_000, "the load never ended: a command of it was lost");
            if !stage.sessions(&t).is_empty() {
                tgtd.client().acl_bind(t.tid, "ALL").unwrap();
                assert!(stage.apply(t.clone()).unwrap());
                mended += 1;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(mended > 5, "the session was there only {mended} times");
        assert!(load.0.wait().unwrap().success());
        assert!(!stage.apply(t.clone()).unwrap(), "nothing is left to mend");
        let stranger = tgtd.iscsi("iscsi-readcapacity16", "iqn.2026-01.internal.bmi:node.two", None, &t.iqn, &[]);
        assert!(!stranger.status.success(), "{}", text(&stranger));
    });
}

struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_missing_backing_is_named_and_nothing_is_left_or_cut_off() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let gone = tgtd.disk("gone");
        assert!(!exists(&gone));
        let bad = MakeTarget { luns: vec![lun(&gone)], account: Some(account()), ..stage.target(1, "bad") };
        let e = stage.apply(bad).unwrap_err();
        assert!(e.why.contains(&gone) && e.kind == Kind::Unavailable, "{e}");
        assert!(e.why.contains("No such file"), "{e}");
        assert_eq!(stage.targets(), vec![], "no half-made target stays");
        assert!(tgtd.client().account_delete(&account().user).is_err(), "nor its account");

        let t = stage.target(2, "good");
        stage.twice(t.clone());
        let portal = SocketAddr::from((fill_address(tgtd.slot), tgtd.port));
        let _session = login(portal, &t.iqn, INITIATOR, "x").unwrap();
        let (network, iqn, from) = (t.network, t.iqn.clone(), stage.a.clone());
        let e = stage.apply(SwapLun { network, tid: 2, iqn, to: lun(&gone), from, force: true }).unwrap_err();
        assert!(e.why.contains(&gone), "{e}");
        assert_eq!(stage.sessions(&t).len(), 1, "nobody is cut off for a swap that cannot be");
        let folder = MakeTarget { luns: vec![lun("/tmp")], ..stage.target(3, "folder") };
        assert!(stage.apply(folder).unwrap_err().why.contains("is a folder"));
    });
}

/// tgtd refuses what `readable` lets through: the old backing comes back.
#[test]
fn a_swap_to_what_tgtd_cannot_open_puts_the_old_backing_back() {
    let tgtd = Tgtd::start();
    nix::unistd::mkfifo(Path::new(&tgtd.disk("strange")), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let loops = tgtd.disk("strange");
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "t");
        stage.twice(t.clone());
        let to = Lun { path: loops.clone(), ..lun(&loops) };
        let (network, iqn, from) = (t.network, t.iqn.clone(), stage.a.clone());
        let e = stage.apply(SwapLun { network, tid: 1, iqn, to, from, force: false }).unwrap_err();
        assert!(e.why.contains(&loops), "{e}");
        assert!(!stage.apply(t.clone()).unwrap(), "all as it was: {e:?}");
    });
}

#[test]
fn a_portal_opens_instead_of_the_loopback_one_and_a_missing_address_is_named() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let open = OpenPortal { network: stage.network, address: stage.address, port: stage.port, slot: stage.slot };
        let fill = SocketAddr::from((fill_address(stage.slot), stage.port));
        let real = SocketAddr::from((stage.address, stage.port));
        let reach = |at: SocketAddr| TcpStream::connect_timeout(&at, Duration::from_secs(5)).is_ok();
        assert!(reach(fill) && !reach(real));
        stage.twice(open.clone());
        assert!(!reach(fill) && reach(real));
        stage.twice(open.undo());
        assert!(reach(fill) && !reach(real));

        let nowhere = OpenPortal { address: Ipv4Addr::new(203, 0, 113, 7).into(), ..open.clone() };
        let e = stage.apply(nowhere).unwrap_err();
        assert_eq!(e.kind, Kind::Unavailable);
        assert!(e.why.contains("203.0.113.7") && e.fix.contains("is the address on the interface?"), "{e:?}");
        assert_eq!(stage.seen(), [Seen::Portal(fill_address(stage.slot).into(), stage.port)], "the loopback one stays");

        let _other = TcpListener::bind(real).unwrap();
        let e = stage.apply(open).unwrap_err();
        assert!(e.kind == Kind::Unavailable && e.why.contains("something else listens"), "{e:?}");
    });
}

#[test]
fn a_tgtd_killed_mid_way_is_unavailable_and_says_which() {
    let mut tgtd = Tgtd::start();
    let (driver, network) = (&tgtd.driver, tgtd.network);
    let t = MakeTarget {
        network,
        tid: 1,
        iqn: "iqn.2026-01.internal.bmi:t".to_owned(),
        luns: vec![lun(&tgtd.disk("a"))],
        initiator: INITIATOR.to_owned(),
        account: None,
    };
    assert!(driver.apply(&TargetStep::MakeTarget(t.clone()), &StepCx::PLAIN).unwrap().changed);
    tgtd.kill();
    let driver = &tgtd.driver;
    let network_scope = Scope::Network { network, interface: "lo".to_owned() };
    let look = Look::Sessions { network, tid: 1, iqn: t.iqn.clone() };
    let errors = [
        driver.apply(&TargetStep::MakeTarget(t.clone()), &StepCx::PLAIN).unwrap_err(),
        driver.apply(&TargetStep::DropTarget(drop_of(&t, true)), &StepCx::PLAIN).unwrap_err(),
        driver.observe(&network_scope).unwrap_err(),
        driver.look(&look).unwrap().unwrap_err(),
    ];
    for e in errors {
        assert_eq!(e.kind, Kind::Unavailable, "{e}");
        assert!(e.why.contains(&format!("tgtd of network {network} is not running")), "{e}");
    }
}

/// Prints what one takes; the figures are for people.
#[test]
fn three_hundred_targets_are_made_and_dropped_one_by_one_and_side_by_side() {
    let tgtd = Tgtd::start();
    tgtd.on_stage(|stage| {
        let make = |tid: u32| MakeTarget {
            account: Some(bmi::step::Account { user: format!("user-{tid}"), ..account() }),
            ..stage.target(tid, &format!("many.{tid}"))
        };
        let timed = |what: &str, n: u32, act: &dyn Fn()| {
            let start = Instant::now();
            act();
            println!("{what}: {:?} each", start.elapsed() / n);
        };
        timed("MakeTarget, one by one", 200, &|| (1..=200).for_each(|tid| assert!(stage.apply(make(tid)).unwrap())));
        let network = stage.network;
        let steps: Vec<MakeTarget> = (201..=300).map(make).collect();
        timed("MakeTarget, 50 side by side", 100, &|| {
            let driver = &tgtd.driver;
            std::thread::scope(|scope| {
                for pair in steps.chunks(2) {
                    scope.spawn(move || {
                        for t in pair {
                            let done = driver.apply(&TargetStep::MakeTarget(t.clone()), &StepCx::PLAIN);
                            assert!(done.unwrap().changed);
                        }
                    });
                }
            });
        });
        timed("observe at 300", 1, &|| assert_eq!(stage.targets().len(), 300));
        timed("Look::Sessions at 300", 1, &|| assert_eq!(stage.sessions(&make(299)), vec![]));
        timed("MakeTarget that is so already", 1, &|| assert!(!stage.apply(make(150)).unwrap()));
        timed("DropTarget", 300, &|| {
            (1..=300).for_each(|tid| assert!(stage.apply(drop_of(&make(tid), true)).unwrap()))
        });
        assert_eq!(stage.targets(), vec![], "{network}");
    });
}
