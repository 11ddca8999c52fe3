//! The pool of VLANs: who may have a network on which, the lowest free one, pages.

use bmi::model::{Fault, Kind};
use bmi::protocol::Envelope;
use bmid::drivers::sim::World;
use serde_json::Value;

use crate::rig::{Answer, Rig};

/// Asks as root for a project.
async fn acting(rig: &Rig, project: &str, line: &str) -> Result<Answer, Fault> {
    let envelope = Envelope { project: Some(project.parse().unwrap()), ..Envelope::default() };
    rig.ask(Rig::root(), envelope, line).await
}

fn numbers(answer: &Answer) -> Vec<u64> {
    answer.items.iter().filter_map(|i| i["number"].as_u64()).collect()
}

/// A network of that project on a subnet of its own.
async fn create(rig: &Rig, project: &str, name: &str, vlan: &str, subnet: u8) -> Result<Answer, Fault> {
    let line = format!("network create {name} --interface eth2 --vlan {vlan} --address 10.77.{subnet}.1/24");
    acting(rig, project, &line).await
}

fn refused(answer: Result<Answer, Fault>, kind: Kind, told: &str) {
    match answer {
        Err(fault) => assert!(fault.kind == kind && format!("{fault:?}").contains(told), "{told}: {fault:?}"),
        Ok(answer) => panic!("was not refused: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vlans_come_into_the_pool_once_and_leave_it_when_no_network_is_on_them() {
    let rig = Rig::new().await;
    let added = rig.run("vlan add 100-103 110 --everyone").await;
    assert_eq!(numbers(&added), [100, 101, 102, 103, 110]);
    assert!(added.items.iter().all(|v| v["owner"] == Value::Null && v["network"] == Value::Null), "{added:?}");
    assert!(!rig.run("vlan add 101-102 --everyone").await.end.changed);
    assert!(rig.run("vlan add 103-104 --everyone").await.end.changed);
    refused(acting(&rig, "alice", "vlan add 99-100").await, Kind::Duplicate, "every project's");
    assert_eq!(numbers(&rig.run("vlan ls").await), [100, 101, 102, 103, 104, 110], "nothing of a refused call stands");
    create(&rig, "alice", "net", "101", 1).await.unwrap();
    let shown = rig.run("vlan ls").await;
    assert_eq!(shown.items[1]["network"], "net", "{shown:?}");
    refused(rig.try_run("vlan rm 100-103").await, Kind::Conflict, "network net is on VLAN 101");
    rig.run("vlan rm 102-104").await;
    assert_eq!(numbers(&rig.run("vlan ls").await), [100, 101, 110]);
    refused(rig.try_run("vlan rm 102-104").await, Kind::NotFound, "102-104");
    acting(&rig, "alice", "network rm net").await.unwrap();
    rig.run("vlan rm 1-4094").await;
    assert!(rig.run("vlan ls --all").await.items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vlan_of_one_project_is_refused_to_another_and_one_outside_the_pool_is_an_administrators() {
    let rig = Rig::new().await;
    acting(&rig, "alice", "vlan add 100-101").await.unwrap();
    rig.run("vlan add 105 --everyone").await;
    refused(create(&rig, "bob", "net", "100", 1).await, Kind::Conflict, "VLAN 100 is project alice's");
    create(&rig, "alice", "net", "100", 1).await.unwrap();
    create(&rig, "bob", "net", "105", 2).await.unwrap();
    create(&rig, "bob", "more", "200", 3).await.unwrap();
    refused(acting(&rig, "alice", "vlan add 200").await, Kind::Conflict, "network more on VLAN 200 is project bob's");
    acting(&rig, "bob", "vlan add 200").await.unwrap();
    let sees = |project: &'static str| acting(&rig, project, "vlan ls");
    assert_eq!(numbers(&sees("alice").await.unwrap()), [100, 101, 105]);
    assert_eq!(numbers(&sees("bob").await.unwrap()), [105, 200]);
    assert_eq!(numbers(&rig.run("vlan ls --all").await), [100, 101, 105, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_takes_the_lowest_free_vlan_that_the_project_may_use() {
    let rig = Rig::new().await;
    refused(create(&rig, "alice", "a", "auto", 1).await, Kind::Limit, "no VLAN that project alice may use");
    acting(&rig, "bob", "vlan add 90-99").await.unwrap();
    acting(&rig, "alice", "vlan add 101-103").await.unwrap();
    rig.run("vlan add 105 --everyone").await;
    // 102 is on the host already, and that interface is not bmid's.
    let foreign = serde_json::json!({
        "name": "eth2.102", "addresses": [], "up": true, "carrier": true, "mtu": 1500, "loopback": false, "private": [],
        "vlan": {"parent": "eth2", "vlan": 102, "tagging": "802.1Q", "network": null},
    });
    World::open(&rig.dir.join("world")).unwrap().put("interface", "eth2.102", &foreign).unwrap();
    let vlan = |answer: &Answer| answer.one()["vlan"].as_u64();
    let first = create(&rig, "alice", "a", "auto", 1).await.unwrap();
    assert_eq!(vlan(&first), Some(101));
    let again = create(&rig, "alice", "a", "auto", 1).await.unwrap();
    assert!(!again.end.changed && vlan(&again) == Some(101), "{again:?}");
    assert_eq!(vlan(&create(&rig, "alice", "b", "auto", 2).await.unwrap()), Some(103));
    assert_eq!(vlan(&create(&rig, "alice", "c", "auto", 3).await.unwrap()), Some(105));
    let full = create(&rig, "alice", "d", "auto", 4).await;
    refused(
        full,
        Kind::Limit,
        "none of the 4 VLANs that project alice may use is free: 3 have a network, 1 an interface",
    );
    acting(&rig, "alice", "network rm b").await.unwrap();
    assert_eq!(vlan(&create(&rig, "alice", "d", "auto", 4).await.unwrap()), Some(103));
    assert_eq!(numbers(&acting(&rig, "alice", "vlan ls --free").await.unwrap()), [102]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_never_get_the_same_vlan() {
    let rig = Rig::new().await;
    rig.run("vlan add 100-107").await;
    let all = (0..8u8).map(|n| {
        let rig = &rig;
        async move { create(rig, "default", &format!("n{n}"), "auto", n).await.unwrap() }
    });
    let mut got: Vec<_> = futures_util::future::join_all(all).await.iter().map(|a| a.one()["vlan"].as_u64()).collect();
    got.sort_unstable();
    assert_eq!(got, (100..108).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_pool_is_listed_in_one_page_or_in_many() {
    let rig = Rig::new().await;
    rig.run("vlan add 1-4094").await;
    let whole = numbers(&rig.run("vlan ls").await);
    assert_eq!(whole, (1..=4094).collect::<Vec<u64>>());
    let (mut pages, mut last) = (Vec::new(), 0);
    loop {
        let page = numbers(&rig.run(&format!("vlan ls --limit 1000 --after {last}")).await);
        let Some(end) = page.last() else { break };
        assert!(page.len() <= 1000);
        last = *end;
        pages.extend(page);
    }
    assert_eq!(pages, whole);
}
