//! Networks on VLANs: bmid makes the interface itself, and takes none that is not its own.

use bmi::model::Kind;
use bmid::drivers::sim::World;

use crate::rig::Rig;

fn world(rig: &Rig) -> World {
    World::open(&rig.dir.join("world")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_on_a_vlan_has_an_interface_of_its_own_and_takes_it_away() {
    let rig = Rig::new().await;
    rig.ground().await;
    let before = rig.world();
    let line = "network create t100 --interface eth2 --vlan 100 --address 10.10.0.1/24 --mtu 1400";
    rig.run(line).await;
    assert!(!rig.run(line).await.end.changed);
    let shown = rig.run("network show t100").await;
    let shown = shown.one();
    assert_eq!((shown["vlan"].as_u64(), shown["mtu"].as_u64()), (Some(100), Some(1400)), "{shown}");
    assert_eq!((shown["interface"].as_str(), shown["parent"].as_str()), (Some("bmi-v100"), Some("eth2")), "{shown}");
    rig.run("network create t101 --interface eth2 --vlan 101 --address 10.10.1.1/24").await;
    rig.run("network create plain --interface eth2 --address 10.10.2.1/24").await;
    for (line, kind, told) in [
        ("--interface eth2 --vlan 0 --address 10.11.0.1/24", Kind::Invalid, "1 to 4094"),
        ("--interface eth2 --vlan 4095 --address 10.11.0.1/24", Kind::Invalid, "1 to 4094"),
        ("--interface eth3 --vlan 100 --address 10.11.0.1/24", Kind::Conflict, "t100"),
        ("--interface none --vlan 102 --address 10.11.0.1/24", Kind::NotFound, "no interface"),
        ("--interface lo --vlan 102 --address 10.11.0.1/24", Kind::Invalid, "loopback"),
        ("--interface bmi-v100 --vlan 102 --address 10.11.0.1/24", Kind::Invalid, "bmid's own"),
        ("--interface eth3 --vlan 102 --address 10.11.0.1/24 --mtu 9000", Kind::Invalid, "more than the 1500"),
        ("--interface eth3 --vlan 102 --address 10.11.0.1/24 --mtu 100", Kind::Invalid, "576"),
        ("--interface eth3 --vlan 102 --address 10.10.0.129/25", Kind::Conflict, "overlaps"),
    ] {
        let fault = rig.refuse(&format!("network create a {line}")).await;
        assert!(fault.kind == kind && fault.to_string().contains(told), "{line}: {fault:?}");
    }
    for name in ["t100", "t101", "plain"] {
        rig.run(&format!("network rm {name}")).await;
    }
    assert_eq!(rig.world(), before);
}

/// Puts an interface into the simulated host.
fn interface(rig: &Rig, name: &str, up: bool, vlan: Option<serde_json::Value>) {
    let facts = serde_json::json!({
        "name": name, "addresses": [], "up": up, "carrier": up, "mtu": 1500, "loopback": false, "vlan": vlan, "private": [],
    });
    world(rig).put("interface", name, &facts).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_that_are_not_bmids_are_neither_taken_nor_stood_on() {
    let rig = Rig::new().await;
    rig.ground().await;
    interface(&rig, "bmi-v102", true, None);
    interface(
        &rig,
        "eth4.103",
        true,
        Some(serde_json::json!({"parent": "eth4", "vlan": 103, "tagging": "802.1Q", "network": null})),
    );
    interface(&rig, "eth7", false, None);
    for (line, kind, told) in [
        ("--interface eth2 --vlan 102", Kind::Conflict, "not bmid's"),
        ("--interface eth4 --vlan 103", Kind::Conflict, "eth4.103"),
        ("--interface eth4.103 --vlan 104", Kind::Invalid, "--interface eth4"),
        ("--interface eth7 --vlan 105", Kind::Conflict, "is down"),
    ] {
        let fault = rig.refuse(&format!("network create a {line} --address 10.11.0.1/24")).await;
        assert!(fault.kind == kind && format!("{fault:?}").contains(told), "{line}: {fault:?}");
    }
    rig.run("network create a --interface eth2 --vlan 103 --address 10.11.0.1/24").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_makes_a_vlans_interface_again_and_removes_one_that_nobody_wants_when_asked() {
    let rig = Rig::new().await;
    rig.run("network create t100 --interface eth2 --vlan 100 --address 10.10.0.1/24").await;
    let whole = rig.world();
    world(&rig).del("vlan", "bmi-v100").unwrap();
    rig.run("reconcile").await;
    assert_eq!(rig.world(), whole);
    let stray = bmi::step::MakeVlan {
        network: bmi::model::Id::from_random([9; 16]),
        interface: "bmi-v200".to_owned(),
        parent: "eth3".to_owned(),
        vlan: 200,
        tagging: bmi::model::Tagging::Dot1q,
        mtu: None,
    };
    world(&rig).put("vlan", "bmi-v200", &stray).unwrap();
    let refused = rig.refuse("network create b --interface eth3 --vlan 200 --address 10.11.0.1/24").await;
    assert!(refused.kind == Kind::Conflict && format!("{refused:?}").contains("bmictl reconcile"), "{refused:?}");
    rig.run("reconcile").await;
    assert_eq!(rig.world(), whole);
    rig.run("network create b --interface eth3 --vlan 200 --address 10.11.0.1/24").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_on_a_trunk_is_told_how_to_go_over_to_its_vlan_and_no_other_is() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("network create t100 --interface eth2 --vlan 100 --address 10.10.0.1/24").await;
    let line = "node provision w1 --image golden --mac 52:54:00:00:00:01 --network t100";
    let trunk = format!("{line} --vlan-in-firmware");
    let untagged = trunk.replace("t100", "net1");
    assert!(rig.refuse(&untagged).await.to_string().contains("on no VLAN"));
    rig.run(&trunk).await;
    assert!(!rig.run(&trunk).await.end.changed);
    let start = rig.run("node boot-script w1 --start").await;
    let start = start.one()["script"].as_str().unwrap().to_owned();
    for part in
        ["} 52:54:00:00:00:01 &&", "vcreate --tag 100 net${n} ", "chain --autofree http://10.10.0.1:8067/boot.ipxe "]
    {
        assert!(start.starts_with("#!ipxe\n") && start.contains(part), "{part}: {start}");
    }
    let served = rig.run("node boot-script w1").await;
    assert!(served.one()["script"].as_str().unwrap().contains("sanboot"));
    rig.run("node provision w2 --image golden --mac 52:54:00:00:00:02 --network t100").await;
    assert_eq!(rig.refuse("node boot-script w2 --start").await.kind, Kind::Conflict);
}
