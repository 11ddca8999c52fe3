//! Networks: whose they are, what addresses they have, and all that is refused before anything happens.

use bmi::model::{Fault, Kind};
use bmi::protocol::Envelope;
use bmid::drivers::sim::World;

use crate::rig::{Answer, Rig};

/// Asks as root for a project.
async fn acting(rig: &Rig, project: &str, line: &str) -> Result<Answer, Fault> {
    let envelope = Envelope { project: Some(project.parse().unwrap()), ..Envelope::default() };
    rig.ask(Rig::root(), envelope, line).await
}

fn refused(answer: Result<Answer, Fault>, kind: Kind, told: &str) {
    match answer {
        Err(fault) => assert!(fault.kind == kind && format!("{fault:?}").contains(told), "{told}: {fault:?}"),
        Ok(answer) => panic!("was not refused ({told}): {answer:?}"),
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.items.iter().filter_map(|i| i["name"].as_str()).collect()
}

/// Puts an interface into the simulated host.
fn interface(rig: &Rig, name: &str, more: serde_json::Value) {
    let mut facts = serde_json::json!({
        "name": name, "addresses": [], "up": true, "carrier": true, "mtu": 1500, "loopback": false, "vlan": null, "private": [],
    });
    facts.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    World::open(&rig.dir.join("world")).unwrap().put("interface", name, &facts).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_its_projects_or_everyones_and_nodes_boot_on_no_other() {
    let rig = Rig::new().await;
    rig.ground().await;
    let disk = rig.disk("other.raw", &[0x5a; 1 << 16]);
    acting(&rig, "alice", &format!("image import {disk} --name golden --format raw")).await.unwrap();
    acting(&rig, "alice", "network create hers --interface eth2 --subnet 10.8.1.0/24").await.unwrap();
    acting(&rig, "bob", "network create his --interface eth3 --subnet 10.8.2.0/24").await.unwrap();
    rig.run("network create all --interface eth4 --subnet 10.8.3.0/24 --everyone").await;
    let alices = acting(&rig, "alice", "network ls").await.unwrap();
    assert_eq!(names(&alices), ["all", "hers"]);
    assert_eq!(names(&rig.run("network ls --all").await), ["all", "hers", "his", "net1"]);
    let provision = |name: &str, network: &str, mac: u8| {
        format!("node provision {name} --image golden --mac 52:54:00:00:07:{mac:02x} --network {network}")
    };
    acting(&rig, "alice", &provision("a", "hers", 1)).await.unwrap();
    acting(&rig, "alice", &provision("b", "all", 2)).await.unwrap();
    for network in ["bob/his", "default/net1"] {
        refused(acting(&rig, "alice", &provision("c", network, 3)).await, Kind::Conflict, "give project alice's nodes");
    }
    refused(acting(&rig, "alice", &provision("c", "his", 3)).await, Kind::NotFound, "no network his");
    let moved = "node migrate a --mac 52:54:00:00:07:01 --network";
    refused(acting(&rig, "alice", &format!("{moved} bob/his")).await, Kind::Conflict, "project bob's");
    acting(&rig, "alice", &format!("{moved} all")).await.unwrap();
    let create = |name: &str, more: &str| format!("network create {name} --interface eth5 --subnet 10.8.4.0/24 {more}");
    refused(acting(&rig, "alice", &create("all", "")).await, Kind::Duplicate, "every project's");
    refused(acting(&rig, "alice", &create("his", "--everyone")).await, Kind::Duplicate, "project bob's");
    acting(&rig, "alice", &create("his", "")).await.unwrap();
    refused(rig.try_run("network rm all").await, Kind::Conflict, "has 2 nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_takes_the_address_it_has_in_a_subnet_else_the_first_free_one() {
    let rig = Rig::new().await;
    interface(&rig, "eth6", serde_json::json!({"addresses": ["10.8.6.77/24"]}));
    let world = rig.world();
    for (name, line, address) in [
        ("a", "--interface eth2 --subnet 10.8.1.0/24", "10.8.1.1/24"),
        ("b", "--interface eth2 --vlan 7 --subnet 10.8.2.0/24 --range 10.8.2.1-10.8.2.9", "10.8.2.10/24"),
        ("c", "--interface eth3 --subnet 10.8.3.0/24 --router 10.8.3.1 --dns 10.8.3.2 --dns 9.9.9.9", "10.8.3.3/24"),
        ("d", "--interface eth6 --subnet 10.8.6.0/24", "10.8.6.77/24"),
    ] {
        let line = format!("network create {name} {line}");
        let made = rig.run(&line).await;
        assert_eq!(made.one()["address"], address, "{line}");
        assert!(!rig.run(&line).await.end.changed, "{line}");
    }
    let shown = rig.run("network show c").await;
    assert_eq!(shown.one()["router"], "10.8.3.1");
    assert_eq!(shown.one()["dns"], serde_json::json!(["10.8.3.2", "9.9.9.9"]));
    // What stood there before stays.
    for name in ["a", "b", "c", "d"] {
        rig.run(&format!("network rm {name}")).await;
    }
    assert_eq!(rig.world(), world);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_gets_the_address_of_the_engine_the_router_or_a_name_server() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("network create tight --interface eth2 --subnet 10.8.1.0/29 --router 10.8.1.6 --dns 10.8.1.5").await;
    let nodes: Vec<String> = (1..=3).map(|n| format!("--node n{n},52:54:00:00:08:0{n}")).collect();
    let answer = rig.run(&format!("node provision --image golden --network tight {}", nodes.join(" "))).await;
    let mut got: Vec<_> = answer.items.iter().filter_map(|n| n["address"].as_str()).collect();
    got.sort_unstable();
    assert_eq!(got, ["10.8.1.2", "10.8.1.3", "10.8.1.4"]);
    let more = "node provision n4 --image golden --network tight --mac 52:54:00:00:08:04";
    refused(rig.try_run(more).await, Kind::Limit, "no free address");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_network_has_no_ipv4_and_gives_each_node_an_address_of_its_own() {
    let rig = Rig::new().await;
    rig.ground().await;
    let made = rig.run("network create six --interface eth2 --vlan 106 --subnet fd00:6::/64 --dhcp ipv6").await;
    let network = made.one().clone();
    assert_eq!((&network["address"], &network["portal"]), (&"fd00:6::1/64".into(), &"[fd00:6::1]:3260".into()));
    let nodes = "--node n1,52:54:00:00:06:01 --node n2,52:54:00:00:06:02";
    let nodes = rig.run(&format!("node provision --image golden --network six {nodes}")).await.items;
    let mut seen = Vec::new();
    for node in &nodes {
        let address: std::net::Ipv6Addr = node["address"].as_str().unwrap().parse().unwrap();
        assert_eq!((address.segments()[..6].to_vec(), address.segments()[7] % 16), (vec![0xfd00, 6, 0, 0, 0, 0], 0));
        assert_eq!(node["portal"], "[fd00:6::1]:3260");
        assert!(!seen.contains(&address));
        seen.push(address);
        let script = rig.run(&format!("node boot-script {}", node["name"].as_str().unwrap())).await;
        let script = script.one()["script"].as_str().unwrap().to_owned();
        let san = format!("iscsi:[fd00:6::1]::3260:1:{}", node["iqn"].as_str().unwrap());
        assert!(script.contains(&san) && !script.contains("10."), "{script}");
    }
    // What it has comes back with the node, and goes with it to a network that has the other kind.
    rig.run("network detach six n1").await;
    assert_eq!(rig.run("network attach six n1").await.one()["address"], nodes[0]["address"]);
    assert!(rig.run("network attach net1 n1").await.one()["address"].as_str().unwrap().starts_with("10."));
    assert!(rig.run("network attach six n1").await.one()["address"].as_str().unwrap().starts_with("fd00:6::"));
    assert_eq!(rig.to_be_repaired().await.unwrap().0, Vec::<serde_json::Value>::new());
    assert!(rig.run("state check").await.items.is_empty());
}

/// What is typed, what it is refused as, and a part of what is said.
type Bad = (&'static str, Kind, &'static str);

const BAD: &[Bad] = &[
    // VLANs.
    ("--interface eth2 --vlan 0 --subnet 10.8.0.0/24", Kind::Invalid, "0 is not a VLAN"),
    ("--interface eth2 --vlan 4095 --subnet 10.8.0.0/24", Kind::Invalid, "4095 is not a VLAN"),
    ("--interface eth2 --vlan auto --subnet 10.8.0.0/24", Kind::Limit, "the pool has no VLAN"),
    ("--interface eth3 --vlan 100 --subnet 10.8.0.0/24", Kind::Conflict, "VLAN 100 is that of network t100"),
    ("--interface eth2 --vlan 103 --subnet 10.8.0.0/24", Kind::Conflict, "eth2.103"),
    ("--interface eth2 --vlan 104 --subnet 10.8.0.0/24", Kind::Conflict, "bmi-v104 that is not bmid's"),
    // Parents.
    ("--interface gone --vlan 102 --subnet 10.8.0.0/24", Kind::NotFound, "no interface \"gone\""),
    ("--interface lo --vlan 102 --subnet 10.8.0.0/24", Kind::Invalid, "loopback"),
    ("--interface eth7 --vlan 102 --subnet 10.8.0.0/24", Kind::Conflict, "eth7 is down"),
    ("--interface eth2.103 --vlan 102 --subnet 10.8.0.0/24", Kind::Invalid, "is on VLAN 103 of eth2 itself"),
    ("--interface bmi-v100 --vlan 102 --subnet 10.8.0.0/24", Kind::Invalid, "bmid's own interface"),
    ("--interface a23456789012345 --vlan 102 --subnet 10.8.0.0/24", Kind::NotFound, "no interface"),
    ("--interface a234567890123456 --vlan 102 --subnet 10.8.0.0/24", Kind::Invalid, "longer than 15 characters"),
    ("--interface a/b --subnet 10.8.0.0/24", Kind::Invalid, "not an interface's name"),
    // Engines.
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --engine other", Kind::Conflict, "this is engine engine1"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --engine bob/engine1", Kind::Conflict, "on that engine's host"),
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --engine 00000000-0000-4000-8000-000000000001",
        Kind::Conflict,
        "engine1",
    ),
    // Interfaces as they are.
    ("--interface bmi-v100 --subnet 10.8.0.0/24", Kind::Conflict, "serves network t100"),
    ("--interface eth3 --subnet 10.8.0.0/24", Kind::Conflict, "serves network plain"),
    // MTU.
    ("--interface eth2 --vlan 102 --mtu 9000 --subnet 10.8.0.0/24", Kind::Invalid, "more than the 1500"),
    ("--interface eth2 --vlan 102 --mtu 575 --subnet 10.8.0.0/24", Kind::Invalid, "575 does not fit"),
    // Subnets.
    ("--interface eth2 --vlan 102 --subnet 10.10.0.128/25", Kind::Conflict, "overlaps 10.10.0.1/24 of network t100"),
    ("--interface eth2 --vlan 102 --address 10.0.0.1/8", Kind::Conflict, "overlaps"),
    ("--interface eth2 --vlan 102 --address 172.16.5.1/24", Kind::Conflict, "sits on interface eth6"),
    ("--interface eth2 --vlan 102 --address 172.16.5.9/25", Kind::Conflict, "overlaps 172.16.5.1/24 on interface eth6"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/30 --router 10.8.0.2", Kind::Invalid, "too small"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/30 --range 10.8.0.1-10.8.0.2", Kind::Invalid, "no address left"),
    // IPv6.
    ("--interface eth2 --vlan 102 --address 10.8.0.1/24 --dhcp ipv6", Kind::Invalid, "--address fd00:7::1/64"),
    ("--interface eth2 --vlan 102 --address fd00:8::1/64", Kind::Invalid, "--dhcp ipv6"),
    ("--interface eth2 --vlan 102 --subnet fd00:8::/64 --dhcp off", Kind::Invalid, "--dhcp ipv6"),
    ("--interface eth2 --vlan 102 --address fd97:8::1/64 --dhcp ipv6", Kind::Invalid, "in fd97::/16"),
    ("--interface eth2 --vlan 102 --address fd00:8::1:1/64 --dhcp ipv6", Kind::Invalid, "such as fd00:8::1"),
    ("--interface eth2 --vlan 102 --address fd00:8::1000:1/64 --dhcp ipv6", Kind::Invalid, "among the addresses for"),
    ("--interface eth2 --vlan 102 --address fd00:6::9/64 --dhcp ipv6", Kind::Conflict, "overlaps fd00:6::1/64 of"),
    ("--interface eth2 --vlan 102 --address fd00:5::9/64 --dhcp ipv6", Kind::Conflict, "overlaps fd00:5::1/64 on"),
    (
        "--interface eth2 --vlan 102 --subnet fd00:8::/64 --dhcp ipv6 --range fd00:8::5-fd00:8::9",
        Kind::Invalid,
        "leave --range out",
    ),
    // Ranges.
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --range 10.8.1.5-10.8.1.9", Kind::Invalid, "does not lie among"),
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --range 10.8.0.9-10.8.0.255",
        Kind::Invalid,
        "10.8.0.1-10.8.0.254",
    ),
    (
        "--interface eth2 --vlan 102 --address 10.8.0.5/24 --range 10.8.0.1-10.8.0.9",
        Kind::Invalid,
        "engine's own address",
    ),
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --range 10.8.0.5-10.8.0.9 --router 10.8.0.7",
        Kind::Invalid,
        "holds the router 10.8.0.7",
    ),
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --range 10.8.0.5-10.8.0.9 --dns 10.8.0.7",
        Kind::Invalid,
        "holds the name server 10.8.0.7",
    ),
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --range 10.8.0.5-10.8.0.9 --dhcp off",
        Kind::Invalid,
        "--dhcp serve",
    ),
    // Routers and name servers.
    (
        "--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --router 10.8.1.1",
        Kind::Invalid,
        "no host of the subnet 10.8.0.0/24",
    ),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --router 10.8.0.255", Kind::Invalid, "no host of the subnet"),
    ("--interface eth2 --vlan 102 --address 10.8.0.1/24 --router 10.8.0.1", Kind::Invalid, "routes nothing"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --router 10.8.0.9 --dhcp proxy", Kind::Invalid, "--dhcp serve"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --dns 0.0.0.0", Kind::Invalid, "cannot be a name server's"),
    ("--interface eth2 --vlan 102 --address 10.8.0.1/24 --dns 10.8.0.1", Kind::Invalid, "answers no names"),
    ("--interface eth2 --vlan 102 --subnet 10.8.0.0/24 --dns 9.9.9.9 --dhcp off", Kind::Invalid, "--dhcp serve"),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_in_the_plan_with_the_reason_and_nothing_happens() {
    let rig = Rig::new().await;
    let tagged = serde_json::json!({"parent": "eth2", "vlan": 103, "tagging": "802.1Q", "network": null});
    interface(&rig, "eth2.103", serde_json::json!({ "vlan": tagged }));
    interface(&rig, "bmi-v104", serde_json::json!({}));
    interface(&rig, "eth7", serde_json::json!({"up": false, "carrier": false}));
    interface(&rig, "eth6", serde_json::json!({"addresses": ["172.16.5.1/24"]}));
    rig.run("network create t100 --interface eth2 --vlan 100 --address 10.10.0.1/24").await;
    rig.run("network create plain --interface eth3 --address 10.10.2.1/24").await;
    rig.run("network create six --interface eth4 --address fd00:6::1/64 --dhcp ipv6").await;
    interface(&rig, "eth5", serde_json::json!({"addresses": ["fd00:5::1/64"]}));
    let (world, networks) = (rig.world(), rig.run("network ls").await.items);
    for (line, kind, told) in BAD {
        let fault = rig.refuse(&format!("network create bad {line}")).await;
        let said = format!("{} {}", fault, fault.fix);
        assert!(fault.kind == *kind && said.contains(told) && !fault.fix.is_empty(), "{line}: {fault:?}");
    }
    assert_eq!((rig.world(), rig.run("network ls").await.items), (world, networks));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_that_is_named_may_be_this_one_by_its_name_or_id() {
    let rig = Rig::new().await;
    let id = rig.run("status").await.one()["engine_id"].as_str().unwrap().to_owned();
    for (n, engine) in [(1, "engine1"), (2, id.as_str())] {
        let line =
            |more: &str| format!("network create n{n} --interface eth2 --vlan 10{n} --subnet 10.8.{n}.0/24{more}");
        assert!(rig.run(&line(&format!(" --engine {engine}"))).await.end.changed);
        assert!(!rig.run(&line("")).await.end.changed, "it is the same network");
    }
}

/// What no plan ever sees: the command line, and JSON, are refused before.
#[test]
fn what_is_no_vlan_subnet_or_address_is_refused_where_it_is_typed() {
    use clap::Args as _;
    let command = bmi::ops::network::create::NetworkCreate::augment_args(clap::Command::new("x").no_binary_name(true));
    for (line, told) in [
        ("--vlan abc --subnet 10.8.0.0/24", "\"abc\" is not a VLAN"),
        ("--vlan -1 --subnet 10.8.0.0/24", "-1"),
        ("--vlan 70000 --subnet 10.8.0.0/24", "\"70000\" is not a VLAN"),
        ("--subnet 10.8.0.0/31", "too small"),
        ("--subnet 10.8.0.1/24", "in the subnet 10.8.0.0/24"),
        ("--address 10.8.0.0/24", "network or broadcast address"),
        ("--address 10.8.0.1/31", "does not fit"),
        ("--address fd00:8::1/48 --dhcp ipv6", "use 64"),
        ("--address fe80::1/64 --dhcp ipv6", "cannot be an engine's"),
        ("--subnet fd00:8::1/64 --dhcp ipv6", "in the subnet fd00:8::/64"),
        ("--address 10.8.0.1/24 --subnet 10.8.0.0/24", "cannot be used with"),
        ("--vlan 7", "--address"),
        ("--address 10.8.0.1/24 --range 10.8.0.9-10.8.0.5", "ends before it begins"),
        ("--address 10.8.0.1/24 --mtu 1500", "--vlan"),
    ] {
        let words = ["n", "--interface", "eth2"].into_iter().chain(line.split(' '));
        let error = command.clone().try_get_matches_from(words).expect_err(line).to_string();
        assert!(error.contains(told), "{line}: {error}");
    }
}
