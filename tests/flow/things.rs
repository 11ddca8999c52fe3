//! Datastores, networks, images, the journal's commands, rights.

use bmi::model::{Caller, Kind, Owner};
use bmi::protocol::Envelope;

use crate::disks::Disks;
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_in_use_stays() {
    let rig = Rig::new().await;
    let path = rig.dir.join("fast");
    let line = format!("datastore create fast --kind file --path {}", path.display());
    assert!(rig.run(&line).await.end.changed);
    assert!(!rig.run(&line).await.end.changed);
    assert_eq!(rig.refuse(&format!("datastore create other --path {}", path.display())).await.kind, Kind::Duplicate);
    for nested in [path.join("deeper"), path.join("./deeper/"), rig.dir.clone()] {
        let fault = rig.refuse(&format!("datastore create other --path {}", nested.display())).await;
        assert!(fault.kind == Kind::Duplicate && fault.why.contains("lies in"), "{fault}");
    }
    rig.ground().await;
    let held = rig.refuse("datastore rm default").await;
    assert_eq!(held.kind, Kind::Conflict);
    rig.run("datastore rm fast").await;
    assert_eq!(rig.refuse("datastore show fast").await.kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_refuse_what_cannot_work() {
    let rig = Rig::new().await;
    rig.ground().await;
    for (line, kind) in [
        ("network create a --interface eth1 --address 10.10.0.1/24", Kind::Conflict),
        ("network create a --interface eth2 --address 10.9.0.129/25", Kind::Conflict),
        ("network create a --interface none --address 10.10.0.1/24", Kind::NotFound),
        ("network create a --interface lo --address 10.10.0.1/24", Kind::Invalid),
        ("network create a --interface eth2 --address 10.10.0.1/24 --range 10.11.0.1-10.11.0.9", Kind::Invalid),
        ("network create a --interface eth2 --address 10.10.0.1/24 --range 10.10.0.1-10.10.0.9", Kind::Invalid),
        (
            "network create a --interface eth2 --address 10.10.0.1/24 --range 10.10.0.5-10.10.0.9 --dhcp off",
            Kind::Invalid,
        ),
        ("network create net1 --interface eth2 --address 10.10.0.1/24", Kind::Duplicate),
        ("network create a --interface ../x --address 10.10.0.1/24", Kind::Invalid),
    ] {
        let fault = rig.refuse(line).await;
        assert_eq!(fault.kind, kind, "{line}: {fault}");
    }
    let before = rig.world();
    rig.run("network create a --interface eth2 --address 10.10.0.1/24 --dhcp proxy").await;
    rig.run("network rm a").await;
    assert_eq!(rig.world(), before);
}

on_both!(images_are_renamed_copied_exported_and_removed);
async fn images_are_renamed_copied_exported_and_removed(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let image = rig.run("image show golden").await;
    assert_eq!(image.one()["status"], "active");
    assert_eq!(image.one()["sha256"], image.one()["raw_sha256"]);
    rig.run("image copy golden second").await;
    rig.run("image rename second third").await;
    assert_eq!(rig.refuse("image rename third golden").await.kind, Kind::Duplicate);
    rig.run("node provision web1 --image third --mac 52:54:00:00:00:01 --network net1").await;
    rig.run("image rm third").await;
    assert_eq!(rig.run("node show web1").await.one()["state"], "ready", "a node outlives its image");
    assert_eq!(rig.refuse("node reprovision web1").await.kind, Kind::Conflict);
    rig.run("image create fresh --from-node web1").await;
    assert_eq!(rig.run("image show fresh").await.one()["is_snapshot"], true);
    let out = rig.dir.join("out.raw");
    rig.run(&format!("image export golden {}", out.display())).await;
    assert_eq!(rig.run("image formats").await.items.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_act() {
    let rig = Rig::new().await;
    let stranger = || Caller {
        uid: Some(1000),
        name: "mallory".to_owned(),
        admin: false,
        project: "mallory".parse::<Owner>().unwrap(),
    };
    let fault = rig.ask(stranger(), Envelope::default(), "image ls").await.unwrap_err();
    assert_eq!(fault.kind, Kind::Forbidden);
    rig.ask(stranger(), Envelope::default(), "status").await.unwrap();
    let other = Envelope { project: Some(Owner::default_project()), ..Envelope::default() };
    assert_eq!(rig.ask(stranger(), other, "status").await.unwrap_err().kind, Kind::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_in_events_and_operations() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    let events = rig.run("event ls").await;
    let made = events.items.iter().find(|e| e["method"] == "node.provision").expect("an event");
    assert_eq!((made["outcome"].as_str(), made["caller"].as_str()), (Some("done"), Some("root")));
    assert!(rig.run("op ls").await.items.is_empty());
    let all = rig.run("op ls --all").await;
    assert!(all.items.iter().any(|o| o["method"] == "image.import" && o["state"] == "done"));
    let id = made["operation"].as_str().unwrap().to_owned();
    assert_eq!(rig.run(&format!("op show {id}")).await.one()["state"], "done");
    assert_eq!(rig.refuse(&format!("op cancel {id}")).await.kind, Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restores_onto_an_empty_host() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap").await;
    let dump = rig.dir.join("dump.jsonl");
    rig.run(&format!("state dump {}", dump.display())).await;
    let text = std::fs::read_to_string(&dump).unwrap();
    assert!(text.contains("web1"));
    assert_eq!(
        rig.refuse(&format!("state restore {}", dump.display())).await.kind,
        Kind::Conflict,
        "only into an empty store"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_there_is() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    // What does not answer at once is not known to be healthy.
    let s = rig.until("status", |s| s["healthy"] == true).await;
    assert_eq!((s["nodes_ready"].as_u64(), s["images"].as_u64()), (Some(1), Some(1)), "{s}");
    assert_eq!(s["usage"]["nodes"], 1);
    rig.run("doctor").await;
}

on_both!(an_import_that_goes_on_is_told_to_whoever_asks_for_it_again);
async fn an_import_that_goes_on_is_told_to_whoever_asks_for_it_again(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    let line = format!("image import {} --name other --format raw", rig.disk("other", b"bytes"));
    rig.faults("hang storage.import.before 1 8\n");
    let first = async { rig.try_run(&line).await };
    let second = async {
        rig.until("op ls", |op| op["method"] == "image.import").await;
        rig.refuse(&line).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.unwrap().end.changed);
    assert!(second.kind == Kind::Busy && second.fix.contains("bmictl op watch"), "{second}");
    assert_eq!(rig.refuse(&line).await.kind, Kind::Duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_pool_is_taken_over_and_in_place_it_is_told_where() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.run("datastore create pool --kind rbd --pool bmi --conf /etc/ceph/ceph.conf --id bmi").await;
    let cloned = rig.run("image import --from-rbd vms/debian@ready --name debian --datastore pool").await;
    let place = "bmi/debian";
    let within = rig.run(&format!("image import --from-rbd {place} --in-place --name here --datastore pool")).await;
    for (image, location) in [(cloned, serde_json::Value::Null), (within, place.into())] {
        let shown = image.one();
        assert_eq!((&shown["status"], &shown["source_format"]), (&"active".into(), &"raw".into()));
        assert!(shown["sha256"] == shown["raw_sha256"] && shown["sha256"].is_string() && shown["size_bytes"] != 0);
        assert_eq!(shown["location"], location);
    }
    rig.run("node provision web1 --image here --mac 52:54:00:00:00:01 --network net1").await;
    for (line, kind, fix) in [
        ("--from-rbd vms/debian --name a", Kind::Invalid, "rbd export vms/debian - | bmictl image import -"),
        ("--from-rbd vms/debian --in-place --name a --datastore pool", Kind::Invalid, "leave --in-place out"),
        ("--from-rbd bmi/debian --format qcow2 --name a --datastore pool", Kind::Invalid, "leave --format out"),
        ("--from-rbd bmi/debian --name here --datastore pool", Kind::Duplicate, "choose another name"),
    ] {
        let fault = rig.refuse(&format!("image import {line}")).await;
        assert!(fault.kind == kind && fault.fix.contains(fix), "{line}: {fault}");
    }
    rig.run("node deprovision web1").await;
    rig.run("image rm here").await;
    rig.run("image rm debian").await;
    rig.run("datastore rm pool").await;
}

on_both!(volumes_and_tags_are_told_with_the_place_of_their_bytes);
async fn volumes_and_tags_are_told_with_the_place_of_their_bytes(on: Disks) {
    let rig = Rig::on(on).await;
    rig.ground().await;
    rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1").await;
    rig.run("tag create web1 clean").await;
    rig.run("tag rollback web1 clean").await;
    let world = rig.world();
    let id = rig.run("node show web1").await.one()["volume"].as_str().unwrap().to_owned();
    for (line, folder, file, pool) in [
        (format!("volume show {id}"), "volumes", "/volumes/NAME.raw", ".v.NAME"),
        ("tag show web1 clean".to_owned(), "snapshots", "/snapshots/NAME.raw", "/*@bmi.NAME"),
    ] {
        let shown = rig.run(&line).await.one().clone();
        let text = |field: &str| shown[field].as_str().unwrap_or_else(|| panic!("{field}: {shown}"));
        assert_eq!(text("datastore"), on.datastore());
        let name = text("outside_name");
        let object = format!("{folder}/{name}");
        assert!(world.iter().any(|o| o.replace("%2F", "/").ends_with(&object)), "{shown}: {world:?}");
        let wanted = if on == Disks::Pool { pool } else { file };
        let location = text("location");
        assert!(location.ends_with(&wanted.replace("NAME", name)), "{shown}");
        assert_eq!(location.starts_with("rbd:tests"), on == Disks::Pool, "{shown}");
    }
}
