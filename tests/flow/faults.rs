//! Failures of the outside: what fails is undone, what must go on goes on, what hangs holds only its own.

use std::sync::Arc;

use bmi::model::Kind;
use bmi::protocol::Envelope;

use crate::disks::{self, Disks};
use crate::rig::{Plain, Rig};

const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1";

on_both!(a_failing_step_undoes_the_ones_before_it);
async fn a_failing_step_undoes_the_ones_before_it(on: Disks) {
    for point in [
        "storage.clone.before",
        "storage.clone.after",
        "target.make.before",
        "target.make.after",
        "boot.entry.before",
        "boot.entry.after",
    ] {
        let rig = Rig::on(on).await;
        rig.ground().await;
        let before = rig.world();
        rig.faults(&format!("fail {point} 1\n"));
        let fault = rig.refuse(WEB1).await;
        assert_eq!(fault.kind, Kind::Outside, "{point}: {fault}");
        assert_eq!(rig.world(), before, "{point}: something is left");
        assert!(rig.run("node ls").await.items.is_empty(), "{point}");
        assert!(rig.run("state check").await.items.is_empty(), "{point}");
        rig.run(WEB1).await;
    }
}

on_both!(a_failing_removal_is_tried_until_it_succeeds);
async fn a_failing_removal_is_tried_until_it_succeeds(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let before = rig.world();
    rig.run(WEB1).await;
    rig.faults("fail storage.remove.before 1\nfail storage.remove.before 2\n");
    rig.run("node deprovision web1").await;
    assert_eq!(rig.world(), before);
}

on_both!(an_operation_that_cannot_go_on_is_parked_retried_and_given_up);
async fn an_operation_that_cannot_go_on_is_parked_retried_and_given_up(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run(WEB1).await;
    rig.faults("fail storage.remove.before *\n");
    let parked = rig.refuse("node deprovision web1").await;
    assert_eq!(parked.kind, Kind::Unavailable, "{parked}");
    let op = rig.until("op ls", |op| op["state"] == "parked").await;
    let named = |s: &serde_json::Value| s["problems"].to_string().contains("node.deprovision web1");
    rig.until("status", |s| s["healthy"] == false && named(s)).await;
    let id = op["id"].as_str().unwrap().to_owned();
    assert_eq!(rig.refuse("tag create web1 t").await.kind, Kind::Busy);
    for verb in ["abandon", "retry", "cancel"] {
        // It is tried again each half minute: not thrice in the moment of a check.
        let mut stays = false;
        for _ in 0..3 {
            rig.until("op ls", |op| op["state"] == "parked").await;
            let would = rig.check(&format!("op {verb} {id}")).await;
            assert!(would.end.changed, "op {verb} --check");
            stays |= rig.run("op ls").await.one()["state"] == "parked";
        }
        assert!(stays, "op {verb} --check did something");
    }
    rig.run(&format!("op abandon {id}")).await;
    rig.faults("");
    assert!(rig.run("op ls").await.items.is_empty());
    rig.run("reconcile").await;
    assert!(rig.run("state check").await.items.is_empty());
}

/// A tgtd that hangs has not said who is logged in when the time is up.
#[tokio::test(flavor = "multi_thread")]
async fn time_spent_looking_counts_against_the_time_limit_and_nothing_is_begun() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run(WEB1).await;
    rig.faults("hang tgtd.answer * 0\n");
    let short = Envelope { timeout_ms: Some(100), ..Envelope::default() };
    let fault = rig.ask(Rig::root(), short, "node deprovision web1").await.unwrap_err();
    assert_eq!(fault.kind, Kind::Timeout, "{fault}");
    assert!(fault.why.contains("nothing was begun"), "{fault}");
    assert!(rig.run("op ls").await.items.is_empty());
    rig.faults("");
}

/// Takes away what a reconcile puts back. What bmid did not make is not for it to put back; bytes cannot be put back at all.
fn take_away(rig: &Rig, whole: &[String]) {
    let kept = ["interface", "storage", "disk", "store"];
    for object in whole.iter().filter(|o| !kept.iter().any(|k| o.starts_with(k))) {
        let taken = std::fs::remove_file(rig.dir.join("world/objects").join(object));
        assert!(taken.is_ok() || taken.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound), "{object}");
    }
}

on_both!(reconcile_puts_back_what_went_missing_and_takes_what_nobody_wants);
async fn reconcile_puts_back_what_went_missing_and_takes_what_nobody_wants(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run(WEB1).await;
    let whole = rig.world();
    // The death of a worker is noticed without being asked, and at times all is back before anybody has asked.
    let mut told = Vec::new();
    for _ in 0..20 {
        take_away(&rig, &whole);
        let asked = rig.check("reconcile").await;
        assert!(!asked.items.is_empty() || rig.world() == whole, "it looked and saw nothing");
        told = asked.items;
        if told.iter().any(|r| r["outcome"] == "proposed") {
            assert!(asked.end.changed, "{told:?}");
            break;
        }
    }
    assert!(told.iter().any(|r| r["outcome"] == "proposed"), "{told:?}");
    for _ in 0..20 {
        rig.run("reconcile").await;
        if rig.world() == whole {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_eq!(rig.world(), whole);
    assert!(rig.run("reconcile").await.items.is_empty(), "a second look finds nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_whose_tgtd_does_not_start_is_undone() {
    let rig = Rig::new().await;
    rig.ground().await;
    let before = rig.world();
    rig.faults("fail worker.start.before 1\n");
    let fault = rig.refuse("network create net2 --interface eth2 --address 10.9.1.1/24").await;
    assert_eq!(fault.kind, Kind::Outside, "{fault}");
    assert_eq!(rig.world(), before);
    assert!(rig.run("op ls").await.items.is_empty());
}

on_both!(a_tgtd_that_dies_under_an_operation_is_started_under_it);
async fn a_tgtd_that_dies_under_an_operation_is_started_under_it(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run(WEB1).await;
    rig.run("tag create web1 base").await;
    let whole = rig.world();
    rig.faults("hang target.swap.before 1 5\n");
    let objects = rig.dir.join("world/objects");
    let (ended, ()) = tokio::join!(rig.try_run("tag rollback web1 base"), async {
        while !rig.dir.join("world/hits/target.swap.before").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for kind in ["targets", "portals"] {
            std::fs::remove_dir_all(objects.join(kind)).unwrap();
        }
        let tgtd = whole.iter().find(|o| o.starts_with("worker/") && o.ends_with("@tgtd")).unwrap();
        std::fs::remove_file(objects.join(tgtd)).unwrap();
    });
    ended.expect_err("its target is gone");
    for _ in 0..600 {
        if rig.world() == whole && rig.run("op ls").await.items.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(rig.world(), whole, "undone, and the target is back");
    assert!(rig.run("op ls").await.items.is_empty());
    rig.faults("");
    rig.run("tag rollback web1 base").await;
}

on_both!(an_operation_that_was_open_in_a_dump_goes_on_where_it_is_restored);
async fn an_operation_that_was_open_in_a_dump_goes_on_where_it_is_restored(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let before = rig.world();
    rig.run(WEB1).await;
    rig.faults("fail storage.remove.before *\n");
    rig.refuse("node deprovision web1").await;
    let dump = rig.dir.join("dump.jsonl");
    rig.run(&format!("state dump {}", dump.display())).await;
    rig.faults("");
    let (dir, keep) = rig.stop().await;
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    let drivers = disks::drivers(&dir, Arc::new(Plain));
    let rig = Rig::over(&dir, Rig::open(&dir), drivers, None, true);
    let restore = format!("state restore {}", dump.display());
    assert!(rig.check(&restore).await.end.changed);
    assert!(
        rig.run("node ls").await.items.is_empty() && rig.run("op ls").await.items.is_empty(),
        "--check restored it"
    );
    rig.run(&restore).await;
    let again = rig.ask(Rig::root(), Envelope { check: true, ..Envelope::default() }, &restore).await.unwrap_err();
    assert_eq!(again.kind, Kind::Conflict, "--check refuses what would be refused: {again}");
    rig.settle().await.unwrap();
    assert_eq!(rig.refuse("node show web1").await.kind, Kind::NotFound);
    assert_eq!(rig.world(), before);
    assert!(rig.run("state check").await.items.is_empty());
    drop(keep);
}

on_both!(an_operation_goes_on_after_a_restart);
async fn an_operation_goes_on_after_a_restart(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let before = rig.world();
    rig.run(WEB1).await;
    rig.faults("fail storage.remove.before *\n");
    rig.refuse("node deprovision web1").await;
    rig.faults("");
    let (dir, keep) = rig.stop().await;
    let rig = Rig::at(&dir).await;
    rig.settle().await.unwrap();
    assert_eq!(rig.refuse("node show web1").await.kind, Kind::NotFound, "the removal went on by itself");
    assert_eq!(rig.world(), before);
    assert!(rig.run("state check").await.items.is_empty());
    drop(keep);
}

on_both!(a_lost_store_takes_nothing_down_by_itself);
async fn a_lost_store_takes_nothing_down_by_itself(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run(WEB1).await;
    let whole = rig.world();
    let (dir, keep) = rig.stop().await;
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    let rig = Rig::lost_at(&dir).await;
    let kept: Vec<String> = rig.world().into_iter().filter(|o| whole.contains(o)).collect();
    assert_eq!(kept, whole, "machines go on running on an engine that has lost its records");
    let proposed = rig.ask(Rig::root(), Envelope { check: true, ..Envelope::default() }, "reconcile").await.unwrap();
    assert!(!proposed.items.is_empty(), "what no record wants is told");
    rig.run("reconcile").await;
    assert!(!rig.world().iter().any(|o| o.starts_with("worker/")), "and goes when somebody asks");
    drop(keep);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_tgtd_hangs_everything_is_answered_from_the_records_and_its_silence_is_told() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    rig.until("status", |s| s["networks"][0]["workers"][0]["running"] == true).await;
    rig.faults("hang tgtd.answer * 0\n");
    let says = |v: &serde_json::Value| v.to_string().contains("does not answer, since 20");
    rig.until("status", |s| s["healthy"] == false && says(&s["problems"])).await;
    let node = rig.run("node show web1").await.one().clone();
    assert!(node["sessions"].is_null() && says(&node["sessions_unknown"]), "{node}");
    assert!(node["address"].is_string(), "what the records know is told");
    let network = rig.run("network show net1").await.one().clone();
    assert!(says(&network["workers"][0]["problem"]) && network["workers"][1]["running"] == true, "{network}");
    let check = rig.check("reconcile").await.items;
    assert!(check.iter().all(|r| r["outcome"] == "waiting") && says(&check[0]["message"]), "{check:?}");
    rig.until("event ls", |e| e["method"] == "worker.silent").await;
    rig.faults("");
    rig.until("status", |s| s["healthy"] == true).await;
    rig.until("event ls", |e| e["method"] == "worker.answers").await;
    rig.until("node show web1", |n| n["sessions"] == serde_json::json!([])).await;
    assert!(!rig.run("event ls").await.items.iter().any(|e| e["method"] == "worker.died"));
}

on_both!(a_dropped_session_is_in_no_answer);
async fn a_dropped_session_is_in_no_answer(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    rig.run("tag create web1 t1").await;
    let sessions = rig.dir.join("world/objects/sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    std::fs::write(sessions.join(node["iqn"].as_str().unwrap()), r#"["iqn.x"]"#).unwrap();
    rig.until("node show web1", |n| n["sessions"][0]["initiator"] == "iqn.x").await;
    let answer = rig.run("tag rollback web1 t1 --force").await.one().clone();
    assert_eq!(answer["sessions"], serde_json::Value::Null, "it was dropped");
    rig.until("node show web1", |n| n["sessions"] == serde_json::json!([])).await;
}

on_both!(a_full_datastore_is_named_and_so_is_what_was_refused);
async fn a_full_datastore_is_named_and_so_is_what_was_refused(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.faults("fail storage.clone.before * full\n");
    let fault = rig.refuse("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    assert_eq!(fault.kind, Kind::Full);
    let told = fault.to_string();
    assert!(
        fault.why.contains(&format!("datastore {} is full", on.datastore())) && fault.fix.contains("datastore show"),
        "{told}"
    );
    let fault = rig.refuse("network create net2 --interface eth9 --address 10.9.0.9/24").await;
    assert!(fault.tried.contains("net2"), "what was tried on what: {fault}");
}
