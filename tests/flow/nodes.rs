//! Nodes: provisioned, shown, migrated, rebased, rolled back, deprovisioned; alone and many at once.

use bmi::model::Kind;
use bmi::protocol::Envelope;

use crate::disks::Disks;
use crate::rig::Rig;

const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1";

on_both!(a_node_is_provisioned_shown_and_taken_away_without_a_trace);
async fn a_node_is_provisioned_shown_and_taken_away_without_a_trace(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let before = rig.world();
    let made = rig.run(WEB1).await;
    assert!(made.end.changed);
    let node = made.one();
    assert_eq!(
        (node["state"].as_str(), node["image"].as_str(), node["network"].as_str()),
        (Some("ready"), Some("golden"), Some("net1"))
    );
    for field in [
        "state",
        "iqn",
        "portal",
        "address",
        "mac",
        "nic",
        "type",
        "image",
        "volume",
        "network",
        "vlan",
        "engine",
        "owner",
        "sessions",
        "created_at",
    ] {
        assert!(node.get(field).is_some(), "node show lacks {field}");
    }
    let again = rig.run(WEB1).await;
    assert!(!again.end.changed, "the same command again changes nothing");
    assert_eq!(again.one()["id"], node["id"]);
    rig.until("node show web1", |n| n["sessions"] == serde_json::json!([])).await;
    let gone = rig.run("node deprovision web1").await;
    assert_eq!(gone.one()["name"], "web1");
    assert_eq!(rig.world(), before, "nothing is left outside");
    assert_eq!(rig.refuse("node show web1").await.kind, Kind::NotFound);
    assert_eq!(rig.run("state check").await.items, Vec::<serde_json::Value>::new());
}

on_both!(a_kept_volume_is_another_nodes_disk);
async fn a_kept_volume_is_another_nodes_disk(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let node = rig.run(WEB1).await;
    let volume = node.one()["volume"].as_str().unwrap().to_owned();
    let gone = rig.run("node deprovision web1 --keep-volume").await;
    assert_eq!(gone.one()["name"], "web1");
    assert_eq!(
        (gone.one()["kept_volume"].as_str(), gone.one()["kept_volume_id"].as_str()),
        (Some("web1"), Some(&*volume))
    );
    assert_eq!(rig.run("volume ls").await.one()["name"], "web1");
    assert_eq!(rig.run(&format!("volume show {volume}")).await.one()["status"], "available");
    let other = rig.run(&format!("node provision web2 --volume {volume} --mac 52:54:00:00:00:02 --network net1")).await;
    assert_eq!(other.one()["volume"].as_str(), Some(volume.as_str()));
    assert_eq!(rig.refuse(&format!("volume rm {volume}")).await.kind, Kind::Conflict);
    rig.run("node deprovision web2 --keep-volume").await;
    rig.run(&format!("volume rm {volume}")).await;
    assert!(rig.run("volume ls").await.items.is_empty());
}

on_both!(tags_hold_a_node_and_roll_it_back);
async fn tags_hold_a_node_and_roll_it_back(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let node = rig.run(WEB1).await;
    rig.run("tag create web1 installed").await;
    assert_eq!(rig.refuse("tag create web1 installed").await.kind, Kind::Duplicate);
    for blocked in ["node deprovision web1", "node reprovision web1"] {
        let fault = rig.refuse(blocked).await;
        assert_eq!(fault.kind, Kind::Conflict);
        assert!(fault.why.contains("installed"), "names the tags: {fault}");
    }
    let back = rig.run("tag rollback web1 installed").await;
    assert_eq!(
        (&back.one()["iqn"], &back.one()["volume"]),
        (&node.one()["iqn"], &node.one()["volume"]),
        "IQN and volume stay"
    );
    rig.run("tag rename web1 installed base").await;
    assert_eq!(rig.run("tag ls web1").await.one()["name"], "base");
    rig.run("tag rm web1 base").await;
    rig.run("node deprovision web1").await;
}

on_both!(a_running_node_is_left_alone_unless_forced);
async fn a_running_node_is_left_alone_unless_forced(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let node = rig.run(WEB1).await;
    rig.run("tag create web1 t").await;
    let iqn = node.one()["iqn"].as_str().unwrap().to_owned();
    let sessions = rig.dir.join("world/objects/sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    std::fs::write(sessions.join(&iqn), r#"["iqn.2026-11.internal.bmi:x"]"#).unwrap();
    for refused in [
        "tag rollback web1 t",
        "node rebase web1 --image golden",
        "node snapshot web1 snap",
        "node migrate web1 --mac 52:54:00:00:00:09",
    ] {
        assert_eq!(rig.refuse(refused).await.kind, Kind::Conflict, "{refused}");
    }
    rig.run("node snapshot web1 snap --force").await;
    rig.run("tag rollback web1 t --force").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_moves_to_other_hardware_and_another_network() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("network create net2 --interface eth2 --address 10.9.1.1/24").await;
    let node = rig.run(WEB1).await;
    let moved = rig.run("node migrate web1 --mac 52:54:00:00:00:09 --nic eno2").await;
    assert_eq!((moved.one()["mac"].as_str(), moved.one()["nic"].as_str()), (Some("52:54:00:00:00:09"), Some("eno2")));
    assert_eq!(moved.one()["iqn"], node.one()["iqn"]);
    let far = rig.run("node migrate web1 --mac 52:54:00:00:00:09 --network net2").await;
    assert_eq!(far.one()["network"], "net2");
    assert!(far.one()["address"].as_str().unwrap().starts_with("10.9.1."));
    assert!(!rig.run("node migrate web1 --mac 52:54:00:00:00:09 --network net2").await.end.changed);
    rig.run("network rm net1").await;
    assert_eq!(rig.refuse("network rm net2").await.kind, Kind::Conflict);
}

on_both!(a_rebase_keeps_the_old_disk_as_a_volume);
async fn a_rebase_keeps_the_old_disk_as_a_volume(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let disk = rig.disk("other.raw", &vec![1; 2 << 20]);
    rig.run(&format!("image import {disk} --name other --format raw")).await;
    let node = rig.run(WEB1).await;
    let new = rig.run("node rebase web1 --image other").await;
    assert_eq!((&new.one()["image"], &new.one()["iqn"]), (&serde_json::json!("other"), &node.one()["iqn"]));
    let kept: Vec<_> = rig.run("volume ls").await.items.into_iter().filter(|v| v["role"] == "previous").collect();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0]["image"].as_str(), kept[0]["status"].as_str()), (Some("golden"), Some("available")));
    rig.run("node rebase web1 --image golden --discard").await;
    rig.run("node reprovision web1").await;
    assert_eq!(rig.run("volume ls").await.items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_a_mac_and_an_address_belong_to_one_node() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run(WEB1).await;
    let same_mac = rig.refuse("node provision web2 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    assert_eq!(same_mac.kind, Kind::Duplicate);
    assert!(same_mac.why.contains("web1"), "names the holder: {same_mac}");
    assert_eq!(
        rig.refuse("node provision web1 --image golden --mac 52:54:00:00:00:02 --network net1").await.kind,
        Kind::Duplicate
    );
    assert_eq!(
        rig.refuse("node provision x --image none --mac 52:54:00:00:00:03 --network net1").await.kind,
        Kind::NotFound
    );
    assert_eq!(
        rig.refuse("node provision x --image golden --mac 52:54:00:00:00:03 --network none").await.kind,
        Kind::NotFound
    );
    for n in 2..=51 {
        rig.run(&format!("node provision n{n} --image golden --mac 52:54:00:00:01:{n:02x} --network net1")).await;
    }
    let full = rig.refuse("node provision late --image golden --mac 52:54:00:00:02:01 --network net1").await;
    assert_eq!(full.kind, Kind::Limit, "the range holds 51 addresses: {full}");
    let mut addresses: Vec<String> =
        rig.run("node ls").await.items.iter().map(|n| n["address"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 51);
}

on_both!(many_nodes_come_in_one_call_all_or_some);
async fn many_nodes_come_in_one_call_all_or_some(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let list = rig.dir.join("list");
    std::fs::write(&list, "# rack\nn1,52:54:00:00:00:01\nn2 52:54:00:00:00:02 eno1\nn3,52:54:00:00:00:03\n").unwrap();
    let list = list.to_str().unwrap().to_owned();
    rig.faults("fail target.make.before 2\n");
    let some = rig.refuse(&format!("node provision --image golden --network net1 --file {list}")).await;
    assert!(some.why.contains("1 of 3"), "{some}");
    assert_eq!(rig.run("node ls").await.items.len(), 2);
    rig.faults("");
    rig.run(&format!("node provision --image golden --network net1 --file {list}")).await;
    assert_eq!(rig.run("node ls").await.items.len(), 3, "what was done stays, the rest is made");
    rig.run("node deprovision n1").await;
    rig.run("node deprovision n2").await;
    let before = rig.world();
    rig.faults("fail boot.entry.after *\n");
    rig.refuse(&format!("node provision --image golden --network net1 --file {list} --all-or-nothing")).await;
    assert_eq!(rig.run("node ls").await.items.len(), 1);
    assert_eq!(rig.world(), before, "what was done is undone");
}

on_both!(the_same_operation_id_gives_the_same_answer_and_no_other);
async fn the_same_operation_id_gives_the_same_answer_and_no_other(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let op_id = Some("0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".parse().unwrap());
    let ask = |line: &'static str| rig.ask(Rig::root(), Envelope { op_id, ..Envelope::default() }, line);
    let first = ask(WEB1).await.unwrap();
    rig.run("node deprovision web1").await;
    let again = ask(WEB1).await.unwrap();
    assert_eq!(first.items, again.items, "the same answer, though the node has gone meanwhile");
    let other = ask("node provision web2 --image golden --mac 52:54:00:00:00:01 --network net1").await.unwrap_err();
    assert_eq!(other.kind, Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_would_change_and_changes_nothing() {
    let rig = Rig::new().await;
    rig.ground().await;
    let before = rig.world();
    let check = |line| rig.ask(Rig::root(), Envelope { check: true, ..Envelope::default() }, line);
    assert!(check(WEB1).await.unwrap().end.changed);
    assert_eq!(rig.world(), before);
    assert!(rig.run("node ls").await.items.is_empty());
    rig.run(WEB1).await;
    assert!(!check(WEB1).await.unwrap().end.changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_unchanged_and_one_that_asks_for_something_else_is_not() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run(&format!("{WEB1} --nic eno1 --set rack=7")).await;
    for same in ["", " --nic eno1", " --set rack=7"] {
        assert!(!rig.run(&format!("{WEB1}{same}")).await.end.changed, "{same}");
    }
    for (other, what) in [
        (" --chap", "CHAP"),
        (" --chap=out-of-band", "CHAP"),
        (" --type virtual", "its type"),
        (" --nic eno2", "its NIC"),
        (" --set rack=8", "its settings"),
    ] {
        let fault = rig.refuse(&format!("{WEB1}{other}")).await;
        assert_eq!(fault.kind, Kind::Duplicate, "{other}: {fault}");
        assert!(fault.why.ends_with(&format!("{what} differs")), "{other}: {fault}");
    }
    rig.run("node deprovision web1 --keep-volume").await;
    let kept = "node provision web1 --volume web1 --mac 52:54:00:00:00:01 --network net1 --chap";
    rig.run(kept).await;
    assert!(!rig.run(kept).await.end.changed, "a repeat finds its own disk");
    assert_eq!(rig.refuse(WEB1).await.kind, Kind::Duplicate, "a node that has CHAP is not taken for one without");
    let other = "node provision web2 --volume web1 --mac 52:54:00:00:00:02 --network net1";
    assert_eq!(rig.refuse(other).await.kind, Kind::Conflict);
}

on_both!(kept_disks_have_names_that_no_other_volume_of_the_project_has);
async fn kept_disks_have_names_that_no_other_volume_of_the_project_has(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run(WEB1).await;
    rig.run("node rebase web1 --image golden").await;
    rig.run("node rebase web1 --image golden").await;
    let names: Vec<_> = rig.run("volume ls").await.items.iter().map(|v| v["name"].clone()).collect();
    assert_eq!(
        serde_json::json!(names),
        serde_json::json!([null, "web1", "web1-2"]),
        "what a rebase keeps is told apart too"
    );
    let fault = rig.refuse("node deprovision web1 --keep-volume").await;
    assert_eq!(fault.kind, Kind::Duplicate);
    assert!(fault.to_string().contains("volume web1") && fault.fix.contains("--keep-volume=web1-3"), "{fault}");
    let gone = rig.run("node deprovision web1 --keep-volume=before-move").await;
    assert_eq!(gone.one()["kept_volume"], "before-move");
    let other = "node provision web2 --volume before-move --mac 52:54:00:00:00:02 --network net1";
    rig.run(other).await;
    assert!(rig.refuse("volume rm before-move").await.why.contains("volume before-move is the disk of node web2"));
    let gone = rig.run("node deprovision web2 --keep-volume").await;
    assert_eq!(gone.one()["kept_volume"], "before-move", "a disk that has a name keeps it");
    rig.run(other).await;
    assert_eq!(rig.run("node deprovision web2").await.one()["kept_volume"], serde_json::Value::Null);
}

/// What a tgtd says it uses: of one limit so much, so much at most, and so much for each disk.
fn room(used: u64, most: u64, each: u64) -> String {
    format!(
        r#"{{"used":{{"threads":1,"files":20,"memory":0}},
             "limits":[{{"of":"threads","name":"pids.max of cgroup /x","used":{used},"most":{most},"raise":"raise it"}}],
             "file":{{"threads":{each},"files":2,"memory":0}},"pool":{{"threads":{each},"files":1,"memory":0}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_a_limit_of_their_tgtd_has_no_room_for_are_refused_before_anything_is_done() {
    let rig = Rig::new().await;
    rig.ground().await;
    let network = rig.run("network show net1").await.one()["id"].as_str().unwrap().to_owned();
    let say = |text: String| {
        let folder = rig.dir.join("world/objects/room");
        std::fs::create_dir_all(&folder).unwrap();
        // Whole or not at all: the engine may look at any moment.
        std::fs::write(rig.dir.join("room.new"), text).unwrap();
        std::fs::rename(rig.dir.join("room.new"), folder.join(&network)).unwrap();
    };
    say(room(100, 140, 2));
    let nodes = |from: u32, to: u32| {
        let one = |n| format!(" --node n{n},52:54:00:00:00:{n:02x}");
        format!("node provision --image golden --network net1{}", (from..to).map(one).collect::<String>())
    };
    // Forty are left: twenty nodes, and not one more.
    let before = rig.world();
    let fault = rig.refuse(&nodes(0, 21)).await;
    assert_eq!(fault.kind, Kind::Limit);
    for part in ["21 disks", "net1", "pids.max of cgroup /x ends at 140 threads", "100 are used", "42 more"] {
        assert!(fault.why.contains(part), "{part}: {fault}");
    }
    assert!(fault.fix.contains("raise it"), "{fault}");
    assert_eq!(rig.world(), before, "nothing was begun");
    rig.run(&nodes(0, 19)).await;
    // The simulated tgtd uses no more than before: what it has yet to open is counted all the same.
    let fault = rig.refuse(&nodes(19, 21)).await;
    assert!(fault.kind == Kind::Limit && fault.why.contains("41 more"), "{fault}");
    say(room(100, 150, 2));
    rig.run(&nodes(19, 21)).await;
    say(room(100, 140, 2));
    assert!(!rig.run(&nodes(0, 19)).await.end.changed, "who asks again asks for nothing");
    let shown = rig.run("status").await.one().clone();
    assert!(!shown["problems"].to_string().contains("pids.max"), "71 % are no reason to worry: {shown}");
    // A look that began before this is shared by who asks now.
    say(room(112, 140, 2));
    let told = "network net1: 80 % of pids.max of cgroup /x is used: 112 of 140 threads; raise it";
    rig.until("status", |shown| shown["problems"].to_string().contains(told)).await;
    rig.until("network show net1", |shown| shown["workers"][0]["room"]["limits"][0]["used"] == 112).await;
    assert_eq!(rig.run("node show n1").await.one()["disk_by"], "file");
}
