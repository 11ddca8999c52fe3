//! The whole way with a pool of a real Ceph: a datastore, an image, a node that boots from a clone, dies with its tgtd and comes
//! back, is tagged, written to and rolled back; and nothing is left in the pool.

use crate::ceph;
use crate::house::{inside, pid_of, sh};
use crate::loaded;
use crate::pressed;
use crate::rig::Rig;
use crate::store::Store;
use crate::whole::{self, ground, login};

pub use crate::store::write;

/// A cluster in this namespace with a pool, and the line that makes it a datastore.
pub fn cluster() -> (ceph::Ceph, String) {
    let cluster = ceph::Ceph::here();
    let Store::Pool { line, .. } = Store::pool(&cluster, "bmi") else { unreachable!("a pool was asked for") };
    (cluster, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_in_a_pool_lives_and_leaves_nothing() {
    // Outside of the namespace, where cargo has what it needs.
    ceph::guard();
    if !inside("pools::a_node_whose_disk_is_in_a_pool_lives_and_leaves_nothing") {
        return;
    }
    let cluster = ceph::Ceph::here();
    let store = Store::pool(&cluster, "bmi");
    let Store::Pool { line, .. } = &store else { unreachable!() };
    let conf = cluster.conf().display().to_string();
    let rig = Rig::real().await;
    ground(&rig).await;
    let made = rig.run(line).await;
    let shown = ["driver", "state", "export"].map(|f| made.one()[f].as_str().unwrap().to_owned());
    assert_eq!(shown, ["rbd", "active", "librbd"]);
    assert!(!rig.run(line).await.end.changed, "asked for again");
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
    store.emptied(&rig).await;
    rig.run("network rm net1").await;
    assert_eq!(pid_of("tgtd"), None);
}

/// One after another: they share this namespace's address and port, and the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_proved_of_nodes_on_folders_is_so_on_pools() {
    ceph::guard();
    if !inside("pools::what_is_proved_of_nodes_on_folders_is_so_on_pools") {
        return;
    }
    let cluster = ceph::Ceph::here_in_memory();
    loaded::outlive_their_tgtd(&Store::pool(&cluster, "loaded")).await;
    whole::survives_its_tgtd(&Store::pool(&cluster, "survives")).await;
    whole::outlives_the_engine(&Store::pool(&cluster, "outlives")).await;
    whole::asks_for_a_secret(&Store::pool(&cluster, "secret")).await;
    whole::is_rolled_back(&Store::pool(&cluster, "rolled")).await;
    pressed::is_only_taken_by_force(&Store::pool(&cluster, "pressed")).await;
}
