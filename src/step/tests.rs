//! What every step must keep: an inverse exactly where the type says so, and texts without secrets.

use super::*;
use crate::model::{Id, Sealed};

fn id(n: u8) -> Id {
    Id::from_random([n; 16])
}

#[test]
fn a_made_target_is_taken_back_with_its_account() {
    let make = MakeTarget {
        network: id(1),
        tid: 7,
        iqn: "iqn.2026-11.internal.bmi:x".into(),
        luns: vec![],
        initiator: "i".into(),
        account: Some(Account { user: "u".into(), secret: Sealed(b"hidden".to_vec()) }),
    };
    let Some(Step::Target(TargetStep::DropTarget(drop))) = Step::from(make.clone()).inverse() else {
        panic!("no inverse")
    };
    assert_eq!((drop.tid, drop.account.as_deref(), drop.force), (7, Some("u"), true));
    assert!(!format!("{make:?}{}", Step::from(make.clone()).describe()).contains("hidden"));
}

#[test]
fn a_swap_taken_back_twice_is_itself() {
    let lun = Lun { number: 1, path: "/b".into(), serial: "s".into(), scsi_id: "i".into(), pool: None };
    let swap = SwapLun { network: id(1), tid: 7, iqn: "q".into(), to: lun, from: "/a".into(), force: false };
    let there: Step = swap.into();
    assert_eq!(there.inverse().and_then(|s| s.inverse()), Some(there));
}

#[test]
fn removals_have_no_inverse() {
    let place = crate::model::Place::Folder { path: "/d".into(), loop_size: None, thin: false };
    let remove: Step = Remove { datastore: id(1), place, what: Backing::volume(id(2), 3) }.into();
    assert_eq!(remove.inverse(), None);
    let stop: Step = StopWorker { network: id(1), kind: WorkerKind::Tgtd }.into();
    assert_eq!(stop.inverse(), None);
}
