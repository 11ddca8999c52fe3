//! Networks on VLANs, the whole way under a kernel of its own (User-mode Linux), which has 802.1Q where the machine's may not:
//! bmid makes the interface on the trunk, machines on the VLAN get their disks, and what is not bmid's is left alone.
//!
//! The trunk is a cable whose other end carries a VLAN into a namespace each: `m100` and `m200` are machines on access ports.

use bmi::model::Kind;
use serde_json::Value;

use crate::ceph::{own_kernel, with_own_kernel};
use crate::house::{disk, inside, sh, tries};
use crate::links::until;
use crate::rig::Rig;

const NAME: &str = "vlans::networks_on_vlans_stand_under_a_kernel_that_has_them";
const MODULES: [&str; 6] = ["8021q", "veth", "ipv6", "bridge", "bonding", "dummy"];

fn trunk() {
    sh("ip link add eth1 type veth peer name trunk; ip link set eth1 up; ip link set trunk up");
    for vlan in [100, 200] {
        sh(&format!(
            "ip netns add m{vlan}; ip link add link trunk name t{vlan} type vlan id {vlan}; ip link set t{vlan} netns m{vlan}
             ip -n m{vlan} link set lo up; ip -n m{vlan} addr add 10.{vlan}.0.50/24 dev t{vlan}; ip -n m{vlan} link set t{vlan} up"
        ));
    }
}

/// A machine logs in.
fn login(vlan: u16, node: &Value) -> (bool, String) {
    let text = |field: &str| node[field].as_str().unwrap().to_owned();
    let url = format!("iscsi://{}/{}/1", text("portal"), text("iqn"));
    // Who gets in does at once, and on a slow host in a while; who does not waits for all of it.
    tries(&format!("ip netns exec m{vlan} timeout 5 iscsi-inq -i {} {url}", text("initiator")))
}

async fn comes_back(vlan: u16, node: &Value) {
    for _ in 0..60 {
        if login(vlan, node).0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{}{}", login(vlan, node).1, sh("ip -d addr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_on_vlans_stand_under_a_kernel_that_has_them() {
    if own_kernel() {
        each_vlan_has_its_own().await;
        parents_of_every_kind_carry_vlans().await;
    } else if inside(NAME) {
        crate::ceph::guard();
        with_own_kernel(&MODULES, &[NAME]);
    }
}

async fn each_vlan_has_its_own() {
    trunk();
    let rig = Rig::real().await;
    let golden = disk(&rig.dir.join("golden.raw"), 8);
    rig.run(&format!("image import {golden} --name golden --format raw")).await;
    sh("ip link add link eth1 name eth1.300 type vlan id 300; ip link add bmi-v301 type dummy");
    for (line, told) in [("--vlan 300", "eth1.300"), ("--vlan 301", "bmi-v301")] {
        let fault = rig.refuse(&format!("network create x --interface eth1 {line} --address 10.30.0.1/24")).await;
        assert!(fault.kind == Kind::Conflict && fault.why.contains(told), "{fault:?}");
    }
    for vlan in [100, 200] {
        let line = format!("network create t{vlan} --interface eth1 --vlan {vlan} --address 10.{vlan}.0.1/24");
        assert!(rig.run(&line).await.end.changed);
        assert!(!rig.run(&line).await.end.changed, "asked for again");
    }
    let id = rig.run("network show t100").await.one()["id"].as_str().unwrap().to_owned();
    let shown = sh("ip -d link show bmi-v100");
    for part in ["802.1Q id 100", "bmi-v100@eth1", "mtu 1500", "group 1651337572", "LOWER_UP", id.as_str()] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let mut nodes = Vec::new();
    for vlan in [100, 200] {
        let line =
            format!("node provision n{vlan} --image golden --mac 52:54:00:00:00:{} --network t{vlan}", vlan / 10);
        nodes.push(rig.run(&line).await.one().clone());
    }
    for (n, (mine, other)) in [(100, 200), (200, 100)].into_iter().enumerate() {
        assert!(login(mine, &nodes[n]).0, "{}", login(mine, &nodes[n]).1);
        assert!(!login(other, &nodes[n]).0, "from the other VLAN");
    }
    by_the_other_portal(&nodes[0]);
    hands_nothing_on(&rig).await;
    comes_and_goes(&rig, &nodes[0]).await;
    for vlan in [100, 200] {
        rig.run(&format!("node deprovision n{vlan}")).await;
        rig.run(&format!("network rm t{vlan}")).await;
    }
    announces_itself_again(&rig).await;
    let left = sh("ip -br link");
    assert!(!left.contains("bmi-v100") && !left.contains("bmi-v200"), "{left}");
    assert!(left.contains("eth1.300") && left.contains("bmi-v301"), "what is not bmid's stays: {left}");
}

/// A machine that knows the other VLAN's portal, the target's and the initiator's name and the engine's MAC, and gives itself a
/// route, gets nothing: an engine's address is served on its own VLAN alone.
fn by_the_other_portal(node: &Value) {
    let mac = sh("cat /sys/class/net/bmi-v200/address");
    let portal = node["portal"].as_str().unwrap().split(':').next().unwrap().to_owned();
    sh(&format!(
        "ip -n m200 neigh add 10.200.0.99 lladdr {} dev t200; ip -n m200 route add {portal} via 10.200.0.99 dev t200",
        mac.trim()
    ));
    let (inside, said) = login(200, node);
    assert!(!inside, "let in from another VLAN: {said}");
    sh(&format!("ip -n m200 route del {portal}"));
}

/// What a machine sends to another network's by the engine's own MAC is not handed on, and the engine says so; where somebody has the
/// host forward, it is, and that is said, too.
async fn hands_nothing_on(rig: &Rig) {
    for (here, there) in [(100, 200), (200, 100)] {
        sh(&format!("ip -n m{here} route add 10.{there}.0.0/24 via 10.{here}.0.1"));
    }
    let pings = |address: &str| tries(&format!("ip netns exec m100 busybox ping -c 1 -W 5 {address}")).0;
    for (forward, told) in [(0, "none"), (1, "IPv4"), (0, "none")] {
        sh(&format!("echo {forward} >/proc/sys/net/ipv4/ip_forward"));
        assert!(pings("10.100.0.1"), "the engine is there");
        assert_eq!(pings("10.200.0.50"), forward == 1, "with forwarding {forward}");
        assert_eq!(rig.run("network show t100").await.one()["host_forwards"], told);
    }
    sh("ip -n m100 route del 10.200.0.0/24; ip -n m200 route del 10.100.0.0/24");
}

/// An interface that somebody removes, brings down, changes, or whose parent goes and comes back, is put right by itself.
async fn comes_and_goes(rig: &Rig, node: &Value) {
    for change in [
        "ip link del bmi-v100",
        "ip link set bmi-v100 down",
        "ip link set bmi-v100 mtu 1400",
        "ip link set eth1 down; ip link set eth1 up",
        "ip link set bmi-v100 alias ''",
    ] {
        sh(change);
        until("ip -d link show bmi-v100 | grep -q 'mtu 1500.*LOWER_UP\\|LOWER_UP.*mtu 1500'").await;
        until("ip link show bmi-v100 | grep -q 'alias bmid'").await;
        comes_back(100, node).await;
    }
    sh("ip link del eth1");
    rig.until("doctor", |f| f["check"] == "interface bmi-v100" && f["severity"] == "error").await;
    sh("ip netns del m100; ip netns del m200");
    trunk();
    comes_back(100, node).await;
    sh("ip link add link eth1 name eth1.300 type vlan id 300");
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");
}

/// Machines of a network of IPv6 alone live on what its dnsmasq announces: it does so, too, on an interface that was made anew beneath it.
async fn announces_itself_again(rig: &Rig) {
    rig.run("network create six --interface eth1 --vlan 200 --address fd00:200::1/64 --dhcp ipv6").await;
    for change in ["true", "ip link del bmi-v200"] {
        sh(change);
        until("ip -6 addr show dev bmi-v200 | grep -q fd00:200::1/64").await;
        // A kernel asks for advertisements when its link comes up, and makes itself an address out of one.
        sh(
            "ip -n m200 link set t200 down; if ip -n m200 addr | grep fd00:200:; then exit 1; fi; ip -n m200 link set t200 up",
        );
        until("ip -n m200 addr show dev t200 | grep -q fd00:200:").await;
    }
    rig.run("network rm six").await;
}

async fn parents_of_every_kind_carry_vlans() {
    sh("ip link add br0 type bridge; ip link set br0 up");
    sh("ip link add wide type dummy; ip link set wide mtu 9000 up; ip link add bond0 type bond; ip link set bond0 up");
    let rig = Rig::real().await;
    for (n, line, part) in [
        (1, "--interface br0 --vlan 401", "802.1Q id 401"),
        (2, "--interface bond0 --vlan 402", "802.1Q id 402"),
        (3, "--interface wide --vlan 403", "mtu 9000"),
        (4, "--interface wide --vlan 404 --mtu 1500", "mtu 1500"),
        (5, "--interface wide --vlan 405 --tagging 802.1ad", "802.1ad id 405"),
    ] {
        rig.run(&format!("network create p{n} {line} --address 10.4{n}.0.1/24")).await;
        let shown = sh(&format!("ip -d link show bmi-v40{n}"));
        assert!(shown.contains(part), "{part} in {shown}");
    }
    for (mtu, shown) in [(1400, "mtu 1400"), (9000, "mtu 9000")] {
        assert!(rig.run(&format!("network update p4 --mtu {mtu}")).await.end.changed);
        assert!(!rig.run(&format!("network update p4 --mtu {mtu}")).await.end.changed, "asked for again");
        let link = sh("ip -d link show bmi-v404");
        assert!(link.contains(shown) && link.contains("LOWER_UP"), "{link}");
    }
    assert_eq!(rig.refuse("network update p4 --mtu 9001").await.kind, Kind::Invalid);
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");
    for (line, kind) in [
        ("--interface bmi-v401 --vlan 7", Kind::Invalid),
        ("--interface wide --vlan 7 --mtu 9001", Kind::Invalid),
        ("--interface none --vlan 7", Kind::NotFound),
    ] {
        let fault = rig.refuse(&format!("network create x {line} --address 10.50.0.1/24")).await;
        assert_eq!(fault.kind, kind, "{line}: {fault:?}");
    }
    for n in 1..=5 {
        rig.run(&format!("network rm p{n}")).await;
    }
    assert!(!sh("ip -br link").contains("bmi-v40"), "nothing is left");
}
