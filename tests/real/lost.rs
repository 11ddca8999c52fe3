//! Two engines with datastores in one pool of a real Ceph. One of them loses its state: a new one in its place takes its
//! datastore over and restores its records, its node's disk is there under the name it had, and was all the while; and
//! nothing that either does touches the other's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bmid::drivers::worker::Manager;
use bmid::drivers::{DriverSet, Paths};
use serde_json::Value;

use crate::ceph;
use crate::house::{inside, pid_of, sh};
use crate::pools::{cluster, write};
use crate::rig::{Plain, Rig};
use crate::whole::{ground, login};

/// A new engine with the real drivers, whose workers are those of the run folder.
async fn engine(dir: &Path, state: &str, run: &str, random: u8) -> Rig {
    let paths = Paths { state: dir.join(state).join("state"), run: dir.join(run) };
    Rig::another(dir, state, [random; 16], DriverSet::real(&paths, Arc::new(Plain), Manager::Detached)).await
}

/// All records of a datastore, as shown, without what is of the moment.
async fn records(rig: &Rig) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for list in ["image ls", "node ls", "tag ls", "volume ls"] {
        for mut item in rig.run(list).await.items {
            let of_another = item.get("datastore").is_some_and(|d| d == "default");
            ["updated_at", "sessions"].iter().for_each(|f| drop(item.as_object_mut().unwrap().remove(*f)));
            if !of_another {
                out.insert(format!("{list} {}", item["id"].as_str().unwrap()), item);
            }
        }
    }
    out
}

fn found(scan: &[Value], what: &str) -> Vec<Value> {
    scan.iter().filter(|f| f["found"] == what).cloned().collect()
}

/// Images, a node and its tag, whose names were changed since; the node.
async fn furnish(one: &Rig, golden: &str) -> Value {
    one.run(&format!("image import {golden} --name pooled --format raw --datastore ceph")).await;
    let node = one.run("node provision web1 --image pooled --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    one.run("tag create web1 clean").await;
    one.run("tag rename web1 clean installed").await;
    one.run("image copy pooled spare").await;
    one.run("image rename spare silver").await;
    write(&node);
    node
}

/// Takes the datastore over, having been told which there are, and restores its records.
async fn rebuild(new: &Rig, line: &str, ours: &str, theirs: &str) {
    let fault = new.refuse(&format!("{line} --adopt")).await;
    assert!(fault.why.contains(ours) && fault.why.contains(theirs), "{fault}");
    new.run(&format!("{line} --adopt={ours}")).await;
    let check = new.check("state rebuild --datastore ceph").await;
    assert!(check.end.changed && records(new).await.is_empty());
    let done = new.run("state rebuild --datastore ceph").await;
    let restored = done.items.iter().filter(|i| i["outcome"] == "restored").count();
    assert_eq!((restored, check.items.len()), (5, 5), "a network, two images, a node and its tag: {:?}", done.items);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_comes_back_out_of_the_pool_and_another_engine_there_notices_nothing() {
    // Outside of the namespace, where cargo has what it needs.
    ceph::guard();
    let name = "a_lost_state_comes_back_out_of_the_pool_and_another_engine_there_notices_nothing";
    if !inside(&format!("lost::{name}")) {
        return;
    }
    let (cluster, line) = cluster();
    let conf = cluster.conf().display().to_string();
    let temp = tempfile::tempdir().unwrap();
    let one = engine(temp.path(), "one", "run", 1).await;
    ground(&one).await;
    let ours = one.run(&line).await.one()["id"].as_str().unwrap().to_owned();
    let golden = one.dir.join("golden.raw").display().to_string();
    let node = furnish(&one, &golden).await;
    let before = records(&one).await;

    let other = engine(temp.path(), "two", "run2", 2).await;
    let theirs = other.run(&line).await.one()["id"].as_str().unwrap().to_owned();
    other.run(&format!("image import {golden} --name theirs --format raw --datastore ceph")).await;
    let prefix = |id: &str| format!("bmi.{}", id.replace('-', ""));
    let disks = |id: &str| -> Vec<String> {
        let all = cluster.tool(&["rbd", "ls", "bmi"]);
        all.lines().filter(|l| l.starts_with(&prefix(id))).map(str::to_owned).collect()
    };
    let (had, had_other) = (disks(&ours), disks(&theirs));
    assert_eq!((had.len(), had_other.len()), (3, 1));
    for line in ["reconcile", "datastore scan ceph --remove", "state rebuild --datastore ceph", "reconcile"] {
        other.run(line).await;
    }
    let scan = other.run("datastore scan ceph").await.items;
    assert!(found(&scan, "orphan").is_empty() && found(&scan, "other")[0]["count"] == 3, "{scan:?}");
    assert_eq!((disks(&ours), disks(&theirs)), (had.clone(), had_other.clone()), "each has what it had");

    let tgtd = pid_of("tgtd").expect("tgtd runs");
    one.stop().await;
    std::fs::remove_dir_all(temp.path().join("one")).unwrap();
    let new = engine(temp.path(), "three", "run", 3).await;
    rebuild(&new, &line, &ours, &theirs).await;
    assert_eq!(records(&new).await, before);
    new.run("reconcile").await;
    assert!(new.run("reconcile").await.items.is_empty(), "nothing differs any more");
    assert!(login(&node).0, "the node's disk is there under its name: {}", login(&node).1);
    assert_eq!(pid_of("tgtd"), Some(tgtd), "and was all the while");
    write(&node);
    new.run("tag rollback web1 installed").await;
    assert!(login(&node).0, "{}", login(&node).1);
    let disk = disks(&ours).into_iter().find(|d| d.contains(".v.")).unwrap();
    let bytes = |name: &str| sh(&format!("rbd --conf {conf} export --no-progress bmi/{name} - | sha256sum"));
    assert_eq!(bytes(&disk), sh(&format!("sha256sum < {golden}")), "the tag is what the disk was");

    let scan = new.run("datastore scan ceph").await.items;
    assert!(found(&scan, "orphan").is_empty() && found(&scan, "missing").is_empty(), "{scan:?}");
    assert_eq!(found(&scan, "other")[0]["id"], *theirs);
    assert_eq!(disks(&theirs), had_other);
    assert!(other.run("reconcile").await.items.is_empty());
    other.run("image copy theirs more").await;
    other.stop().await;
}
