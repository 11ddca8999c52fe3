//! The whole way with real workers: provision, log in, die, come back, roll back, deprovision, nothing left.

use bmi::model::Kind;

use crate::house::{inside, pid_of, sh, tries};
use crate::rig::Rig;
use crate::store::{Store, write};

/// A network and an image in the folder of the first start.
pub async fn ground(rig: &Rig) {
    Store::Folder.ground(rig).await;
}

fn url(node: &serde_json::Value) -> String {
    format!("iscsi://{}/{}/1", node["portal"].as_str().unwrap(), node["iqn"].as_str().unwrap())
}

pub fn login(node: &serde_json::Value) -> (bool, String) {
    tries(&format!("iscsi-inq -i {} {}", node["initiator"].as_str().unwrap(), url(node)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_disk_that_survives_its_tgtd() {
    if inside("whole::a_node_gets_a_disk_that_survives_its_tgtd") {
        survives_its_tgtd(&Store::Folder).await;
    }
}

pub async fn survives_its_tgtd(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    assert!(login(&node).0, "{}", login(&node).1);
    let stranger = tries(&format!("iscsi-inq -i iqn.2026-11.example:other {}", url(&node)));
    assert!(!stranger.0, "another initiator was let in: {}", stranger.1);
    sh(&format!("iscsi-perf -i {} -b 8 -m 4 -t 1 {} >/dev/null", node["initiator"].as_str().unwrap(), url(&node)));
    assert_eq!(rig.run("node show web1").await.one()["sessions"], serde_json::json!([]));
    let tgtd = pid_of("tgtd").expect("tgtd runs");
    sh(&format!("kill -9 {tgtd}"));
    for _ in 0..600 {
        if login(&node).0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(login(&node).0, "the target is back after tgtd died: {}", login(&node).1);
    assert_ne!(pid_of("tgtd"), Some(tgtd));
    rig.until("event ls", |e| e["method"] == "worker.died").await;
    rig.run("node deprovision web1").await;
    assert!(!login(&node).0);
    rig.run("image rm golden").await;
    rig.run("network rm net1").await;
    assert_eq!((pid_of("tgtd"), pid_of("dnsmasq")), (None, None));
    assert!(!sh("ip -br addr show eth1").contains("10.9.0.1"), "the address was ours and is taken off");
    store.emptied(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_disks_outlive_the_engine() {
    if inside("whole::workers_and_disks_outlive_the_engine") {
        outlives_the_engine(&Store::Folder).await;
    }
}

pub async fn outlives_the_engine(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let node =
        rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap").await.one().clone();
    let before = (pid_of("tgtd"), pid_of("dnsmasq"));
    assert!(before.0.is_some() && before.1.is_some());
    let (dir, keep) = rig.stop().await;
    assert_eq!((pid_of("tgtd"), pid_of("dnsmasq")), before, "stopping leaves them alone");
    let rig = Rig::real_at(&dir).await;
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs after a restart");
    assert_eq!((pid_of("tgtd"), pid_of("dnsmasq")), before);
    assert!(!login(&node).0, "CHAP: without the secret nobody gets in");
    let script = rig.run("node boot-script web1").await.one()["script"].as_str().unwrap().to_owned();
    let word = |key: &str| {
        script
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap_or_else(|| panic!("{key} in {script}"))
            .trim()
            .to_owned()
    };
    let (user, secret) = (word("set username "), word("set password "));
    let with = tries(&format!(
        "iscsi-inq -i {} iscsi://{user}%{secret}@{}/{}/1",
        node["initiator"].as_str().unwrap(),
        node["portal"].as_str().unwrap(),
        node["iqn"].as_str().unwrap()
    ));
    assert!(with.0, "{}", with.1);
    rig.run("node deprovision web1").await;
    rig.run("network rm net1").await;
    drop(keep);
}

fn login_as(node: &serde_json::Value, account: &serde_json::Value) -> (bool, String) {
    let text = |field: &str| account[field].as_str().unwrap_or_else(|| panic!("no {field} in {account}")).to_owned();
    let credentials = format!("{}%{}@", text("chap_user"), text("chap_secret"));
    let with = url(node).replacen("iscsi://", &format!("iscsi://{credentials}"), 1);
    tries(&format!("iscsi-inq -i {} {with}", node["initiator"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_that_was_handed_out_lets_the_machine_in_until_it_is_rotated() {
    if inside("whole::the_secret_that_was_handed_out_lets_the_machine_in_until_it_is_rotated") {
        asks_for_a_secret(&Store::Folder).await;
    }
}

pub async fn asks_for_a_secret(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let line = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap=out-of-band";
    let first = rig.run(line).await.one().clone();
    assert!(!login(&first).0, "without the secret nobody gets in");
    assert!(login_as(&first, &first).0, "{}", login_as(&first, &first).1);
    let script = rig.run("node boot-script web1").await.one()["script"].as_str().unwrap().to_owned();
    assert!(!script.contains(first["chap_secret"].as_str().unwrap()));

    // A machine that runs meanwhile: it reads for as long as it is asked to, and must not fail.
    let with = url(&first).replacen(
        "iscsi://",
        &format!("iscsi://{}%{}@", first["chap_user"].as_str().unwrap(), first["chap_secret"].as_str().unwrap()),
        1,
    );
    let mut machine = std::process::Command::new("iscsi-perf")
        .args(["-i", first["initiator"].as_str().unwrap(), "-b", "8", "-m", "4", "-t", "20", &with])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    rig.until("node show web1", |n| n["sessions"].as_array().is_some_and(|s| s.len() == 1)).await;
    let second = rig.run("node chap-secret web1 --rotate").await.one().clone();
    let sessions = rig.run("node show web1").await.one()["sessions"].as_array().unwrap().len();
    assert_eq!(sessions, 1, "the running machine keeps its session");
    assert!(machine.wait().unwrap().success(), "and its disk");
    assert!(!login_as(&first, &first).0, "the old secret is worth nothing");
    assert!(login_as(&first, &second).0, "{}", login_as(&first, &second).1);
    assert!(!login(&first).0);
    assert!(rig.run("reconcile").await.items.is_empty(), "nothing differs");
    rig.run("node deprovision web1").await;
    rig.run("network rm net1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_wrote_is_rolled_back_to_a_tag() {
    if inside("whole::what_a_node_wrote_is_rolled_back_to_a_tag") {
        is_rolled_back(&Store::Folder).await;
    }
}

pub async fn is_rolled_back(store: &Store<'_>) {
    let rig = Rig::real().await;
    store.ground(&rig).await;
    let node = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await.one().clone();
    rig.run("tag create web1 clean").await;
    let first = store.volumes(&rig);
    let clean = store.begins(&first[0]);
    write(&node);
    assert_ne!(store.begins(&first[0]), clean, "the machine's bytes are on its disk");
    rig.run("tag rollback web1 clean").await;
    let second = store.volumes(&rig);
    assert!(first.len() == 1 && second.len() == 1 && first != second, "another generation stands behind the LUN");
    assert_eq!(store.begins(&second[0]), clean);
    assert!(login(&node).0, "the same IQN serves it");
    rig.run("image create deep --from-node web1").await;
    rig.run("node rebase web1 --image deep --discard").await;
    rig.run("tag rm web1 clean").await;
    rig.run("node deprovision web1 --keep-volume").await;
    rig.run("network rm net1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_that_cannot_work_are_refused_and_leave_nothing() {
    if !inside("whole::networks_that_cannot_work_are_refused_and_leave_nothing") {
        return;
    }
    let rig = Rig::real().await;
    sh("ip link add eth2 type veth peer name x2; ip addr add 10.8.0.1/24 dev eth2");
    for (line, kind) in [
        ("network create a --interface eth1 --address 10.8.0.1/24", Kind::Conflict),
        ("network create a --interface eth1 --address 10.8.0.9/16", Kind::Conflict),
        ("network create a --interface eth9 --address 10.7.0.1/24", Kind::NotFound),
    ] {
        let fault = rig.refuse(line).await;
        assert_eq!(fault.kind, kind, "{line}: {fault}");
    }
    sh(&format!(
        "printf 'import socket,time\\ns=socket.socket();s.setsockopt(1,2,1);s.setsockopt(0,15,1);s.bind((\"10.9.0.1\",3260));s.listen();time.sleep(60)' > {}/squat.py",
        rig.dir.display()
    ));
    let mut squatter = std::process::Command::new("python3").arg(rig.dir.join("squat.py")).spawn().unwrap();
    for _ in 0..300 {
        if sh("ss -Hltn | wc -l").trim() != "0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let fault = rig.refuse("network create net1 --interface eth1 --address 10.9.0.1/24").await;
    assert!(fault.to_string().contains("3260"), "names the port: {fault}");
    squatter.kill().unwrap();
    squatter.wait().unwrap();
    assert_eq!((pid_of("tgtd"), pid_of("dnsmasq")), (None, None), "nothing is left");
    assert!(!sh("ip -br addr show eth1").contains("10.9.0.1"));
    assert!(rig.run("network ls").await.items.is_empty());
    rig.run("network create net1 --interface eth1 --address 10.9.0.1/24").await;
    let findings = rig.run("doctor").await;
    assert!(!findings.items.is_empty());
    rig.run("network rm net1").await;
}
