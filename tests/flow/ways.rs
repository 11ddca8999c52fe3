//! Which way the disks of a pool go to their machines: settled when the datastore is made, by what is asked for and what the
//! host's kernel can.

use bmi::model::Kind;

use crate::rig::Rig;

fn line(name: &str, more: &str) -> String {
    format!("datastore create {name} --kind rbd --pool {name} --conf /etc/ceph/a.conf --id u {more}")
}

async fn way(rig: &Rig, name: &str, more: &str) -> String {
    rig.run(&line(name, more)).await.one()["export"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_way_of_a_pools_disks_is_what_the_host_could_when_its_datastore_was_made() {
    let rig = Rig::new().await;
    assert_eq!(way(&rig, "old", "").await, "librbd", "the kernel cannot");
    let fault = rig.refuse(&line("new", "--export kernel")).await;
    assert!(fault.kind == Kind::Unavailable && fault.why.contains("no rbd module"), "{fault}");
    let fault = rig.refuse(&line("new", "--namespace tenants")).await;
    assert!(fault.why.contains("no rbd module") && fault.why.contains("namespaces"), "{fault}");
    assert!(!fault.fix.is_empty());

    std::fs::write(rig.dir.join("world/rbd-module"), "").unwrap();
    assert!(!rig.run(&line("old", "")).await.end.changed, "what stands keeps its way");
    assert_eq!(way(&rig, "old", "--export librbd").await, "librbd");
    assert_eq!(rig.refuse(&line("old", "--export kernel")).await.kind, Kind::Duplicate);
    assert_eq!(way(&rig, "new", "").await, "kernel", "where the kernel can, it does");
    assert!(!rig.run(&line("new", "--export kernel")).await.end.changed);
    assert_eq!(way(&rig, "third", "--export librbd").await, "librbd");
    assert_eq!(way(&rig, "tenants", "--namespace tenants").await, "kernel");
    let fault = rig.refuse(&line("more", "--namespace more --export librbd")).await;
    assert!(fault.kind == Kind::Invalid && fault.why.contains("namespaces"), "{fault}");
    let shown = rig.run("datastore show tenants").await;
    assert_eq!(
        (&shown.one()["export"], &shown.one()["path"]),
        (&"kernel".into(), &"rbd:tenants/tenants@/etc/ceph/a.conf".into())
    );
}
