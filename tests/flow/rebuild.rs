//! The state is lost and the bytes are not: a new engine takes the datastore over, restores the records out of what is written
//! beside the bytes, and everything is again what it was. And what it must leave alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bmid::drivers::DriverSet;
use serde_json::Value;

use crate::rig::{Plain, Rig};

const LISTS: [&str; 5] = ["network ls", "image ls", "node ls", "tag ls", "volume ls"];

/// Fields that a restored record need not share with the lost one.
const OTHER: [&str; 5] = ["updated_at", "chap_shown_at", "chap_shown_to", "sessions", "workers"];

/// All records by id, as shown, without what may differ.
async fn records(rig: &Rig) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for list in LISTS {
        for mut item in rig.run(list).await.items {
            let fields = item.as_object_mut().unwrap();
            OTHER.iter().for_each(|f| drop(fields.remove(*f)));
            out.insert(format!("{list} {}", item["id"].as_str().unwrap()), item);
        }
    }
    out
}

fn sim(dir: &Path) -> DriverSet {
    DriverSet::sim(&dir.join("world"), Arc::new(Plain)).unwrap()
}

/// An engine with a bit of everything on datastore `fast`, whose records were changed since they were made.
async fn furnished() -> Rig {
    let rig = Rig::new().await;
    rig.run("datastore create fast --path /srv/rebuild/fast").await;
    rig.run("network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150").await;
    rig.run("network create net2 --interface eth2 --address 10.9.1.1/24 --dhcp proxy").await;
    for (name, byte) in [("golden", 0x5a), ("other", 0x33)] {
        let disk = rig.disk(name, &vec![byte; 1 << 20]);
        rig.run(&format!("image import {disk} --name {name} --format raw --datastore fast")).await;
    }
    rig.run("image rename other silver").await;
    let provision = |n: u8, more: &str| {
        format!("node provision web{n} --image golden --mac 52:54:00:00:00:0{n} --network net1 {more}")
    };
    rig.run(&provision(1, "--nic eno1 --set rack=7 --set row=b")).await;
    rig.run(&provision(2, "--chap")).await;
    rig.run(&provision(3, "--type virtual")).await;
    rig.run(&provision(4, "")).await;
    rig.run("tag create web1 fresh").await;
    rig.run("tag rename web1 fresh installed").await;
    rig.run("tag create web1 later").await;
    rig.run("tag rollback web1 installed").await;
    rig.run("node rebase web2 --image silver").await;
    rig.run("node migrate web3 --mac 52:54:00:00:00:33 --network net2 --nic eno3").await;
    rig.run("node deprovision web4 --keep-volume=spare").await;
    rig.run("image copy golden bronze").await;
    rig.run("network update net1 --router 10.9.0.254 --dns 10.9.0.253").await;
    rig.run("network update net2 --everyone").await;
    rig.run("network detach net2 web3").await;
    rig
}

/// Stops the engine and has another one over the same outside that knows nothing.
async fn lost(rig: Rig) -> (Rig, Option<tempfile::TempDir>) {
    let (dir, temp) = rig.stop().await;
    std::fs::remove_dir_all(dir.join("state")).unwrap();
    (Rig::another(&dir, "new", [9; 16], sim(&dir)).await, temp)
}

/// Takes `fast` over, having been told which one it is.
async fn adopt(rig: &Rig) {
    let fault = rig.refuse("datastore create fast --path /srv/rebuild/fast --adopt").await;
    let id = fault.fix.split("--adopt=").nth(1).unwrap_or_else(|| panic!("{fault}"));
    let id = &id[..36];
    assert!(fault.why.contains("(fast)") && fault.why.contains("(engine1)") && fault.why.contains(id), "{fault}");
    let line = format!("datastore create fast --path /srv/rebuild/fast --adopt={id}");
    assert_eq!(rig.run(&line).await.one()["state"], "adopted");
    assert!(!rig.run(&line).await.end.changed, "asked for again");
}

fn outcomes(items: &[Value], outcome: &str) -> Vec<String> {
    let text = |v: &Value, f: &str| v[f].as_str().unwrap().to_owned();
    items
        .iter()
        .filter(|i| i["outcome"] == outcome)
        .map(|i| format!("{} {}", text(i, "object"), text(i, "name")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_out_of_what_is_written_beside_the_bytes() {
    let rig = furnished().await;
    let before = records(&rig).await;
    let world = rig.world();
    let (rig, _temp) = lost(rig).await;
    adopt(&rig).await;
    let early = rig.refuse("image import /dev/null --name x --datastore fast").await;
    assert!(early.to_string().contains("state rebuild --datastore fast"), "{early}");

    let status = rig.run("status").await.one()["problems"].to_string();
    assert!(status.contains("state rebuild --datastore fast"), "{status}");

    let check = rig.check("state rebuild --datastore fast").await;
    assert!(check.end.changed);
    let wanted = [
        "network net1",
        "network net2",
        "image bronze",
        "image golden",
        "image silver",
        "node web1",
        "node web2",
        "node web3",
        "volume spare",
        "volume web2",
        "tag installed",
        "tag later",
    ];
    assert_eq!(outcomes(&check.items, "restored"), wanted);
    assert_eq!(records(&rig).await, BTreeMap::new(), "nothing was done");

    let done = rig.run("state rebuild --datastore fast").await;
    assert_eq!(outcomes(&done.items, "restored"), wanted);
    let web2 = done.items.iter().find(|i| i["name"] == "web2" && i["object"] == "node").unwrap();
    assert!(web2["message"].as_str().unwrap().contains("node chap-secret web2 --rotate"), "{web2}");
    assert_eq!(records(&rig).await, before);
    assert_eq!(rig.run("datastore show fast").await.one()["state"], "active");
    let again = rig.run("state rebuild --datastore fast").await;
    assert!(!again.end.changed && outcomes(&again.items, "there").len() == 10, "{:?}", again.items);

    rig.run("reconcile").await;
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs any more");
    assert!(rig.run("state check").await.items.is_empty());
    let had = |world: &[String]| -> Vec<String> {
        world.iter().filter(|o| ["disk/", "targets/", "entry/"].iter().any(|k| o.starts_with(k))).cloned().collect()
    };
    assert_eq!(had(&rig.world()), had(&world), "the same disks, targets under the same names, the same scripts");
    rig.run("tag rollback web1 later").await;
    rig.run("node provision web9 --image golden --mac 52:54:00:00:00:09 --network net1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_record_is_never_touched_and_a_clash_gets_a_name_of_its_own() {
    let rig = furnished().await;
    let web1 = rig.run("node show web1").await.one().clone();
    let (rig, _temp) = lost(rig).await;
    rig.run("network create rack --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150").await;
    let disk = rig.disk("third", &vec![1; 1 << 20]);
    rig.run(&format!("image import {disk} --name golden --format raw")).await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:77 --network rack").await;
    rig.run("node provision new --image golden --mac 52:54:00:00:00:02 --network rack").await;
    let live = records(&rig).await;
    adopt(&rig).await;
    let done = rig.run("state rebuild --datastore fast").await;
    let restored = outcomes(&done.items, "restored");
    for name in ["image golden-2", "node web1-2", "network net2", "tag installed"] {
        assert!(restored.contains(&name.to_owned()), "{name} in {restored:?}");
    }
    let told =
        |name: &str| done.items.iter().find(|i| i["name"] == name).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(told("golden-2").contains("its name golden is taken"));
    assert!(told("web1-2").contains("boots on network rack now"), "{}", told("web1-2"));
    let left: Vec<&Value> = done.items.iter().filter(|i| i["outcome"] == "left").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0]["message"].as_str().unwrap().contains("is that of node new"), "{left:?}");
    for (key, record) in &live {
        let mut now = records(&rig).await.remove(key).unwrap();
        // How many nodes a network has is counted.
        if record.get("nodes").is_some() {
            now["nodes"] = record["nodes"].clone();
        }
        assert_eq!(&now, record, "as it was");
    }
    let now = rig.run("node show web1-2").await.one().clone();
    for same in ["id", "iqn", "volume", "mac", "address", "settings", "tags"] {
        assert_eq!(now[same], web1[same], "{same}");
    }
    assert_eq!(rig.run("datastore show fast").await.one()["state"], "adopted", "one of its nodes waits");
    let disks = || rig.world().into_iter().filter(|o| o.starts_with("disk/")).collect::<Vec<_>>();
    let had = disks();
    rig.run("reconcile").await;
    assert_eq!(disks(), had, "until then nothing is removed there");
    rig.run("node deprovision new").await;
    let rest = rig.run("state rebuild --datastore fast").await;
    assert_eq!(outcomes(&rest.items, "restored"), ["node web2"]);
    assert_eq!(rig.run("datastore show fast").await.one()["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cannot_be_there_is_asked_for_with_its_command_or_its_disks_are_kept() {
    let rig = furnished().await;
    let (rig, _temp) = lost(rig).await;
    rig.run("network create else --interface eth1 --address 10.77.0.1/24").await;
    adopt(&rig).await;
    let done = rig.run("state rebuild --datastore fast").await;
    let left: Vec<&Value> = done.items.iter().filter(|i| i["outcome"] == "left").collect();
    assert_eq!(left.len(), 4, "two nodes and two tags: {left:?}");
    let command = "bmictl network create net1 --interface IF --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150";
    assert!(left.iter().any(|l| l["message"].as_str().unwrap().contains(command)), "{left:?}");
    assert_eq!(rig.run("datastore show fast").await.one()["state"], "adopted");
    let fault = rig.refuse("datastore scan fast --remove").await;
    assert!(fault.to_string().contains("nothing was removed"), "{fault}");
    let partly = rig.run("state rebuild --datastore fast --partial").await;
    assert_eq!(outcomes(&partly.items, "restored"), ["volume web1", "volume web2-2"]);
    assert_eq!(rig.run("datastore show fast").await.one()["state"], "active");
    rig.run("node provision web1 --volume web1 --mac 52:54:00:00:00:01 --network else").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_is_written_beside_comes_back_under_a_name_that_says_so() {
    let rig = furnished().await;
    let world = rig.dir.join("world/objects/disk");
    for disk in std::fs::read_dir(&world).unwrap().map(|d| d.unwrap().path()) {
        let mut text: Value = serde_json::from_slice(&std::fs::read(&disk).unwrap()).unwrap();
        text["note"] = Value::Null;
        std::fs::write(&disk, text.to_string()).unwrap();
    }
    let (rig, _temp) = lost(rig).await;
    adopt(&rig).await;
    let done = rig.run("state rebuild --datastore fast").await;
    let restored = outcomes(&done.items, "restored");
    let of = |noun: &str| restored.iter().filter(|r| r.starts_with(&format!("{noun} recovered-"))).count();
    assert_eq!((of("image"), of("volume"), restored.len()), (3, 5, 8), "{restored:?}");
    assert!(
        done.items
            .iter()
            .filter(|i| i["outcome"] == "restored")
            .all(|i| { i["message"].as_str().unwrap().contains("nothing is written beside it") })
    );
    assert_eq!(outcomes(&done.items, "left").len(), 2, "tags of which nobody knows the node");
    let image = rig.run("image ls").await.items.into_iter().find(|i| i["sha256"].is_string()).unwrap();
    assert_eq!(image["size_bytes"], 1 << 20, "what its import found out is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_tells_both_sides_and_removes_only_what_it_is_told_to() {
    let rig = furnished().await;
    assert!(rig.run("datastore scan").await.items.is_empty());
    let world = rig.dir.join("world/objects/disk");
    let disks = || -> Vec<_> {
        let mut all: Vec<_> = std::fs::read_dir(&world).unwrap().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let volume = rig.run("node show web2").await.one()["volume"].as_str().unwrap().to_owned();
    let its = disks().into_iter().find(|d| d.to_string_lossy().contains(&volume)).unwrap();
    let strange = its.to_string_lossy().replace(&volume, "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b");
    let text = std::fs::read_to_string(world.join(&its)).unwrap();
    std::fs::write(world.join(strange), text.replace(&volume, "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b")).unwrap();
    std::fs::remove_file(world.join(&its)).unwrap();
    let before = disks();
    let found = rig.run("datastore scan fast").await.items;
    let told: Vec<_> = found.iter().map(|f| (f["found"].as_str().unwrap(), f["name"].as_str().unwrap())).collect();
    assert_eq!(told, [("missing", "disk of node web2"), ("orphan", "disk of node web2")]);
    assert!(!rig.check("datastore scan fast").await.end.changed);
    assert!(rig.check("datastore scan fast --remove").await.end.changed);
    assert_eq!(disks(), before, "nothing was touched");
    let removed = rig.run("datastore scan fast --remove").await.items;
    assert!(removed.iter().any(|f| f["found"] == "gone"), "{removed:?}");
    assert_eq!(disks().len(), before.len() - 1);
    assert_eq!(rig.run("datastore scan fast").await.items.len(), 1, "what is missing stays missing");
}

/// Takes away what is written beside all simulated disks. What was there.
fn unnoted(rig: &Rig) -> BTreeMap<std::path::PathBuf, Value> {
    let mut had = BTreeMap::new();
    for disk in std::fs::read_dir(rig.dir.join("world/objects/disk")).unwrap() {
        let path = disk.unwrap().path();
        let mut object: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        had.insert(path.clone(), object.clone());
        object["note"] = Value::Null;
        std::fs::write(path, object.to_string()).unwrap();
    }
    had
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_written_beside_bytes_any_more_is_written_again_and_nothing_else_is_touched() {
    let rig = furnished().await;
    let (before, world) = (records(&rig).await, rig.world());
    let had = unnoted(&rig);
    let check = rig.check("reconcile").await.items;
    let mut objects: Vec<&str> = check.iter().map(|r| r["object"].as_str().unwrap()).collect();
    objects.sort_unstable();
    let wanted = [
        "image bronze",
        "image golden",
        "image silver",
        "node web1",
        "node web2",
        "node web3",
        "tag installed",
        "tag later",
        "volume spare",
        "volume web2",
    ];
    assert_eq!(objects, wanted);
    let done = rig.run("reconcile").await.items;
    assert!(done.iter().all(|r| r["outcome"] == "done") && done.len() == wanted.len(), "{done:?}");
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs any more");
    for (path, object) in had {
        let now: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(now, object);
    }
    assert_eq!((records(&rig).await, rig.world()), (before.clone(), world));
    let (rig, _temp) = lost(rig).await;
    adopt(&rig).await;
    rig.run("state rebuild --datastore fast").await;
    assert_eq!(records(&rig).await, before, "and its records come back out of that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_on_a_vlan_comes_back_with_its_interface_and_its_node() {
    let rig = Rig::new().await;
    rig.run("datastore create fast --path /srv/rebuild/fast").await;
    let disk = rig.disk("golden", &vec![0x5a; 1 << 20]);
    rig.run(&format!("image import {disk} --name golden --format raw --datastore fast")).await;
    let line = "network create t7 --interface eth1 --vlan 107 --address 10.7.0.1/24 --range 10.7.0.100-10.7.0.150";
    rig.run(line).await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network t7").await;
    let (before, world) = (records(&rig).await, rig.world());
    let (rig, _temp) = lost(rig).await;
    adopt(&rig).await;
    let done = rig.run("state rebuild --datastore fast").await;
    assert_eq!(outcomes(&done.items, "restored"), ["network t7", "image golden", "node web1"]);
    assert_eq!(records(&rig).await, before, "the same VLAN, interface and node");
    rig.run("reconcile").await;
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs any more");
    assert!(rig.run("state check").await.items.is_empty());
    let of_default = |o: &String| o.starts_with("store/");
    let had = |world: Vec<String>| world.into_iter().filter(|o| !of_default(o)).collect::<Vec<_>>();
    assert_eq!(had(rig.world()), had(world), "the same interface, address, target and boot files");
}
