//! Ceph stops and comes back in the middle of provisioning twenty nodes: its OSD hangs, its OSD dies, its monitor dies. Each
//! node is provisioned or refused, and what Ceph itself says is in the pool is what the answers say, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use crate::ceph::{self, Ceph};
use crate::disks::Inside;
use crate::house::inside;
use crate::initiator::{BLOCK, Session};
use crate::rig::Rig;
use crate::stopped;
use crate::store::Store;

const NODES: usize = 20;

/// Provisions all at once; `fault` happens as soon as the first disk is there. The nodes that came to be.
async fn provision(rig: &Arc<Rig>, cluster: &Ceph, round: u8, fault: impl AsyncFn()) -> Vec<serde_json::Value> {
    let nodes: Vec<_> = (0..NODES)
        .map(|n| {
            let rig = Arc::clone(rig);
            let line =
                format!("node provision n{n} --image golden --mac 52:54:00:00:{round:02x}:{n:02x} --network net1");
            tokio::spawn(async move { rig.try_run(&line).await })
        })
        .collect();
    let begun = (0..600).any(|_| cluster.tool(&["rbd", "ls", "bmi"]).contains(".v."));
    assert!(begun, "no disk is made");
    fault().await;
    let mut ready = Vec::new();
    for (n, node) in nodes.into_iter().enumerate() {
        match node.await.unwrap() {
            Ok(answer) => ready.push(answer.one().clone()),
            Err(fault) => assert!(!fault.why.is_empty() && !fault.fix.is_empty(), "n{n}: {fault}"),
        }
    }
    ready
}

/// Logs in as the machine would and reads from its disk, which has its tgtd open it.
fn reads(node: &serde_json::Value) -> std::io::Result<Vec<u8>> {
    let text = |field: &str| node[field].as_str().unwrap();
    let portal = text("portal").parse().unwrap();
    Session::open(portal, text("iqn"), text("initiator"), Duration::from_secs(60))?.read(0, 8)
}

/// Rows and pool say the same, and so they do when all nodes are gone.
async fn judged(rig: &Rig, cluster: &Ceph, ready: &[serde_json::Value], what: &str) {
    eprintln!("{what}: {} of {NODES} nodes are provisioned", ready.len());
    let look = || Inside::of(cluster, "bmi");
    rig.until("status", |s| s["healthy"] == true).await;
    for node in ready {
        assert_eq!(node["state"], "ready", "{what}: {node}");
        assert_eq!(reads(node).unwrap().len(), 8 * BLOCK, "{what}: {node}");
    }
    rig.settle().await.unwrap_or_else(|open| panic!("{what}: {open}"));
    assert_eq!(rig.run("node ls").await.items.len(), ready.len(), "{what}: a node is there or is not");
    let of = |inside: &Inside, letter: &str| {
        inside.images.iter().filter(|(n, _)| n.contains(letter)).map(|(_, i)| i.clone()).collect::<Vec<_>>()
    };
    let inside = look();
    let (golden, disks) = (of(&inside, ".i."), of(&inside, ".v."));
    assert_eq!((golden.len(), disks.len()), (1, ready.len()), "{what}: rbd ls: {inside:#?}");
    assert_eq!(inside.images.len(), 1 + ready.len(), "{what}: and nothing else: {inside:#?}");
    assert_eq!(golden[0]["children"].as_array().map_or(0, Vec::len), ready.len(), "{what}: {golden:?}");
    assert_eq!(golden[0]["watchers"], 0, "{what}");
    for disk in &disks {
        let its = (&disk["watchers"], disk["mark"]["kind"].as_str(), &disk["parent"]);
        assert_eq!(its, (&serde_json::json!(1), Some("Volume"), &golden[0]["id"]), "{what}: its tgtd alone: {disk}");
    }
    assert!(rig.run("reconcile").await.items.is_empty(), "{what}: nothing differs");
    assert!(rig.run("state check").await.items.is_empty(), "{what}");
    for node in ready {
        rig.run(&format!("node deprovision {}", node["name"].as_str().unwrap())).await;
    }
    stopped::emptied(cluster, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceph_that_stops_leaves_each_operation_done_or_refused_and_nothing_else() {
    ceph::guard();
    let name = "a_ceph_that_stops_leaves_each_operation_done_or_refused_and_nothing_else";
    if !inside(&format!("silent::{name}")) {
        return;
    }
    let cluster = Ceph::here();
    let store = Store::pool(&cluster, "bmi");
    let rig = Arc::new(Rig::real().await);
    store.ground(&rig).await;

    let hangs = async || {
        let stopped = cluster.stopped("osd");
        // What was so a moment ago is not asked again.
        rig.until("datastore ls", |d| d["name"] == "ceph" && d["available"] == false && d["problem"].is_string()).await;
        let shown = rig.run("datastore ls").await;
        assert!(shown.items.iter().any(|d| d["name"] == "default" && d["available"] == true), "others are as ever");
        drop(stopped);
    };
    let ready = provision(&rig, &cluster, 1, hangs).await;
    judged(&rig, &cluster, &ready, "an OSD that hung").await;

    for (round, daemon) in [(2, "osd"), (3, "mon")] {
        let dies = async || {
            cluster.signal(daemon, "KILL");
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.restart(daemon);
        };
        let ready = provision(&rig, &cluster, round, dies).await;
        judged(&rig, &cluster, &ready, &format!("a {daemon} that died")).await;
    }
    stopped::the_four_wait_or_fail_clearly(&rig, &cluster).await;
}
