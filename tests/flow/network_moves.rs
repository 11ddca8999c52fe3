//! Networks that change and nodes that change their network: what moves along, what stays, what is refused.

use bmi::model::{Fault, Kind};
use bmi::protocol::Envelope;
use bmid::drivers::sim::World;
use serde_json::Value;

use crate::rig::{Answer, Rig};

async fn acting(rig: &Rig, project: &str, line: &str) -> Result<Answer, Fault> {
    let envelope = Envelope { project: Some(project.parse().unwrap()), ..Envelope::default() };
    rig.ask(Rig::root(), envelope, line).await
}

async fn refused(rig: &Rig, line: &str, kind: Kind, told: &str) {
    let fault = rig.refuse(line).await;
    assert!(fault.kind == kind && format!("{fault:?}").contains(told), "{line}: {fault:?}");
}

/// What the world has of a kind in a network.
fn of(rig: &Rig, kind: &str, network: &Value) -> Vec<String> {
    let network = network.as_str().unwrap();
    rig.world().into_iter().filter(|o| o.starts_with(&format!("{kind}/")) && o.contains(network)).collect()
}

/// Reconcile finds nothing to do.
async fn whole(rig: &Rig) {
    assert_eq!(rig.to_be_repaired().await.unwrap().0, Vec::<Value>::new());
    assert_eq!(rig.run("state check").await.items, Vec::<Value>::new());
}

/// `net1`, `net2`, and node `web1` on the first.
async fn ground() -> (Rig, Value, Value) {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("network create net2 --interface eth2 --vlan 102 --subnet 10.9.1.0/24").await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap").await;
    let id = |answer: &Answer| answer.one()["id"].clone();
    let (one, two) = (id(&rig.run("network show net1").await), id(&rig.run("network show net2").await));
    (rig, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_attached_to_another_network_takes_everything_along() {
    let (rig, one, two) = ground().await;
    let before = rig.run("node show web1").await.one().clone();
    let moved = rig.run("network attach net2 web1").await.one().clone();
    assert!(!rig.run("network attach net2 web1").await.end.changed);
    for kept in ["id", "iqn", "initiator", "mac", "volume", "chap", "chap_user", "lun", "state"] {
        assert_eq!(moved[kept], before[kept], "{kept}");
    }
    assert_eq!(
        (&moved["network"], &moved["vlan"], &moved["portal"]),
        (&"net2".into(), &102.into(), &"10.9.1.1:3260".into())
    );
    assert!(moved["address"].as_str().unwrap().starts_with("10.9.1."), "{moved}");
    for kind in ["targets", "boot.entry", "accounts"] {
        assert_eq!((of(&rig, kind, &one).len(), of(&rig, kind, &two).len()), (0, 1), "{kind}: {:?}", rig.world());
    }
    whole(&rig).await;
    rig.run("network rm net1").await;
    refused(&rig, "network rm net2", Kind::Conflict, "web1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_node_is_served_by_nobody_keeps_its_place_and_comes_back() {
    let (rig, one, two) = ground().await;
    let (before, world) = (rig.run("node show web1").await.one().clone(), rig.world());
    let detached = rig.run("network detach net1 web1").await.one().clone();
    assert_eq!(detached["state"], "detached");
    assert!(!rig.run("network detach net1 web1").await.end.changed);
    let status = rig.run("status").await.one().clone();
    let counts = ["nodes_ready", "nodes_error", "nodes_changing", "nodes_detached"].map(|c| status[c].as_u64());
    assert_eq!(counts, [Some(0), Some(0), Some(0), Some(1)], "{status}");
    assert_eq!(status["healthy"], true, "somebody wanted it so: {status}");
    for kind in ["targets", "boot.entry", "accounts"] {
        assert_eq!(of(&rig, kind, &one), Vec::<String>::new());
    }
    whole(&rig).await;
    for (line, told) in [
        ("node rebase web1 --image golden", "detached"),
        ("node reprovision web1", "detached"),
        ("node migrate web1 --mac 52:54:00:00:00:09", "detached"),
        ("node chap-secret web1 --rotate", "network attach net1 web1"),
        ("network rm net1", "web1"),
    ] {
        refused(&rig, line, Kind::Conflict, told).await;
    }
    // Its disk is there: it can be tagged. Nobody else gets its address meanwhile.
    rig.run("tag create web1 base").await;
    rig.run("tag rm web1 base").await;
    let again = rig.run("network attach net1 web1").await.one().clone();
    for kept in ["address", "iqn", "state", "network", "chap_user"] {
        assert_eq!(again[kept], before[kept], "{kept}");
    }
    assert_eq!(rig.world(), world);
    whole(&rig).await;
    rig.run("network detach net1 web1").await;
    rig.run("network attach net2 web1").await;
    assert_eq!((of(&rig, "targets", &one).len(), of(&rig, "targets", &two).len()), (0, 1));
    rig.run("network detach net2 web1").await;
    rig.run("node deprovision web1").await;
    whole(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_changes_its_network_only_by_force() {
    let (rig, ..) = ground().await;
    let iqn = rig.run("node show web1").await.one()["iqn"].as_str().unwrap().to_owned();
    let sessions = World::open(&rig.dir.join("world")).unwrap();
    sessions.put("sessions", &iqn, &["iqn.x"]).unwrap();
    refused(&rig, "network attach net2 web1", Kind::Conflict, "is running").await;
    refused(&rig, "network detach net1 web1", Kind::Conflict, "is running").await;
    refused(&rig, "network detach net2 web1", Kind::Conflict, "is on network net1").await;
    rig.run("network attach net2 web1 --force").await;
    rig.run("network detach net2 web1 --force").await;
    whole(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_changes_what_machines_are_told_while_nodes_are_on_it_and_nothing_they_stand_on() {
    let (rig, ..) = ground().await;
    let node = rig.run("node show web1").await.one().clone();
    let line = "network update net1 --range 10.9.0.20-10.9.0.29 --router 10.9.0.254 --dns 10.9.0.253 --name lab";
    let shown = rig.run(line).await.one().clone();
    assert_eq!((&shown["name"], &shown["range"]), (&"lab".into(), &"10.9.0.20-10.9.0.29".into()));
    assert_eq!((&shown["router"], &shown["dns"]), (&"10.9.0.254".into(), &serde_json::json!(["10.9.0.253"])));
    let again = line.replace("net1", "lab");
    assert!(!rig.run(&again).await.end.changed);
    let mut after = rig.run("node show web1").await.one().clone();
    after["network"] = node["network"].clone();
    assert_eq!(after, node, "its address is kept, inside the new range or not");
    whole(&rig).await;
    let address = node["address"].as_str().unwrap();
    for (line, kind, told) in [
        ("lab --dhcp proxy --no-range --no-router --no-dns".to_owned(), Kind::Conflict, "web1"),
        ("lab --range 10.9.0.200-10.9.0.254".to_owned(), Kind::Invalid, "holds the router"),
        ("lab --range 10.9.1.2-10.9.1.3".to_owned(), Kind::Invalid, "does not lie among"),
        (format!("lab --router {address}"), Kind::Conflict, "is the address of node web1"),
        ("lab --router 10.9.0.1".to_owned(), Kind::Invalid, "routes nothing"),
        ("lab --mtu 1400".to_owned(), Kind::Invalid, "on no VLAN"),
        ("lab --name net2".to_owned(), Kind::Duplicate, "network net2 already"),
        ("lab --owner alice".to_owned(), Kind::Conflict, "nodes of other projects"),
        ("net2 --mtu 9000".to_owned(), Kind::Invalid, "more than the 1500"),
        ("net2 --dhcp ipv6".to_owned(), Kind::Conflict, "another network"),
        ("net2 --mtu 100".to_owned(), Kind::Invalid, "does not fit"),
    ] {
        refused(&rig, &format!("network update {line}"), kind, told).await;
    }
    rig.run("network update lab --no-range --no-router --no-dns").await;
    let shown = rig.run("network show lab").await.one().clone();
    assert_eq!(
        (&shown["range"], &shown["router"], &shown["dns"]),
        (&Value::Null, &Value::Null, &serde_json::json!([]))
    );
    whole(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_without_nodes_changes_its_mtu_its_dhcp_mode_and_its_owner() {
    let (rig, ..) = ground().await;
    acting(&rig, "alice", "vlan add 103").await.unwrap();
    rig.run("vlan add 102").await;
    let shown = rig.run("network update net2 --mtu 1400 --dhcp off").await.one().clone();
    assert_eq!((&shown["mtu"], &shown["dhcp"]), (&1400.into(), &"off".into()));
    whole(&rig).await;
    // Its VLAN is the project default's.
    refused(&rig, "network update net2 --everyone", Kind::Conflict, "VLAN 102 is project default's").await;
    rig.run("vlan ls").await;
    let line = "network create net3 --interface eth3 --vlan 103 --subnet 10.9.3.0/24";
    acting(&rig, "alice", line).await.unwrap();
    rig.run("network create net4 --interface eth4 --subnet 10.9.4.0/24").await;
    rig.run("network update net4 --owner alice").await;
    refused(&rig, "network show net4", Kind::NotFound, "net4").await;
    acting(&rig, "alice", "network update net4 --everyone").await.unwrap();
    assert_eq!(rig.run("network show net4").await.one()["owner"], Value::Null);
    whole(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_the_host_routes_between_networks_is_told() {
    let rig = Rig::new().await;
    let made = rig.run("network create net1 --interface eth1 --subnet 10.9.0.0/24").await;
    assert_eq!(made.one()["host_forwards"], "none");
    let world = World::open(&rig.dir.join("world")).unwrap();
    world.put("routing", "host", &serde_json::json!({"ipv4": true, "ipv6": false})).unwrap();
    let made = rig.run("network create net2 --interface eth2 --subnet 10.9.1.0/24").await;
    assert_eq!(made.one()["host_forwards"], "IPv4");
    assert_eq!(rig.run("network show net1").await.one()["host_forwards"], "IPv4");
    let found = rig.run("doctor").await;
    let said = |f: &Value| f["check"] == "interface eth1" && f["found"].as_str().unwrap().contains("forwards IPv4");
    assert!(found.items.iter().any(said), "{found:?}");
}
