//! What is known of workers that are silent, on a simulated world whose script makes them so.

use std::path::Path;

use bmi::step::{StartWorker, WorkerStep};

use super::*;
use crate::drivers::StepCx;

struct Plain;

impl crate::drivers::Unseal for Plain {
    fn open(&self, sealed: &bmi::model::Sealed) -> Result<String, crate::drivers::DriverError> {
        Ok(String::from_utf8_lossy(&sealed.0).into_owned())
    }
}

/// A world with the tgtd of one network.
fn world() -> (tempfile::TempDir, Arc<Sight>, Id) {
    let dir = tempfile::tempdir().unwrap();
    let drivers = Arc::new(DriverSet::sim(dir.path(), Arc::new(Plain)).unwrap());
    let network = Id::from_random([3; 16]);
    for kind in [WorkerKind::Tgtd, WorkerKind::Dnsmasq] {
        let start = WorkerStep::StartWorker(StartWorker { network, kind, slot: 1, port: 3260 });
        drivers.worker.apply(&start, &StepCx::PLAIN).unwrap();
    }
    (dir, Sight::new(drivers), network)
}

fn hang(dir: &Path, on: bool) {
    std::fs::write(dir.join("faults"), if on { "hang tgtd.answer * 0\n" } else { "" }).unwrap();
}

async fn tgtd(sight: &Arc<Sight>, network: Id) -> Health {
    let (_, Fact::Workers(all)) = sight.ask(Look::Workers(network), LISTING).await else { panic!("no workers") };
    all.into_iter().find(|h| h.kind == WorkerKind::Tgtd).unwrap()
}

fn sessions(network: Id) -> Look {
    Look::Sessions { network, tid: 1, iqn: "iqn.x".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tgtd_is_asked_once_by_all_then_by_nobody_until_the_look_that_is_out_comes_back() {
    let (dir, sight, network) = world();
    assert!(tgtd(&sight, network).await.running);
    hang(dir.path(), true);
    // All of them wait for the same look.
    let all = futures_util::future::join_all((0..50).map(|_| tgtd(&sight, network))).await;
    for health in all {
        let problem = health.problem.unwrap();
        assert!(!health.running && problem.contains("does not answer, since 20"), "{problem}");
    }
    assert_eq!(sight.asked.lock().unwrap().len(), 1, "one look is out");
    // From now on it is known: no question is put, and none waited for.
    for _ in 0..1_000 {
        let (_, fact) = sight.ask(sessions(network), Duration::from_secs(3_600)).await;
        assert!(matches!(&fact, Fact::Unknown(why) if why.contains("does not answer, since")), "{fact:?}");
    }
    let silent = sight.silent(network, WorkerKind::Tgtd).unwrap();
    assert!(!silent.is_hung(), "it was just asked");
    assert!(sight.silent(network, WorkerKind::Dnsmasq).is_none());
    hang(dir.path(), false);
    for _ in 0..500 {
        if sight.silent(network, WorkerKind::Tgtd).is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tgtd(&sight, network).await.running, "it answers again");
    let (_, fact) = sight.ask(sessions(network), LISTING).await;
    assert_eq!(fact, Fact::Sessions(Vec::new()));
}

#[test]
fn a_worker_hangs_when_it_was_asked_often_enough_for_long_enough_and_nothing_holds_it() {
    let old = Instant::now().checked_sub(Duration::from_secs(SILENT)).unwrap();
    let silent = |looks, held| Silent { looks, began: old, ..Silent::new(7, String::new(), held) };
    assert!(silent(LOOKS, false).is_hung());
    assert!(!silent(LOOKS - 1, false).is_hung(), "a host that slept has asked nobody");
    assert!(!silent(LOOKS, true).is_hung(), "a new one would wait for the same device");
    assert!(!Silent { looks: 99, ..Silent::new(7, String::new(), false) }.is_hung(), "not long enough");
}

#[test]
fn another_process_begins_anew() {
    let mut known = Known::default();
    let old = Instant::now().checked_sub(Duration::from_secs(SILENT)).unwrap();
    silence(&mut known, WorkerKind::Tgtd, Silent { looks: LOOKS, began: old, ..Silent::new(7, String::new(), false) });
    silence(&mut known, WorkerKind::Tgtd, Silent::new(7, String::new(), false));
    assert!(known.silent[&WorkerKind::Tgtd].is_hung());
    silence(&mut known, WorkerKind::Tgtd, Silent::new(8, String::new(), false));
    assert!(!known.silent[&WorkerKind::Tgtd].is_hung());
}
