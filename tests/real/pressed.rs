//! What goes wrong on a real host: a machine that is on while its disk is to go, another DHCP server on its network, a
//! datastore without room.

use std::process::{Child, Command};

use bmi::model::Kind;

use crate::house::{inside, pid_of, sh};
use crate::rig::Rig;
use crate::store::Store;

const NET: &str = "network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150";
const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1";

/// A process of the test's own, which ends with it.
struct Other(Child);

impl Other {
    fn start(line: &str) -> Other {
        Other(Command::new("sh").args(["-c", &format!("exec {line}")]).spawn().unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_machine_that_is_on_is_only_taken_by_force_and_then_it_is_logged_out() {
    if inside("pressed::the_disk_of_a_machine_that_is_on_is_only_taken_by_force_and_then_it_is_logged_out") {
        is_only_taken_by_force(&Store::Folder).await;
    }
}

pub async fn is_only_taken_by_force(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let node = rig.run(WEB1).await.one().clone();
    rig.run("tag create web1 t").await;
    let (initiator, iqn) = (node["initiator"].as_str().unwrap(), node["iqn"].as_str().unwrap());
    let url = format!("iscsi://{}/{iqn}/1", node["portal"].as_str().unwrap());
    let _machine = Other::start(&format!("iscsi-perf -i {initiator} -b 8 -m 4 -t 600 {url} >/dev/null"));
    rig.until("node show web1", |n| n["sessions"].as_array().is_some_and(|s| !s.is_empty())).await;
    for line in ["tag rollback web1 t", "node rebase web1 --image golden", "node snapshot web1 copy"] {
        let fault = rig.refuse(line).await;
        assert_eq!(fault.kind, Kind::Conflict, "{line}: {fault}");
        assert!(fault.to_string().contains("--force"), "{line} says what to do: {fault}");
    }
    rig.run("tag rm web1 t").await;
    let fault = rig.refuse("node deprovision web1").await;
    assert_eq!(fault.kind, Kind::Conflict, "{fault}");
    assert!(fault.to_string().contains("--force"), "{fault}");
    assert_eq!(rig.run("target show web1").await.items.len(), 1, "nothing was taken away");
    assert!(!rig.run("node show web1").await.one()["sessions"].as_array().unwrap().is_empty(), "it is still on");

    // The machine's ends of its connections with tgtd.
    let connected = || {
        let ends = sh("ss -Htn state established 'sport = :3260'");
        ends.lines().map(|l| l.split_whitespace().last().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = connected();
    assert!(!before.is_empty());
    rig.run("node deprovision web1 --force").await;
    assert!(rig.run("target ls").await.items.is_empty());
    // tgtd itself has none of them. The machine tries again and is refused, each time in another one that lasts a moment.
    let after = connected();
    assert!(!before.iter().any(|end| after.contains(end)), "{before:?} {after:?}");
    assert!(store.volumes(&rig).is_empty());
    rig.run("network rm net1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_another_dhcp_server_on_a_network_of_ours() {
    if !inside("pressed::the_doctor_names_another_dhcp_server_on_a_network_of_ours") {
        return;
    }
    let rig = Rig::real().await;
    rig.run(NET).await;
    let about = |items: &[serde_json::Value]| {
        let dhcp = |f: &&serde_json::Value| f["check"].as_str().is_some_and(|c| c.starts_with("DHCP"));
        items.iter().find(dhcp).cloned().unwrap_or_else(|| panic!("nothing about DHCP: {items:?}"))
    };
    let alone = about(&rig.run("doctor").await.items);
    assert_eq!(alone["severity"], "ok", "{alone}");
    // The other end of the cable is in a namespace of its own, as a rogue server's host would be.
    let rogue = Other::start("unshare --net sleep 600");
    let pid = rogue.0.id();
    while sh(&format!("readlink /proc/{pid}/ns/net")) == sh("readlink /proc/self/ns/net") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    sh(&format!("ip link set node0 netns {pid}"));
    let there = format!("nsenter --net=/proc/{pid}/ns/net");
    sh(&format!("{there} ip link set lo up; {there} ip link set node0 up; {there} ip addr add 10.9.0.7/24 dev node0"));
    let folder = rig.dir.display();
    let _server = Other::start(&format!(
        "{there} dnsmasq -k --port=0 --user=root --interface=node0 --bind-interfaces --no-ping --conf-file=/dev/null \
         --dhcp-range=10.9.0.160,10.9.0.170 --dhcp-leasefile={folder}/rogue.leases --pid-file={folder}/rogue.pid"
    ));
    while !rig.dir.join("rogue.pid").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let found = about(&rig.run("doctor").await.items);
    assert_eq!(found["severity"], "error", "{found}");
    assert!(found.to_string().contains("10.9.0.7"), "{found}");
    rig.run("network rm net1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_without_room_refuses_and_keeps_nothing_of_what_did_not_fit() {
    if !inside("pressed::a_datastore_without_room_refuses_and_keeps_nothing_of_what_did_not_fit") {
        return;
    }
    let rig = Rig::real().await;
    rig.run(NET).await;
    let (small, folder) = (rig.dir.join("small"), rig.dir.display().to_string());
    sh(&format!("mkdir {folder}/small; mount -t tmpfs -o size=64m,mode=755 tmpfs {folder}/small"));
    sh(&format!("mkdir {folder}/small/store"));
    rig.run(&format!("datastore create small --path {folder}/small/store")).await;
    let used = || sh(&format!("find {}/store -type f -size +0 -path '*/*/*' -not -name '.*'", small.display()));
    let before = used();
    sh(&format!("head -c 40M /dev/urandom >{folder}/forty; head -c 100M /dev/urandom >{folder}/hundred"));
    sh(&format!("qemu-img convert -O qcow2 {folder}/hundred {folder}/hundred.qcow2"));
    for (file, format) in [("hundred", "raw"), ("hundred.qcow2", "qcow2")] {
        let line = format!("image import {folder}/{file} --name big --format {format} --datastore small");
        let fault = rig.refuse(&line).await;
        assert_eq!(fault.kind, Kind::Full, "{line}: {fault}");
        assert!(fault.to_string().contains("small"), "it names the datastore: {fault}");
        assert_eq!(used(), before, "{line} left something");
        assert!(rig.run("image ls").await.items.is_empty());
    }
    rig.run(&format!("image import {folder}/forty --name golden --format raw --datastore small")).await;
    let with_image = used();
    // This file system shares no blocks: a clone is a copy, and there is no room for a second 40 MiB.
    let fault = rig.refuse(WEB1).await;
    assert_eq!(fault.kind, Kind::Full, "{fault}");
    assert_eq!(used(), with_image, "the half clone is gone");
    assert!(rig.run("node ls").await.items.is_empty() && rig.run("target ls").await.items.is_empty());
    assert!(rig.run("reconcile").await.items.is_empty(), "rows and world agree");
    // With room it works, by the same line.
    sh(&format!("mount -o remount,size=128m {folder}/small"));
    rig.run(WEB1).await;
    rig.run("node deprovision web1").await;
    rig.run("image rm golden").await;
    assert_eq!(used(), before);
    rig.run("network rm net1").await;
    assert_eq!((pid_of("tgtd"), pid_of("dnsmasq")), (None, None));
}
