//! Disks of a pool's namespace that the kernel maps, the whole way: under a kernel of its own (User-mode Linux), which has the
//! RBD client that the machine's may lack, with the real engine, tgtd and Ceph.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ceph::{Ceph, own_kernel};
use crate::house::{disk, inside, pid_of, sh, tries};
use crate::loaded;
use crate::rig::Rig;
use crate::whole::login;

const NAME: &str = "krbd::the_kernel_serves_a_disk_of_a_namespace_and_leaves_nothing";
/// How long that cluster may leave the foreign map's requests without an answer, in seconds.
const SHORT: u64 = 3;
const MAPS: &str = "/sys/bus/rbd/devices";

/// What the kernel has mapped: numbers and names.
fn maps() -> Vec<(String, String)> {
    let name = |n: &str| fs::read_to_string(format!("{MAPS}/{n}/name")).unwrap().trim().to_owned();
    let mut all: Vec<_> = fs::read_dir(MAPS).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all.into_iter().map(|n| (n.clone(), name(&n))).collect()
}

fn tell(file: &str, line: &str) {
    fs::write(format!("/sys/bus/rbd/{file}_single_major"), line).unwrap();
}

fn iscsi(node: &Value, line: &str) -> String {
    let text = |field: &str| node[field].as_str().unwrap().to_owned();
    let url = format!("iscsi://{}/{}/1", text("portal"), text("iqn"));
    tries(&format!("{} {url}", line.replace("INITIATOR", &text("initiator")))).1
}

fn writes(node: &Value) {
    let said = iscsi(node, "iscsi-test-cu -i INITIATOR --dataloss --test=SCSI.Write16.DpoFua");
    assert!(said.contains("...passed"), "{said}");
}

/// The node comes back to its disk.
async fn back(node: &Value) {
    for _ in 0..400 {
        if login(node).0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the target is not back: {}", login(node).1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_serves_a_disk_of_a_namespace_and_leaves_nothing() {
    if own_kernel() {
        return served().await;
    }
    if !inside(NAME) {
        return;
    }
    let cluster = Ceph::here();
    cluster.tool(&["rbd", "namespace", "create", "rbd/tenants"]);
    cluster.tool(&["rbd", "create", "--size", "8M", "rbd/vm-7"]);
    cluster.user("bmi", "profile rbd", "profile rbd pool=rbd namespace=tenants");
    cluster.with_own_kernel(&[NAME]);
    assert_eq!(cluster.tool(&["rbd", "ls", "rbd"]), "vm-7\n", "nothing was made outside of the namespace");
    assert_eq!(cluster.tool(&["rbd", "ls", "rbd/tenants"]), "");
}

async fn served() {
    let cluster = Ceph::here();
    let key = |user: &str, file: &str| {
        sh(&format!("ceph-authtool -p -n client.{user} {}", cluster.path(file).display())).trim().to_owned()
    };
    let (ours, theirs) = (key("bmi", "keyring.bmi"), key("admin", "keyring"));
    an_order_needs_one_capability(&cluster);
    tell("add", &format!("10.8.0.1:6789 name=admin,secret={theirs},osd_request_timeout={SHORT} rbd vm-7 -"));
    let foreign = maps();
    assert_eq!(foreign.len(), 1);
    sh("ip link add eth1 type veth peer name node0; ip link set eth1 up; ip link set node0 up");
    let rig = Rig::real().await;
    rig.run("network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150").await;
    made(&rig, &cluster, &foreign).await;
    let node = rig.run("node provision web1 --image pooled --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    assert_eq!(maps().len(), 2, "{:?}", maps());
    assert!(login(&node).0, "{}", login(&node).1);
    assert!(iscsi(&node, "iscsi-readcapacity16 -i INITIATOR").contains("EXPONENT:3"), "blocks of 4 KiB");
    rig.run("tag create web1 clean").await;
    let clean = bytes();
    writes(&node);
    tgtd_dies(&cluster, &node).await;
    machines_write_on(&rig, &node).await;
    let written = bytes();
    assert_ne!(written, clean);
    let (rig, keep) = host_comes_up_anew(rig, &foreign).await;
    back(&node).await;
    assert_eq!(bytes(), written, "the machine's bytes were in the pool");
    rig.run("tag rollback web1 clean").await;
    assert_eq!(bytes(), clean, "what was written since the tag is gone");
    assert_eq!(maps().len(), 2, "the disk it turned away from is not mapped any more");
    assert!(login(&node).0, "under the same name: {}", login(&node).1);
    moved(&rig).await;
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");
    let told: String =
        maps().iter().map(|m| fs::read_to_string(format!("{MAPS}/{}/config_info", m.0)).unwrap()).collect();
    assert!(
        told.contains("name=bmi,key=bmid.") && told.contains("osd_request_timeout=30,") && !told.contains(&ours),
        "the kernel keeps its order, in which nothing waits for ever and no key stands: {told}"
    );
    all_goes(&rig, &foreign).await;
    let told = format!("{:?}{}", rig.run("event ls").await.items, sh("dmesg; cat /proc/keys"));
    assert!(!told.contains(&ours) && !told.contains("bmid."), "no key stands anywhere: {told}");
    silence_ends(&foreign[0].0);
    drop(keep);
}

/// Ceph does not answer any more: what is read fails when its time is up, and so does not hang for ever; a map that somebody has
/// open goes by force, which is for people to use.
fn silence_ends(number: &str) {
    let device = format!("/dev/rbd{number}");
    // What was never written the kernel knows to be zeros.
    sh(&format!("dd if=/dev/zero of={device} oflag=direct bs=4096 count=1 status=none"));
    let open = fs::File::open(&device).unwrap();
    sh("ip link set vec0 down");
    let begun = Instant::now();
    let (read, said) = tries(&format!("dd if={device} of=/dev/null iflag=direct bs=4096 count=1"));
    eprintln!("a read that Ceph did not answer in {SHORT} s failed after {:?}", begun.elapsed());
    assert!(!read && said.contains("Connection timed out"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(SHORT), "it had its time");
    let kept = fs::write("/sys/bus/rbd/remove_single_major", number).unwrap_err();
    assert_eq!(kept.raw_os_error(), Some(nix::libc::EBUSY), "somebody has it open: {kept}");
    tell("remove", &format!("{number} force"));
    assert_eq!(maps(), []);
    drop(open);
    sh("ip link set vec0 up");
}

/// What the unit `bmid-rbd@` runs, with its one capability and no way to others: it maps a disk, with the key out of its file, and
/// unmaps it.
fn an_order_needs_one_capability(cluster: &Ceph) {
    let folder = tempfile::tempdir().unwrap();
    let order = |file: &str, line: &str, key: Value| {
        let text = serde_json::json!({"file": format!("{file}_single_major"), "line": line, "key": key}).to_string();
        fs::write(folder.path().join("order"), text).unwrap();
        let confined = "setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all,+sys_admin";
        sh(&format!("{confined} {} --rbd-order {}", env!("CARGO_BIN_EXE_bmid"), folder.path().display()));
        fs::read_to_string(folder.path().join("said")).unwrap()
    };
    let key = serde_json::json!(["bmid.order", {"path": cluster.path("keyring"), "user": "admin"}]);
    assert_eq!(order("add", "10.8.0.1:6789 name=admin,key=bmid.order rbd vm-7 -", key), "\"Done\"");
    let mapped = maps();
    assert!(mapped.len() == 1 && mapped[0].1 == "vm-7", "{mapped:?}");
    assert_eq!(order("remove", &mapped[0].0, Value::Null), "\"Done\"");
    assert_eq!(maps(), []);
}

/// The volume that is mapped: number and name.
fn volume() -> (String, String) {
    maps().into_iter().find(|(_, name)| name.contains(".v.")).unwrap()
}

/// What is on it.
fn bytes() -> String {
    sh(&format!("dd if=/dev/rbd{} iflag=direct bs=1M status=none | sha256sum", volume().0))
}

/// The datastore and its image; the way is chosen by itself.
async fn made(rig: &Rig, cluster: &Ceph, foreign: &[(String, String)]) {
    let (conf, keyring) = (cluster.conf(), cluster.path("keyring.bmi"));
    let line = format!(
        "datastore create ceph --kind rbd --pool rbd --namespace tenants --conf {} --id bmi --keyring {}",
        conf.display(),
        keyring.display()
    );
    let fault = rig.refuse(&format!("{line} --export librbd")).await;
    assert!(fault.why.contains("namespaces"), "{fault}");
    assert_eq!(rig.run(&line).await.one()["export"], "kernel", "chosen by itself where the kernel can");
    assert!(!rig.run(&line).await.end.changed, "asked for again");
    assert_eq!(maps(), foreign, "what was mapped to try it out is not any more");
    let status = rig.run("status").await;
    assert!(status.one()["datastores"].as_array().unwrap().iter().any(|d| d["export"] == "kernel"), "{status:?}");
    let golden = disk(&rig.dir.join("golden.raw"), 16);
    rig.run(&format!("image import {golden} --name pooled --format raw --datastore ceph")).await;
}

/// The kernel keeps disk and lock, so nobody waits for a dead owner's.
async fn tgtd_dies(cluster: &Ceph, node: &Value) {
    let (mapped, volume) = (maps(), volume().1);
    let lock = || sh(&format!("rbd --conf {} lock ls rbd/tenants/{volume}", cluster.conf().display()));
    let held = lock();
    assert!(held.contains("client."), "a disk that was written to is locked: {held}");
    sh(&format!("kill -9 {}", pid_of("tgtd").expect("tgtd runs")));
    back(node).await;
    assert_eq!((maps(), lock()), (mapped, held), "the same map, and its owner lives");
    writes(node);
}

/// Two machines, whose tgtd is killed while they write.
async fn machines_write_on(rig: &Rig, node: &Value) {
    let line = "node provision web2 --image pooled --mac 52:54:00:00:00:12 --network net1";
    let other = rig.run(line).await.one().clone();
    loaded::write_on(&[node.clone(), other], 40, "kernel").await;
    rig.run("node deprovision web2 --force").await;
}

/// Nothing is mapped, and tgtd is empty.
async fn host_comes_up_anew(rig: Rig, foreign: &[(String, String)]) -> (Rig, Option<tempfile::TempDir>) {
    let ours = volume().0;
    let (dir, keep) = rig.stop().await;
    sh(&format!("kill -9 {}", pid_of("tgtd").expect("tgtd runs")));
    while fs::write("/sys/bus/rbd/remove_single_major", &ours).is_err() {}
    assert_eq!(maps(), foreign);
    (Rig::real_at(&dir).await, keep)
}

/// To other hardware on another network: for a moment both networks' tgtds serve the disk, which stays mapped.
async fn moved(rig: &Rig) {
    sh("ip link add eth2 type veth peer name node1; ip link set eth2 up; ip link set node1 up");
    rig.run("network create net2 --interface eth2 --address 10.9.1.1/24 --range 10.9.1.100-10.9.1.150").await;
    let before = maps();
    let node = rig.run("node migrate web1 --mac 52:54:00:00:00:02 --network net2").await.one().clone();
    assert_eq!(maps(), before, "the same map");
    assert!(login(&node).0, "{}", login(&node).1);
}

async fn all_goes(rig: &Rig, foreign: &[(String, String)]) {
    rig.run("tag rm web1 clean").await;
    rig.run("node deprovision web1 --keep-volume=kept").await;
    assert_eq!(maps(), foreign, "a disk that is kept and served by nobody is not mapped");
    rig.run("volume rm kept").await;
    rig.run("image rm pooled").await;
    rig.run("datastore rm ceph").await;
    assert_eq!(maps(), foreign, "what is not ours was never touched");
}
