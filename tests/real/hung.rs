//! Workers that live and do not answer: nobody waits for them, they are told as what they are, and after a while a new one
//! serves in their place.

use std::time::Duration;

use serde_json::Value;

use crate::house::{inside, pid_of, sh};
use crate::rig::Rig;
use crate::whole::{ground, login};

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

async fn events(rig: &Rig, method: &str) -> Vec<String> {
    let all = rig.run("event ls").await.items;
    all.iter().filter(|e| e["method"] == method).map(|e| e["message"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_tgtd_is_told_from_a_dead_one_and_serves_on_when_it_is_let_go() {
    if !inside("hung::a_stopped_tgtd_is_told_from_a_dead_one_and_serves_on_when_it_is_let_go") {
        return;
    }
    let rig = Rig::real().await;
    ground(&rig).await;
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    let tgtd = pid_of("tgtd").expect("tgtd runs");
    sh(&format!("kill -STOP {tgtd}"));
    let said = format!("process {tgtd} does not answer: it was stopped by a signal, since 20");
    rig.until("status", |s| s["healthy"] == false && problems(s).contains(&said)).await;
    let shown = rig.run("node show web1").await.one().clone();
    assert_eq!(shown["sessions"], Value::Null, "nobody knows");
    assert!(shown["sessions_unknown"].as_str().unwrap().contains(&said), "{shown}");
    assert_eq!(shown["state"], "ready", "what the records know is told");
    let target = rig.run("target ls").await.one().clone();
    assert!(target["sessions"].is_null() && target["sessions_unknown"].as_str().unwrap().contains(&said), "{target}");
    let network = rig.run("network show net1").await.one().clone();
    assert_eq!(network["workers"][0]["running"], false);
    assert_eq!(network["workers"][1]["running"], true, "its dnsmasq serves on");
    let check = rig.check("reconcile").await.items;
    assert!(check.iter().any(|r| r["outcome"] == "waiting" && r["message"].to_string().contains(&said)), "{check:?}");
    let refused = rig.refuse("node deprovision web1").await;
    assert!(refused.to_string().contains(&said), "{refused}");
    let doctor = rig.run("doctor").await.items;
    let finding = doctor.iter().find(|f| f["check"] == "tgtd on eth1").expect("the doctor names it");
    assert!(finding["fix"].to_string().contains(&format!("kill -9 {tgtd}")), "{finding}");

    sh(&format!("kill -CONT {tgtd}"));
    rig.until("status", |s| s["healthy"] == true).await;
    assert!(login(&node).0, "{}", login(&node).1);
    assert_eq!(pid_of("tgtd"), Some(tgtd), "nobody touched it");
    rig.until("event ls", |e| e["method"] == "worker.answers").await;
    assert_eq!(events(&rig, "worker.silent").await.len(), 1);
    assert_eq!(events(&rig, "worker.died").await, Vec::<String>::new());
    rig.run("node deprovision web1").await;
    rig.run("network rm net1").await;
}

/// Takes as long as bmid gives a silent worker.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_stay_silent_are_replaced_and_filled() {
    if !inside("hung::workers_that_stay_silent_are_replaced_and_filled") {
        return;
    }
    let rig = Rig::real().await;
    ground(&rig).await;
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    let before = [pid_of("tgtd").unwrap(), pid_of("dnsmasq").unwrap()];
    sh(&format!("kill -STOP {} {}", before[0], before[1]));
    for _ in 0..1_200 {
        let now = [pid_of("tgtd"), pid_of("dnsmasq")];
        if now.iter().zip(before).all(|(now, before)| now.is_some_and(|n| n != before)) && login(&node).0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(login(&node).0, "{}", login(&node).1);
    rig.until("status", |s| s["healthy"] == true).await;
    let told = events(&rig, "reconcile").await.join("\n");
    for (kind, pid) in ["tgtd", "dnsmasq"].iter().zip(before) {
        assert!(told.contains(&format!("its {kind} hangs: process {pid} does not answer")), "{told}");
    }
    assert_eq!(events(&rig, "worker.died").await, Vec::<String>::new(), "bmid ended them itself");
    rig.run("node deprovision web1").await;
    rig.run("network rm net1").await;
}
