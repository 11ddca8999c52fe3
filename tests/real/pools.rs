//! The whole way with a pool of a real Ceph: a datastore, an image, a node that boots from a clone, dies with its tgtd and comes
//! back, is tagged, written to and rolled back; and nothing is left in the pool.

use crate::ceph;
use crate::house::{inside, pid_of, sh, tries};
use crate::rig::Rig;
use crate::whole::{ground, login};

/// Writes to the node's disk as its machine would.
pub fn write(node: &serde_json::Value) {
    let text = |field: &str| node[field].as_str().unwrap().to_owned();
    let url = format!("iscsi://{}/{}/1", text("portal"), text("iqn"));
    let test = format!("iscsi-test-cu -i {} --dataloss --test=SCSI.Write16.Simple {url}", text("initiator"));
    let (_, said) = tries(&test);
    assert!(said.contains("...passed"), "{said}");
}

/// The pool's trash becomes empty. The watch of a tgtd that was killed holds its disk for up to half a minute.
async fn emptied(cluster: &ceph::Ceph) {
    let trash = || cluster.tool(&["rbd", "trash", "ls", "--all", "bmi"]);
    for _ in 0..600 {
        if trash().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{}", trash());
}

/// A cluster in this namespace, with a pool and a user for it, and the line that makes it a datastore.
pub fn cluster() -> (ceph::Ceph, String) {
    let cluster = ceph::Ceph::here();
    cluster.tool(&["ceph", "osd", "pool", "create", "bmi", "8", "8", "--size", "1"]);
    cluster.tool(&["rbd", "pool", "init", "bmi"]);
    let key = cluster.user("bmi", "profile rbd", "profile rbd pool=bmi");
    let conf = cluster.conf().display().to_string();
    let line = format!(
        "datastore create ceph --kind rbd --pool bmi --conf {conf} --id bmi --keyring {} --export librbd",
        key.display()
    );
    (cluster, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_in_a_pool_lives_and_leaves_nothing() {
    // Outside of the namespace, where cargo has what it needs.
    ceph::guard();
    if !inside("pools::a_node_whose_disk_is_in_a_pool_lives_and_leaves_nothing") {
        return;
    }
    let (cluster, line) = cluster();
    let conf = cluster.conf().display().to_string();
    let rig = Rig::real().await;
    ground(&rig).await;
    let made = rig.run(&line).await;
    let shown = ["driver", "state", "export"].map(|f| made.one()[f].as_str().unwrap().to_owned());
    assert_eq!(shown, ["rbd", "active", "librbd"]);
    assert!(!rig.run(&line).await.end.changed, "asked for again");
    let fault = rig.refuse(&line.replace("create ceph", "create other")).await;
    assert!(fault.to_string().contains("pool bmi is datastore ceph"), "{fault}");
    let golden = rig.dir.join("golden.raw").display().to_string();
    rig.run(&format!("image import {golden} --name pooled --format raw --datastore ceph")).await;
    let node = rig.run("node provision web1 --image pooled --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    assert!(login(&node).0, "{}", login(&node).1);
    rig.run("tag create web1 clean").await;
    let bytes = || {
        let disk = cluster.tool(&["rbd", "ls", "bmi"]).lines().find(|l| l.contains(".v.")).unwrap().to_owned();
        sh(&format!("rbd --conf {conf} export --no-progress bmi/{disk} - | sha256sum"))
    };
    let clean = bytes();
    write(&node);
    assert_ne!(bytes(), clean, "the machine's bytes are in the pool");

    let tgtd = pid_of("tgtd").expect("tgtd runs");
    sh(&format!("kill -9 {tgtd}"));
    for _ in 0..400 {
        if login(&node).0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(login(&node).0, "the target is back after tgtd died: {}", login(&node).1);
    write(&node);
    rig.run("tag rollback web1 clean").await;
    assert_eq!(bytes(), clean, "what was written since the tag is gone");
    assert!(login(&node).0, "under the same name: {}", login(&node).1);
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");

    rig.run("tag rm web1 clean").await;
    rig.run("node deprovision web1").await;
    rig.run("image rm pooled").await;
    rig.run("datastore rm ceph").await;
    assert_eq!(cluster.tool(&["rbd", "ls", "bmi"]), "");
    emptied(&cluster).await;
    rig.run("network rm net1").await;
    assert_eq!(pid_of("tgtd"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceph_that_stops_in_the_middle_of_twenty_nodes_leaves_each_provisioned_or_refused_and_nothing_else() {
    ceph::guard();
    let name = "a_ceph_that_stops_in_the_middle_of_twenty_nodes_leaves_each_provisioned_or_refused_and_nothing_else";
    if !inside(&format!("pools::{name}")) {
        return;
    }
    let (cluster, line) = cluster();
    let rig = std::sync::Arc::new(Rig::real().await);
    ground(&rig).await;
    rig.run(&line).await;
    let golden = rig.dir.join("golden.raw").display().to_string();
    rig.run(&format!("image import {golden} --name pooled --format raw --datastore ceph")).await;
    let nodes: Vec<_> = (0..20)
        .map(|n| {
            let rig = std::sync::Arc::clone(&rig);
            let line = format!("node provision n{n} --image pooled --mac 52:54:00:00:00:{n:02x} --network net1");
            tokio::spawn(async move { rig.try_run(&line).await })
        })
        .collect();
    let begun = (0..600).any(|_| cluster.tool(&["rbd", "ls", "bmi"]).contains(".v."));
    assert!(begun, "no disk is made");
    cluster.signal("osd", "STOP");
    let shown = rig.run("datastore ls").await;
    let pooled = shown.items.iter().find(|d| d["name"] == "ceph").unwrap();
    assert!(pooled["available"] == false && pooled["problem"].is_string(), "{pooled}");
    assert!(shown.items.iter().any(|d| d["name"] == "default" && d["available"] == true), "others are as ever");
    cluster.signal("osd", "CONT");
    let mut ready = 0;
    for (n, node) in nodes.into_iter().enumerate() {
        match node.await.unwrap() {
            Ok(answer) => {
                assert_eq!(answer.one()["state"], "ready");
                assert!(login(answer.one()).0, "{}", login(answer.one()).1);
                ready += 1;
            }
            Err(fault) => assert!(!fault.why.is_empty() && !fault.fix.is_empty(), "n{n}: {fault}"),
        }
    }
    assert_eq!(rig.run("node ls").await.items.len(), ready, "a node is there or is not");
    let disks = cluster.tool(&["rbd", "ls", "bmi"]);
    assert_eq!(disks.lines().filter(|l| l.contains(".v.")).count(), ready, "{disks}");
    assert_eq!(disks.lines().count(), ready + 1, "the disks and their image, and nothing else: {disks}");
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");
}
