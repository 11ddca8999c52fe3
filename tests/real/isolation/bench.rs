//! The switch, the four machines, the engine with two networks and a node on each. Made once, for all attacks.

use std::sync::OnceLock;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::ceph::{own_kernel, told_by_own_kernel};
use crate::house::{disk, inside, sh, tries};
use crate::rig::{Answer, Rig};

/// All attacks, by their whole names.
const ATTACKS: [&str; 18] = [
    "isolation::names::targets_of_another_network_are_not_told_and_not_reached",
    "isolation::scripts::a_boot_script_of_another_network_is_not_to_be_had",
    "isolation::scripts::a_file_beside_the_boot_files_is_not_to_be_had_by_any_path",
    "isolation::scripts::a_machine_that_takes_anothers_mac_gets_its_script_and_secret_unless_it_is_in_no_script",
    "isolation::dhcp::another_networks_reservations_are_not_given_out",
    "isolation::dhcp::a_dhcp_server_on_one_network_is_not_heard_on_another",
    "isolation::tagged::frames_that_carry_another_vlans_number_go_nowhere",
    "isolation::floods::connections_that_never_log_in_are_few_a_machine_and_cost_another_network_nothing",
    "isolation::floods::a_flood_of_logins_and_refusals_fills_no_log_and_ends_no_tgtd",
    "isolation::floods::data_that_is_asked_for_by_the_gigabyte_costs_the_host_no_memory",
    "isolation::garbage::rubbish_before_and_after_login_ends_neither_its_own_networks_tgtd_nor_anothers",
    "isolation::lies::lies_about_data_end_no_tgtd",
    "isolation::lies::a_machine_that_takes_none_of_what_it_asked_for_keeps_no_other_of_its_network_waiting",
    "isolation::lies::an_answer_behind_a_ping_that_wants_none_comes_by_itself",
    "isolation::lies::what_is_given_up_twice_keeps_no_connection",
    "isolation::taken::leases_taken_under_invented_macs_leave_provisioned_machines_theirs_and_are_bounded",
    "isolation::taken::boot_files_that_are_asked_for_and_never_taken_keep_no_other_network_waiting",
    "isolation::names::nothing_but_what_a_network_needs_listens_on_its_address",
];
const MODULES: [&str; 5] = ["8021q", "veth", "bridge", "ipv6", "af_packet"];

/// Does this test's part, under the kernel that all of them share; fails if it failed there.
pub fn attack(name: &str, try_it: impl FnOnce(&'static Bench)) {
    if own_kernel() {
        let bench = bench();
        let since = std::time::Instant::now();
        try_it(bench);
        println!("\nheld: {name}. {} ms", since.elapsed().as_millis());
        return;
    }
    static TOLD: OnceLock<String> = OnceLock::new();
    let told = TOLD.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        crate::ceph::guard();
        told_by_own_kernel(&MODULES, &ATTACKS)
    });
    told.lines().filter(|l| l.contains(&format!("held: {name}."))).for_each(|l| println!("{l}"));
    assert!(told.contains(&format!("held: {name}.")), "{name}: {told}");
}

/// The same without VLANs and under this kernel, for what that other one is too slow for: each tenant has a card of the engine.
pub fn attack_without_vlans(name: &str, try_it: impl FnOnce(&Bench)) {
    if !inside(name) {
        return;
    }
    sh("ip link del eth1; mkdir -p /run/netns; mount -t tmpfs none /run/netns");
    for (card, vlan) in [("eth1", 100), ("eth2", 200)] {
        sh(&format!(
            "ip link add {card} type veth peer name port-{card}; ip link add sw{vlan} type bridge
             ip link set port-{card} master sw{vlan}; ip link set {card} up; ip link set port-{card} up; ip link set sw{vlan} up"
        ));
    }
    for machine in MACHINES {
        let Machine(name, vlan, _) = machine;
        machine.plug(&format!("sw{vlan}"));
        assert!(on(name, "true").0);
    }
    crate::ceph::guard();
    let bench = runtime().block_on(Bench::new(|vlan| if vlan == 100 { "eth1".to_owned() } else { "eth2".to_owned() }));
    try_it(&bench);
    for (node, vlan) in [(A, 100), (B, 200)] {
        bench.run(&format!("node deprovision {} --force", bench.of(node, "name")));
        bench.run(&format!("network rm t{vlan}"));
    }
}

/// A machine: its name, its tenant's VLAN, the end of its address.
struct Machine(&'static str, u16, u8);

const MACHINES: [Machine; 4] =
    [Machine("a", 100, 50), Machine("a2", 100, 51), Machine("b", 200, 50), Machine("b2", 200, 51)];

impl Machine {
    fn plug(&self, switch: &str) {
        let Machine(name, vlan, last) = self;
        sh(&format!(
            "ip netns add {name}; ip link add port-{name} type veth peer name card netns {name}
             ip link set port-{name} master {switch} up
             ip -n {name} link set lo up; ip -n {name} link set card up
             ip -n {name} addr add 10.{vlan}.0.{last}/24 dev card"
        ));
    }
}

/// One engine, two tenants.
pub struct Bench {
    rig: Rig,
    /// The nodes `n100` and `n200` as they were provisioned.
    pub nodes: [Value; 2],
    /// The networks' ids.
    pub networks: [String; 2],
}

/// `n100` is A's, `n200` B's.
pub const MACS: [&str; 2] = ["52:54:00:00:00:10", "52:54:00:00:00:20"];
pub const A: usize = 0;
pub const B: usize = 1;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap())
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        switch();
        let bench = runtime().block_on(Bench::new(|vlan| format!("eth1 --vlan {vlan}")));
        routes(&bench.networks);
        bench
    })
}

/// A switch that keeps VLANs apart: the engine on its trunk, machines on access ports.
fn switch() {
    sh("ip link add eth1 type veth peer name trunk
        ip link add sw type bridge vlan_filtering 1 vlan_default_pvid 0
        ip link set trunk master sw; ip link set eth1 up; ip link set trunk up; ip link set sw up
        bridge vlan add dev trunk vid 100; bridge vlan add dev trunk vid 200");
    for machine in MACHINES {
        machine.plug("sw");
        sh(&format!("bridge vlan add dev port-{} vid {} pvid untagged", machine.0, machine.1));
    }
}

impl Bench {
    /// `interface` tells what a network stands on, as words of the command.
    async fn new(interface: impl Fn(u16) -> String) -> Bench {
        let rig = Rig::real().await;
        let golden = disk(&rig.dir.join("golden.raw"), 64);
        rig.run(&format!("image import {golden} --name golden --format raw")).await;
        let (mut nodes, mut networks) = (Vec::new(), Vec::new());
        for (vlan, mac) in [100, 200].into_iter().zip(MACS) {
            let range = format!("--range 10.{vlan}.0.100-10.{vlan}.0.150");
            let interface = interface(vlan);
            rig.run(&format!("network create t{vlan} --interface {interface} --address 10.{vlan}.0.1/24 {range}"))
                .await;
            let line = format!("node provision n{vlan} --image golden --mac {mac} --network t{vlan}");
            nodes.push(rig.run(&line).await.one().clone());
            networks.push(rig.run(&format!("network show t{vlan}")).await.one()["id"].as_str().unwrap().to_owned());
        }
        Bench { rig, nodes: nodes.try_into().unwrap(), networks: networks.try_into().unwrap() }
    }

    /// Asks the engine.
    pub fn run(&self, line: &str) -> Answer {
        runtime().block_on(self.rig.run(line))
    }

    /// Asks the engine until it answers as wanted.
    pub fn until(&self, line: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        runtime().block_on(self.rig.until(line, wanted))
    }

    /// The folder that networks' files are in.
    pub fn run_folder(&self) -> std::path::PathBuf {
        self.rig.dir.join("run")
    }

    /// A field of a node, as text.
    pub fn of(&self, node: usize, field: &str) -> &str {
        self.nodes[node][field].as_str().unwrap()
    }
}

/// The hostile machine sends what is for B's subnets to the engine, whose MAC it knows.
fn routes(networks: &[String]) {
    let mac = sh("cat /sys/class/net/bmi-v100/address");
    let link_local = sh("ip -6 -o addr show dev bmi-v100 scope link | sed 's/.*inet6 //; s,/.*,,'");
    sh(&format!(
        "ip -n a neigh add 10.100.0.99 lladdr {mac} dev card; ip -n a route add 10.200.0.0/24 via 10.100.0.99 dev card
         ip -n a -6 addr add {0}50/64 dev card nodad; ip -n a -6 route add {1}/64 via {link_local} dev card",
        prefix(&networks[A]),
        prefix(&networks[B]),
        mac = mac.trim(),
        link_local = link_local.trim()
    ));
}

/// The number of a network's tgtd.
pub fn tgtd(bench: &Bench, node: usize) -> u32 {
    let pid = bench.run_folder().join("net").join(&bench.networks[node]).join("tgtd/pid");
    std::fs::read_to_string(pid).unwrap().trim().parse().unwrap()
}

/// A network's private subnet, as the engine makes it.
pub fn prefix(network: &str) -> String {
    let id: bmi::model::Id = network.parse().unwrap();
    bmi::step::network::ipv6_prefix(id).to_string()
}

/// A machine runs a command: whether it succeeds, and what it says.
pub fn on(machine: &str, line: &str) -> (bool, String) {
    tries(&format!("ip netns exec {machine} {line}"))
}
