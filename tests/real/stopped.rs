//! Clone, tag, rollback and deprovision while Ceph is stopped: each waits, then fails clearly or ends when Ceph is back. bmid
//! answers everything else meanwhile, and nothing is left in the pool that no row wants.

use std::sync::Arc;
use std::time::Duration;

use bmi::model::Fault;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::ceph::Ceph;
use crate::disks::Inside;
use crate::rig::{Answer, Rig};
use crate::whole::login;

/// Nobody who does not ask Ceph waits so long, whatever else this machine does.
const SOON: Duration = Duration::from_secs(30);

struct Asked {
    line: &'static str,
    ends: JoinHandle<Result<Answer, Fault>>,
}

fn ask(rig: &Arc<Rig>, line: &'static str) -> Asked {
    let rig = Arc::clone(rig);
    Asked { line, ends: tokio::spawn(async move { rig.try_run(line).await }) }
}

/// What came of it; a refusal says why and what to do.
async fn ended(asked: Asked) -> bool {
    let Asked { line, ends } = asked;
    match ends.await.unwrap() {
        Ok(_) => true,
        Err(fault) => {
            assert!(!fault.why.is_empty() && !fault.fix.is_empty(), "{line}: {fault:?}");
            eprintln!("  {line}: {fault}");
            false
        }
    }
}

/// What has nothing to do with Ceph: asked, and done, while it is stopped.
async fn all_else(rig: &Rig) {
    let soon = async |line: &str| {
        tokio::time::timeout(SOON, rig.run(line)).await.unwrap_or_else(|_| panic!("{line} waits for Ceph"))
    };
    for line in ["status", "node ls", "image ls", "tag ls", "volume ls", "network ls", "op ls", "event ls", "target ls"]
    {
        soon(line).await;
    }
    let stores = soon("datastore ls").await.items;
    assert!(stores.iter().any(|d| d["name"] == "default" && d["available"] == true), "{stores:?}");
    let node = soon("node provision local --image local --mac 52:54:00:00:00:99 --network net1").await.one().clone();
    assert!(login(&node).0, "{}", login(&node).1);
    soon("node deprovision local").await;
}

/// The four begun, then Ceph stops; and the four asked for while it is stopped. Whether one of those waited till the end of it.
async fn round(rig: &Arc<Rig>, what: &str, stop: impl Fn(), go_on: impl Fn()) -> bool {
    for node in ["a", "b", "c", "e", "f"] {
        let mac = node.as_bytes()[0];
        rig.run(&format!("node provision {node} --image golden --mac 52:54:00:00:01:{mac:x} --network net1")).await;
    }
    for node in ["b", "e"] {
        rig.run(&format!("tag create {node} clean")).await;
    }
    let begun = [
        ask(rig, "node provision d --image golden --mac 52:54:00:00:01:0d --network net1"),
        ask(rig, "tag create a now"),
        ask(rig, "tag rollback b clean"),
        ask(rig, "node deprovision c"),
    ];
    while rig.run("op ls").await.items.is_empty() && begun.iter().any(|a| !a.ends.is_finished()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop();
    rig.until("datastore ls", |d| d["name"] == "ceph" && d["available"] == false && d["problem"].is_string()).await;
    let held = begun.iter().filter(|a| !a.ends.is_finished()).count();
    let leaves = ask(rig, "node deprovision f");
    let asked = [
        ask(rig, "node provision g --image golden --mac 52:54:00:00:01:0f --network net1"),
        ask(rig, "tag create a later"),
        ask(rig, "tag rollback e clean"),
    ];
    all_else(rig).await;
    let waited = !leaves.ends.is_finished();
    go_on();
    let mut done = 0;
    for one in begun.into_iter().chain([leaves]).chain(asked) {
        done += usize::from(ended(one).await);
    }
    eprintln!("{what}: {held} of 4 operations stood in it, {done} of 8 came to be");
    waited
}

/// What answers said is so, in rows, world and pool; and nothing more is left when all is taken away.
async fn judged(rig: &Rig, cluster: &Ceph, what: &str) {
    rig.until("status", |s| s["healthy"] == true).await;
    rig.settle().await.unwrap_or_else(|open| panic!("{what}: {open}"));
    assert!(rig.run("reconcile").await.items.is_empty(), "{what}: nothing differs");
    assert!(rig.run("state check").await.items.is_empty(), "{what}");
    let (nodes, tags) = (rig.run("node ls").await.items, rig.run("tag ls").await.items);
    let inside = Inside::of(cluster, "bmi");
    let count = |of: &dyn Fn(&str) -> bool, in_it: &mut dyn Iterator<Item = &String>| in_it.filter(|n| of(n)).count();
    let disks = count(&|n| n.contains(".v."), &mut inside.images.keys());
    let snaps = count(&|n| n.starts_with("snap."), &mut inside.register.keys());
    assert_eq!((disks, snaps), (nodes.len(), tags.len()), "{what}: {inside:#?}");
    for node in &nodes {
        assert_eq!(node["state"], "ready", "{what}: {node}");
    }
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    for tag in &tags {
        rig.run(&format!("tag rm {} {}", text(tag, "node"), text(tag, "name"))).await;
    }
    for node in &nodes {
        let shown = rig.run(&format!("node show {}", text(node, "name"))).await.one().clone();
        assert!(login(&shown).0, "{what}: {}", login(&shown).1);
        rig.run(&format!("node deprovision {}", text(node, "name"))).await;
    }
    emptied(cluster, what).await;
}

/// Only the golden image is there, in sight and in the trash, and the register knows of nothing.
pub async fn emptied(cluster: &Ceph, what: &str) {
    let look = || Inside::of(cluster, "bmi");
    let mut inside = look();
    for _ in 0..600 {
        if inside.wrong().is_empty() && inside.trash.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        inside = look();
    }
    assert_eq!(inside.wrong(), Vec::<String>::new(), "{what}");
    assert_eq!((inside.images.len(), inside.trash.len()), (1, 0), "{what}: {inside:#?}");
    assert!(inside.register.keys().all(|k| k.starts_with("store.")), "{what}: {inside:#?}");
}

/// With datastore `ceph` that has image `golden` in pool `bmi`, and nothing else.
pub async fn the_four_wait_or_fail_clearly(rig: &Arc<Rig>, cluster: &Ceph) {
    let disk = crate::house::disk(&rig.dir.join("local.raw"), 16);
    rig.run(&format!("image import {disk} --name local --format raw --datastore default")).await;
    let osd = |signal| move || cluster.signal("osd", signal);
    assert!(round(rig, "an OSD that is stopped", osd("STOP"), osd("CONT")).await, "its disk cannot go without Ceph");
    judged(rig, cluster, "after an OSD was stopped").await;
    round(rig, "a monitor that is dead", || cluster.signal("mon", "KILL"), || cluster.restart("mon")).await;
    judged(rig, cluster, "after a monitor was dead").await;
}
