//! Every step cut at every one of its requests: a go-between that passes requests on to the real tgtd until it stops.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;

use bmi::step::{MakeTarget, OpenPortal, Step, SwapLun, Undoable};

use super::*;
use crate::drivers::target::conformance::{INITIATOR, account, drop_of, lun};

/// What it has passed on, and when it stops.
struct State {
    /// Mode and operation of each request, with its payload.
    passed: Vec<(u32, u32, String)>,
    /// After so many requests the connection is closed without an answer, as a dying tgtd does.
    stop_after: usize,
    /// The request it stops at reaches tgtd; only the answer is lost.
    deaf: bool,
    /// Refuses a mode and operation with a code, each once, instead of passing it on.
    refuse: Vec<((u32, u32), u32)>,
}

/// Stands before a tgtd; its driver knows only it.
struct Between {
    driver: Tgt,
    state: Arc<Mutex<State>>,
    _dir: tempfile::TempDir,
}

impl Between {
    fn start(tgtd: &Tgtd) -> Between {
        let (dir, driver, _, _) = empty_network();
        let socket = driver.paths.tgtd_socket(tgtd.network);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let real = tgtd.driver.paths.tgtd_socket(tgtd.network);
        let state =
            Arc::new(Mutex::new(State { passed: Vec::new(), stop_after: usize::MAX, deaf: false, refuse: Vec::new() }));
        let shared = state.clone();
        // Ends with the process: it holds nothing but this socket.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                pass(&mut stream.unwrap(), &real, &shared);
            }
        });
        Between { driver: Tgt { limit: LIMIT, ..driver }, state, _dir: dir }
    }

    /// Applies a step until it is cut; how many requests it would have made, if it was not.
    fn apply(&self, step: &Step, stop_after: usize, deaf: bool) -> Result<usize, DriverError> {
        let mut state = self.state.lock().unwrap();
        *state = State { passed: Vec::new(), stop_after, deaf, refuse: std::mem::take(&mut state.refuse) };
        drop(state);
        let Step::Target(step) = step else { panic!("another family") };
        self.driver.apply(step, &StepCx::PLAIN)?;
        Ok(self.state.lock().unwrap().passed.len())
    }

    fn passed(&self) -> Vec<(u32, u32, String)> {
        self.state.lock().unwrap().passed.clone()
    }
}

fn pass(from: &mut UnixStream, real: &Path, state: &Mutex<State>) {
    let mut request = vec![0; wire::HEADER];
    from.read_exact(&mut request).unwrap();
    let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
    let (mode, op, len) = (word(0), word(4), word(72) as usize);
    request.resize(len, 0);
    from.read_exact(&mut request[wire::HEADER..]).unwrap();
    let mut state = state.lock().unwrap();
    let stops = state.passed.len() >= state.stop_after;
    // The first one that it stops at may still be carried out; none after it.
    if stops && !std::mem::take(&mut state.deaf) {
        return;
    }
    if let Some(at) = state.refuse.iter().position(|(what, _)| *what == (mode, op)) {
        let (_, code) = state.refuse.remove(at);
        from.write_all(&[code.to_le_bytes(), 8u32.to_le_bytes()].concat()).unwrap();
        return;
    }
    let mut to = UnixStream::connect(real).unwrap();
    to.write_all(&request).unwrap();
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).unwrap();
    if !stops {
        let payload = String::from_utf8_lossy(&request[wire::HEADER..]).trim_end_matches('\0').to_owned();
        state.passed.push((mode, op, payload));
        from.write_all(&answer).unwrap();
    }
}

/// Cuts `step` at every request, both ways, on an outside that `before` prepared, and repairs it by each of `repairs`, after
/// which `whole` must hold.
fn cut_everywhere(between: &Between, step: &Step, before: &dyn Fn(), repairs: &[Step], whole: &dyn Fn(&Step)) {
    for repair in repairs {
        for deaf in [false, true] {
            let mut stop_after = 0;
            loop {
                before();
                let cut = between.apply(step, stop_after, deaf);
                if cut.is_ok() {
                    assert!(stop_after > 1, "a step of so few requests was not cut at all");
                    break;
                }
                assert_eq!(cut.unwrap_err().kind, Kind::Unavailable);
                between.apply(repair, usize::MAX, false).unwrap();
                whole(repair);
                stop_after += 1;
            }
        }
    }
}

#[test]
fn a_step_cut_at_any_request_is_settled_by_applying_it_again_or_its_inverse() {
    let tgtd = Tgtd::start();
    let between = Between::start(&tgtd);
    tgtd.on_stage(|stage| {
        let t = MakeTarget { account: Some(account()), ..stage.target(1, "cut") };
        let (network, iqn, from) = (t.network, t.iqn.clone(), stage.a.clone());
        let swap = SwapLun { network, tid: 1, iqn, to: lun(&stage.b), from, force: true };
        let gone = || {
            stage.apply(drop_of(&t, true)).unwrap();
        };
        let there = || {
            gone();
            assert!(stage.apply(t.clone()).unwrap());
        };
        // Whatever was cut where: afterwards the target is there whole, with that backing, or not at all.
        let settled = |backing: Option<&str>| {
            let seen = stage.targets();
            assert_eq!(seen.iter().map(|t| t.luns[0].path.as_str()).collect::<Vec<_>>(), Vec::from_iter(backing));
            let Some(path) = backing else {
                let left = tgtd.client().account_delete(&account().user).unwrap_err();
                assert_eq!(left.code(), Some(wire::Code::NO_USER), "the account went too");
                return;
            };
            let whole = MakeTarget { luns: vec![lun(path)], ..t.clone() };
            assert!(!stage.apply(whole).unwrap(), "nothing is left to do");
            assert!(tgtd.client().listing().unwrap()[0].ready, "it takes logins");
        };
        let (make, drop_it): (Step, Step) = (t.clone().into(), drop_of(&t, true).into());
        let path = |step: &Step| match step {
            Step::Target(TargetStep::MakeTarget(s)) => settled(Some(&s.luns[0].path)),
            Step::Target(TargetStep::SwapLun(s)) => settled(Some(&s.to.path)),
            _ => settled(None),
        };
        cut_everywhere(&between, &make, &gone, &[make.clone(), drop_it.clone()], &path);
        cut_everywhere(&between, &drop_it, &there, &[drop_it.clone(), make.clone()], &path);
        let again: Step = swap.clone().into();
        cut_everywhere(&between, &again, &there, &[again.clone(), swap.undo(), make.clone(), drop_it.clone()], &path);
        gone();
        let open = OpenPortal { network, address: stage.address, port: stage.port, slot: stage.slot };
        let closed = || {
            stage.apply(open.undo()).unwrap();
        };
        let portals = |step: &Step| {
            let address = if matches!(step, Step::Target(TargetStep::OpenPortal(_))) {
                open.address
            } else {
                fill_address(open.slot).into()
            };
            assert_eq!(stage.seen(), [Seen::Portal(address, open.port)]);
        };
        let step: Step = open.clone().into();
        cut_everywhere(&between, &step, &closed, &[step.clone(), open.undo()], &portals);
    });
}

/// Modes and operations as the wire has them.
const ACL_BIND: (u32, u32) = (1, 3);
const UPDATE: (u32, u32) = (1, 5);
const LUN_NEW: (u32, u32) = (2, 0);
const LUN_DELETE: (u32, u32) = (2, 1);
const CUT: (u32, u32) = (6, 1);
const SHOW_ALL: (u32, u32) = (1, 2);
const TARGET_DELETE: (u32, u32) = (1, 1);

#[test]
fn the_acl_comes_last_no_listing_is_asked_for_and_a_live_target_changes_while_it_is_offline() {
    let tgtd = Tgtd::start();
    let between = Between::start(&tgtd);
    tgtd.on_stage(|stage| {
        let t = MakeTarget { account: Some(account()), ..stage.target(1, "order") };
        between.apply(&t.clone().into(), usize::MAX, false).unwrap();
        let kinds = || between.passed().into_iter().map(|(mode, op, _)| (mode, op)).collect::<Vec<_>>();
        assert_eq!(kinds().last(), Some(&ACL_BIND));
        assert!(!kinds().contains(&SHOW_ALL));

        let plain = MakeTarget { account: None, ..t.clone() };
        stage.twice(plain.clone());
        let portal = SocketAddr::from((fill_address(tgtd.slot), tgtd.port));
        let _session = login(portal, &t.iqn, INITIATOR, "x").unwrap();
        let (network, iqn, from) = (t.network, t.iqn.clone(), stage.a.clone());
        let swap = SwapLun { network, tid: 1, iqn, to: lun(&stage.b), from, force: true };
        between.apply(&swap.into(), usize::MAX, false).unwrap();
        let kinds = kinds();
        let at = |what| kinds.iter().position(|k| *k == what).unwrap();
        assert!(at(UPDATE) < at(CUT) && at(CUT) < at(LUN_DELETE) && at(LUN_DELETE) < at(LUN_NEW), "{kinds:?}");
        let states: Vec<_> = between.passed().into_iter().filter(|p| (p.0, p.1) == UPDATE).map(|p| p.2).collect();
        assert_eq!((states, kinds.last()), (vec!["state=offline".to_owned(), "state=ready".to_owned()], Some(&UPDATE)));

        let _session = login(portal, &t.iqn, INITIATOR, "x").unwrap();
        between.apply(&drop_of(&plain, true).into(), usize::MAX, false).unwrap();
        let kinds: Vec<_> = between.passed().into_iter().map(|(mode, op, _)| (mode, op)).collect();
        assert!(!kinds.contains(&SHOW_ALL), "dropping is cheap too");
        let at = |what| kinds.iter().position(|k| *k == what).unwrap();
        assert!(at(UPDATE) < at(CUT) && at(CUT) < at(TARGET_DELETE), "{kinds:?}");
    });
}

#[test]
fn a_target_or_lun_that_is_not_let_go_at_once_is_asked_for_again() {
    let tgtd = Tgtd::start();
    let between = Between::start(&tgtd);
    tgtd.on_stage(|stage| {
        let t = stage.target(1, "slow");
        stage.twice(t.clone());
        let (network, iqn, from) = (t.network, t.iqn.clone(), stage.a.clone());
        let swap = SwapLun { network, tid: 1, iqn, to: lun(&stage.b), from, force: false };
        between.state.lock().unwrap().refuse = vec![(LUN_DELETE, 20), (LUN_DELETE, 20)];
        between.apply(&swap.clone().into(), usize::MAX, false).unwrap();
        assert!(!stage.apply(swap).unwrap());
        for force in [true, false] {
            between.state.lock().unwrap().refuse = vec![(TARGET_DELETE, 19), (TARGET_DELETE, 20)];
            between.apply(&drop_of(&t, force).into(), usize::MAX, false).unwrap();
            assert_eq!(between.state.lock().unwrap().refuse, vec![], "it was refused as often as asked for");
            stage.twice(t.clone());
        }
    });
}
