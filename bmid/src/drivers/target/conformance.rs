//! What every target driver must do, real or simulated. Each part is run twice on the same outside and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::any::Any;
use std::net::IpAddr;

use bmi::model::{Id, Kind, Sealed};
use bmi::step::{
    Account, DropTarget, Fact, Look, Lun, MakeTarget, OpenPortal, Scope, Seen, SeenLun, SeenTarget, Session,
    SwapAccount, SwapLun, TargetStep, Undoable,
};

use crate::drivers::{Driver, DriverError, StepCx, Unseal};

/// A driver and its outside.
pub(super) struct Stage<'a> {
    pub(super) driver: &'a dyn Driver<Step = TargetStep>,
    pub(super) network: Id,
    /// Two backings.
    pub(super) a: String,
    pub(super) b: String,
    /// A portal that can be opened.
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) slot: u16,
    /// Logs an initiator in to a target without account; what it returns ends the session when dropped, if it still lives.
    pub(super) login: &'a dyn Fn(&str, &str) -> Box<dyn Any>,
}

/// Secrets that are not sealed at all.
pub(super) struct Plain;

impl Unseal for Plain {
    fn open(&self, sealed: &Sealed) -> Result<String, DriverError> {
        Ok(String::from_utf8(sealed.0.clone()).unwrap())
    }
}

pub(super) const INITIATOR: &str = "iqn.2026-01.internal.bmi:node.one";
pub(super) const SECRET: &str = "Geheimnis-0815-x";

/// Everything.
pub(super) fn all(stage: &Stage<'_>) {
    for part in
        [made_and_undone, swapped_and_back, another_secret, under_a_session, strangers, half_made, portals, nonsense]
    {
        part(stage);
        part(stage);
        assert_eq!(stage.targets(), vec![], "a part leaves nothing");
    }
}

impl Stage<'_> {
    pub(super) fn target(&self, tid: u32, name: &str) -> MakeTarget {
        MakeTarget {
            network: self.network,
            tid,
            iqn: format!("iqn.2026-01.internal.bmi:{name}"),
            luns: vec![lun(&self.a)],
            initiator: INITIATOR.to_owned(),
            account: None,
        }
    }

    pub(super) fn apply(&self, step: impl Into<bmi::step::Step>) -> Result<bool, DriverError> {
        let bmi::step::Step::Target(step) = step.into() else { panic!("another family") };
        self.driver.apply(&step, &StepCx::PLAIN).map(|d| d.changed)
    }

    /// Applies it twice: the first changes, the second does not.
    pub(super) fn twice(&self, step: impl Into<bmi::step::Step>) {
        let step = step.into();
        assert!(self.apply(step.clone()).unwrap(), "changed by {step:?}");
        assert!(!self.apply(step.clone()).unwrap(), "already so: {step:?}");
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.driver.observe(&Scope::Network { network: self.network, interface: "lo".to_owned() }).unwrap()
    }

    pub(super) fn targets(&self) -> Vec<SeenTarget> {
        let target = |s| if let Seen::Target(t) = s { Some(t) } else { None };
        self.seen().into_iter().filter_map(target).collect()
    }

    pub(super) fn sessions(&self, t: &MakeTarget) -> Vec<Session> {
        let look = Look::Sessions { network: t.network, tid: t.tid, iqn: t.iqn.clone() };
        match self.driver.look(&look).unwrap().unwrap() {
            Fact::Sessions(s) => s,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn lun(path: &str) -> Lun {
    let (serial, scsi_id) = ("0f8e7c1a".to_owned(), "bmi-0f8e7c1a".to_owned());
    Lun { number: 1, path: path.to_owned(), serial, scsi_id, pool: None }
}

pub(super) fn drop_of(t: &MakeTarget, force: bool) -> DropTarget {
    let account = t.account.as_ref().map(|a| a.user.clone());
    DropTarget { network: t.network, tid: t.tid, iqn: t.iqn.clone(), account, force, luns: t.luns.clone() }
}

pub(super) fn account() -> Account {
    Account { user: "user-0f8e7c1a".to_owned(), secret: Sealed(SECRET.as_bytes().to_vec()) }
}

fn as_seen(t: &MakeTarget) -> SeenTarget {
    SeenTarget {
        tid: t.tid,
        iqn: t.iqn.clone(),
        luns: t.luns.iter().map(|l| SeenLun { number: l.number, path: l.path.clone() }).collect(),
        initiators: vec![t.initiator.clone()],
        accounts: t.account.iter().map(|a| a.user.clone()).collect(),
        sessions: Vec::new(),
    }
}

fn made_and_undone(stage: &Stage<'_>) {
    let one = stage.target(1, "one");
    let two = MakeTarget { account: Some(account()), ..stage.target(2, "two") };
    let none = MakeTarget { luns: Vec::new(), ..stage.target(3, "none") };
    for t in [&one, &two, &none] {
        assert!(!stage.apply(t.undo()).unwrap(), "the inverse of what was never made changes nothing");
        stage.twice(t.clone());
    }
    assert_eq!(stage.targets(), [as_seen(&one), as_seen(&two), as_seen(&none)]);
    let networks = stage.driver.observe(&Scope::Networks).unwrap();
    assert!(networks.contains(&Seen::Network(stage.network)));
    match stage.driver.look(&Look::Targets(stage.network)).unwrap().unwrap() {
        Fact::Targets(seen) => assert_eq!(seen, stage.seen()),
        other => panic!("{other:?}"),
    }
    assert!(stage.driver.look(&Look::Interfaces).is_none(), "not a question for this driver");
    stage.twice(two.undo());
    assert_eq!(stage.targets(), [as_seen(&one), as_seen(&none)]);
    stage.twice(drop_of(&one, false));
    stage.twice(none.undo());
}

fn swapped_and_back(stage: &Stage<'_>) {
    let t = stage.target(1, "swap");
    let swap = SwapLun {
        network: t.network,
        tid: t.tid,
        iqn: t.iqn.clone(),
        to: lun(&stage.b),
        from: stage.a.clone(),
        force: false,
    };
    assert_eq!(stage.apply(swap.clone()).unwrap_err().kind, Kind::NotFound, "no target, nothing to swap");
    stage.twice(t.clone());
    assert!(!stage.apply(swap.undo()).unwrap(), "the inverse without the step changes nothing");
    stage.twice(swap.clone());
    assert_eq!(stage.targets(), [as_seen(&MakeTarget { luns: vec![lun(&stage.b)], ..t.clone() })]);
    stage.twice(swap.undo());
    assert_eq!(stage.targets(), [as_seen(&t)]);
    stage.twice(t.undo());
}

/// Whether a secret was so already nobody can see; applying it again and going back must leave a whole target.
fn another_secret(stage: &Stage<'_>) {
    let t = MakeTarget { account: Some(account()), ..stage.target(1, "secret") };
    let to = Account { secret: Sealed(b"Geheimnis-4711-y".to_vec()), ..account() };
    let swap = SwapAccount {
        network: t.network,
        tid: t.tid,
        iqn: t.iqn.clone(),
        initiator: INITIATOR.to_owned(),
        to,
        from: account(),
    };
    assert_eq!(stage.apply(swap.clone()).unwrap_err().kind, Kind::NotFound, "no target, no account");
    stage.twice(t.clone());
    for step in [swap.undo(), swap.clone().into(), swap.clone().into(), swap.undo(), swap.undo()] {
        stage.apply(step).unwrap();
        assert_eq!(stage.targets(), [as_seen(&t)]);
    }
    stage.twice(t.undo());
}

fn under_a_session(stage: &Stage<'_>) {
    let t = stage.target(1, "live");
    stage.twice(t.clone());
    assert_eq!(stage.sessions(&t), vec![]);
    let session = (stage.login)(&t.iqn, INITIATOR);
    let live = stage.sessions(&t);
    assert_eq!(live.iter().map(|s| s.initiator.as_str()).collect::<Vec<_>>(), [INITIATOR]);
    assert_eq!(stage.targets(), [SeenTarget { sessions: live.clone(), ..as_seen(&t) }]);
    assert!(!stage.apply(t.clone()).unwrap(), "making it again does not mind the session");

    let mut swap = SwapLun {
        network: t.network,
        tid: t.tid,
        iqn: t.iqn.clone(),
        to: lun(&stage.b),
        from: stage.a.clone(),
        force: false,
    };
    for refused in [stage.apply(drop_of(&t, false)), stage.apply(swap.clone())] {
        let e = refused.unwrap_err();
        assert_eq!(e.kind, Kind::Conflict);
        assert!(e.why.contains(INITIATOR) && e.why.contains(&t.iqn), "{e}");
    }
    assert_eq!(stage.targets(), [SeenTarget { sessions: live, ..as_seen(&t) }], "a refusal changes nothing");

    swap.force = true;
    stage.twice(swap);
    drop(session);
    assert_eq!(stage.sessions(&t), vec![]);
    let session = (stage.login)(&t.iqn, INITIATOR);
    assert_eq!(stage.sessions(&t).len(), 1, "after a swap the initiator may come back");
    stage.twice(drop_of(&t, true));
    assert_eq!(stage.sessions(&t), vec![]);
    drop(session);
}

fn strangers(stage: &Stage<'_>) {
    let mine = stage.target(1, "mine");
    let other = stage.target(1, "other");
    stage.twice(mine.clone());
    let e = stage.apply(other.clone()).unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "a number that another has is not taken from it");
    assert!(e.why.contains(&mine.iqn), "{e}");
    assert!(!stage.apply(drop_of(&other, true)).unwrap(), "that number with another name: gone already");
    assert_eq!(stage.targets(), [as_seen(&mine)]);
    let moved = MakeTarget { tid: 5, ..mine.clone() };
    stage.twice(moved.clone());
    assert_eq!(stage.targets(), [as_seen(&moved)], "the same name under a new number");
    assert!(!stage.apply(mine.undo()).unwrap());
    stage.twice(moved.undo());
}

/// A target that differs in everything from what is asked for becomes it.
fn half_made(stage: &Stage<'_>) {
    let was = MakeTarget {
        luns: Vec::new(),
        initiator: "iqn.2026-01.internal.bmi:old".to_owned(),
        ..stage.target(1, "half")
    };
    let wanted = MakeTarget { account: Some(account()), ..stage.target(1, "half") };
    let second = Lun { number: 2, ..lun(&stage.b) };
    let more = MakeTarget { luns: vec![lun(&stage.b), second], ..wanted.clone() };
    for t in [&was, &wanted, &more, &wanted] {
        stage.twice(t.clone());
        assert_eq!(stage.targets(), [as_seen(t)]);
    }
    stage.twice(wanted.undo());
}

fn portals(stage: &Stage<'_>) {
    let open = OpenPortal { network: stage.network, address: stage.address, port: stage.port, slot: stage.slot };
    assert!(!stage.apply(open.undo()).unwrap(), "closing what was never opened changes nothing");
    stage.twice(open.clone());
    assert_eq!(stage.seen(), [Seen::Portal(stage.address, stage.port)], "the real one alone");
    stage.twice(open.undo());
    assert!(!stage.seen().contains(&Seen::Portal(stage.address, stage.port)));
}

fn nonsense(stage: &Stage<'_>) {
    let t = || stage.target(1, "bad");
    let with = |l: Lun| MakeTarget { luns: vec![l], ..t() };
    let bad = [
        MakeTarget { tid: 0, ..t() },
        MakeTarget { tid: u32::MAX, ..t() },
        MakeTarget { iqn: "iqn.a:under_score".to_owned(), ..t() },
        MakeTarget { iqn: String::new(), ..t() },
        MakeTarget { iqn: "i".repeat(224), ..t() },
        MakeTarget { initiator: "iqn.a:b,initiator-address=ALL".to_owned(), ..t() },
        MakeTarget { initiator: String::new(), ..t() },
        MakeTarget { luns: vec![lun(&stage.a), lun(&stage.b)], ..t() },
        with(Lun { number: 0, ..lun(&stage.a) }),
        with(lun("relative/path")),
        with(lun("/tmp/a,bstype=sg")),
        with(lun("/tmp/a\nTarget 2: x")),
        with(Lun { serial: "s".repeat(37), ..lun(&stage.a) }),
        with(Lun { scsi_id: "a,online=0".to_owned(), ..lun(&stage.a) }),
        MakeTarget { account: Some(Account { user: "a,password=b".to_owned(), ..account() }), ..t() },
    ];
    for step in bad {
        assert_eq!(stage.apply(step.clone()).unwrap_err().kind, Kind::Invalid, "{step:?}");
    }
}
