//! Interfaces that go and come back: reconcile is rung for by the kernel's own messages, not by its timer, which is an hour here.

use crate::house::{inside, pid_of, sh, tries};
use crate::rig::Rig;
use crate::whole::{ground, login};

/// Waits until a shell line says yes.
pub async fn until(line: &str) {
    for _ in 0..1_000 {
        if tries(line).0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never came to be so: {line}: {}", tries("ip addr").1);
}

/// A machine on the other end of the cable asks for an address until it is offered one.
pub async fn gets_an_address(rig: &Rig) {
    let script = rig.dir.join("discover.py");
    std::fs::write(&script, include_str!("discover.py")).unwrap();
    until(&format!("python3 {} node0 52:54:00:00:00:01", script.display())).await;
}

const HAS: &str = "ip -br addr show eth1 | grep 10.9.0.1/24 | grep fd97: | grep -q UP";

#[tokio::test(flavor = "multi_thread")]
async fn a_network_comes_back_by_itself_when_its_link_or_address_does() {
    if !inside("links::a_network_comes_back_by_itself_when_its_link_or_address_does") {
        return;
    }
    let rig = Rig::real().await;
    ground(&rig).await;
    // In the moment in which it was made, and again in that in which it is repaired: before anybody has looked.
    for _ in 0..4 {
        sh("ip addr flush dev eth1");
        until(HAS).await;
    }
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    let tgtd = pid_of("tgtd");
    gets_an_address(&rig).await;
    for change in [
        "ip addr flush dev eth1",
        "ip -6 addr flush dev eth1 scope global",
        "ip link set eth1 down",
        "ip link set eth1 down; ip link set eth1 up",
    ] {
        sh(change);
        until(HAS).await;
        assert!(login(&node).0, "{change}: {}", login(&node).1);
        gets_an_address(&rig).await;
    }
    sh("ip link del eth1");
    rig.until("doctor", |f| f["check"] == "interface eth1" && f["severity"] == "error").await;
    sh("ip link add eth1 type veth peer name node0; ip link set node0 up");
    until(HAS).await;
    assert!(login(&node).0, "{}", login(&node).1);
    gets_an_address(&rig).await;
    assert_eq!(pid_of("tgtd"), tgtd, "it served on all the time");
    rig.run("node deprovision web1").await;
    rig.run("network rm net1").await;
}

/// How often a process has gone to sleep, which is as often as something woke it.
fn woken(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Hundreds of dnsmasq that list all addresses whenever one of them changes would do nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_dnsmasq_is_not_woken_by_the_addresses_of_other_networks() {
    crate::ceph::guard();
    if !inside("links::a_dnsmasq_is_not_woken_by_the_addresses_of_other_networks") {
        return;
    }
    let rig = Rig::real().await;
    ground(&rig).await;
    gets_an_address(&rig).await;
    let dnsmasq = pid_of("dnsmasq").unwrap();
    let before = woken(dnsmasq);
    sh("ip link add other type veth peer name far; ip link set other up; ip link set far up");
    for n in 0..200 {
        sh(&format!("ip addr add 172.16.{n}.1/24 dev other"));
    }
    // Answered, so it has done all that it was woken for.
    gets_an_address(&rig).await;
    let times = woken(dnsmasq) - before;
    assert!(times < 100, "it was woken {times} times while 200 addresses came");
    rig.run("network rm net1").await;
}
