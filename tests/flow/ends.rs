//! Ends that nobody wishes for: an answer that cannot be built, a call that returns after its operation was given up, a
//! store that fails in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmi::model::{Change, Id, Kind, Table};
use bmi::protocol::Envelope;
use bmid::store::Store;

use crate::disks::{self, Disks};
use crate::rig::{Plain, Rig};

const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1";

/// A fresh engine, and the store beneath it.
async fn with_store(on: Disks, on_failed: impl Fn() + Send + Sync + 'static) -> (Rig, Store, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    on.give(temp.path());
    let store = Rig::open_until_it_fails(temp.path(), Box::new(move |_| on_failed()));
    let drivers = disks::drivers(temp.path(), Arc::new(Plain));
    let rig = Rig::over(temp.path(), store.clone(), drivers, Some(temp.path().join("datastore")), true);
    rig.ground().await;
    (rig, store, temp)
}

/// Waits until the world's script has had that point passed.
async fn passed(rig: &Rig, point: &str) {
    for _ in 0..1000 {
        if rig.dir.join("world/hits").join(point).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{point} was never passed");
}

fn events(rig: &[serde_json::Value], method: &str) -> Vec<String> {
    let of = rig.iter().filter(|e| e["method"] == method);
    of.map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_whose_answer_cannot_be_built_ends_without_one_and_says_so() {
    let (rig, store, _temp) = with_store(Disks::Simulated, || panic!("the store failed")).await;
    rig.faults("hang boot.entry.before 1 5\n");
    let network: Id = rig.run("network show net1").await.one()["id"].as_str().unwrap().parse().unwrap();
    let op: Id = "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
    let named = || Envelope { op_id: Some(op), ..Envelope::default() };
    let (done, ()) = tokio::join!(rig.ask(Rig::root(), named(), WEB1), async {
        passed(&rig, "boot.entry.before").await;
        // A reference that breaks under it.
        let gone = Change::Delete(Table::Network, network);
        store.write(|tx| tx.apply(&gone)).unwrap().1.wait().unwrap();
    });
    let done = done.expect("its steps are done");
    assert!(done.items.is_empty() && done.end.changed, "{done:?}");
    assert!(rig.run("op ls").await.items.is_empty(), "it is not tried for ever");
    assert_eq!(rig.run(&format!("op show {op}")).await.one()["state"], "done");
    let said = events(&rig.run("event ls").await.items, "node.provision");
    assert!(said.iter().any(|m| m.contains("no answer") && m.contains("state check")), "{said:?}");
    let again = rig.ask(Rig::root(), named(), WEB1).await.expect("the same answer");
    assert!(again.items.is_empty() && again.end.changed, "{again:?}");
    rig.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_another_one_carried_on_with_is_late_under_its_own_name() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.engine.set_late_after(Duration::from_secs(2));
    rig.faults("hang target.make.before 1 5\n");
    let late = rig.refuse(WEB1).await;
    assert_eq!(late.kind, Kind::Timeout, "{late}");
    assert!(late.to_string().contains("make target"), "{late}");
    // The call returns, and the operation ends as if it had never been late.
    rig.until("node show web1", |n| n["state"] == "ready").await;
    assert!(rig.run("state check").await.items.is_empty());
    rig.engine.stop().await;
}

on_both!(nothing_is_undone_under_a_running_call_and_what_it_leaves_is_collected);
async fn nothing_is_undone_under_a_running_call_and_what_it_leaves_is_collected(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let before: Vec<String> = rig.world().into_iter().filter(|o| o.starts_with("disk/")).collect();
    rig.engine.set_late_after(Duration::from_millis(100));
    rig.faults("hang storage.clone.before 1 8\n");
    let late = rig.refuse(WEB1).await;
    assert_eq!(late.kind, Kind::Timeout, "{late}");
    let op = rig.run("op ls").await.one()["id"].as_str().unwrap().to_owned();
    let given_up = rig.run(&format!("op abandon {op}")).await;
    assert_eq!(given_up.one()["state"], "abandoned", "{given_up:?}");
    let trace = || std::fs::read_to_string(rig.dir.join("world/trace")).unwrap_or_default();
    assert!(!trace().contains("storage.clone.after"), "the call still runs");
    assert!(!trace().contains("storage.remove"), "nothing is undone under it: {}", trace());
    let disks = |world: Vec<String>| world.into_iter().filter(|o| o.starts_with("disk/")).collect::<Vec<_>>();
    assert_eq!(disks(rig.world()), before, "it has made nothing yet");
    assert!(rig.run("op ls").await.items.is_empty());
    // Its objects are free: the same node is made while the call still runs.
    rig.engine.set_late_after(Duration::ZERO);
    rig.run(WEB1).await;
    let whole = rig.world();
    rig.until("event ls", |e| e["method"] == "op.late" && e["message"].as_str().unwrap().contains(&op)).await;
    let left: Vec<String> = rig.world().into_iter().filter(|o| !whole.contains(o)).collect();
    assert_eq!(left.len(), 1, "the clone that came late: {left:?}");
    assert!(!trace().contains("storage.remove"), "nothing is removed unless somebody asks: {}", trace());
    rig.faults("");
    rig.run("reconcile").await;
    assert_eq!(rig.world(), whole);
    assert_eq!(rig.run("node show web1").await.one()["state"], "ready");
    assert!(rig.run("state check").await.items.is_empty());
}

on_both!(a_journal_write_that_fails_ends_the_store_and_what_was_open_goes_on_with_the_next);
async fn a_journal_write_that_fails_ends_the_store_and_what_was_open_goes_on_with_the_next(on: Disks) {
    for point in ["begin.applied", "begin.durable", "final.applied", "end.applied", "end.durable"] {
        let failed = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&failed);
        let (rig, store, temp) = with_store(on, move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .await;
        rig.run(WEB1).await;
        let whole = rig.world();
        rig.faults(&format!("fail journal.{point} 1 full\n"));
        let fault = rig.refuse("node deprovision web1").await;
        assert_eq!(failed.load(Ordering::SeqCst), 1, "{point}: {fault}");
        assert_eq!(rig.refuse("node ls").await.kind, Kind::Full, "{point}: nothing is served from it");
        drop(store);
        let (dir, _) = rig.stop().await;
        // What was applied and not durable may be there or not: both are an engine that goes on.
        std::fs::remove_file(dir.join("world/faults")).unwrap();
        let rig = Rig::at(&dir).await;
        rig.settle().await.unwrap_or_else(|open| panic!("{point}: {open}"));
        if rig.run("node ls").await.items.is_empty() {
            assert_ne!(rig.world(), whole, "{point}");
            rig.run(WEB1).await;
        }
        assert_eq!(rig.world().len(), whole.len(), "{point}");
        assert!(rig.run("state check").await.items.is_empty(), "{point}");
        assert!(rig.run("reconcile").await.items.is_empty(), "{point}");
        drop(temp);
    }
}
