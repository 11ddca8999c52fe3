//! Tags, rollbacks, deep snapshots and removals, of disks small and large, empty and with data.

use std::process::Command;
use std::time::Duration;

use super::super::client::{Client, request};
use super::super::figures::{Figures, line, ms, note, title};
use super::super::house::House;
use super::{POOL, Pooled, away};

const ROUNDS: usize = 7;
/// Of deep snapshots, behind each of which a whole disk is flattened.
const DEEP: usize = 3;
/// Size in GiB, and in how many places there is data.
const DISKS: [(u64, u64); 4] = [(10, 0), (10, 256), (100, 0), (100, 1_024)];

/// Measures and prints.
pub(super) fn run(house: &House, pooled: &mut Pooled) {
    for (gib, places) in DISKS {
        let data = if places == 0 {
            "never written".to_owned()
        } else {
            format!("data in {places} places, lately written by its machine")
        };
        title(&format!("pool: a disk of {gib} GiB, {data}"));
        one(house, pooled, gib << 30, places);
    }
}

fn one(house: &House, pooled: &mut Pooled, size: u64, places: u64) {
    let mut client = house.connect();
    let (mut tags, mut rollbacks, mut gone) = (Figures::default(), Figures::default(), Figures::default());
    let (mut deep, mut from) = (Figures::default(), Figures::default());
    disk(house, &mut client, pooled, "node", size, places);
    for round in 0..ROUNDS {
        tags.time(|| client.must(request(&format!("tag create node t{round}"))));
    }
    for round in 0..ROUNDS {
        rollbacks.time(|| client.must(request("tag rollback node t0")));
        quiet(pooled);
        if round % 2 == 0 && places > 0 {
            written(house, "node");
        }
    }
    for round in 0..DEEP {
        let usable = format!("node provision from --image deep --mac {} --network rack1", pooled.mac());
        deep.time(|| client.must(request("node snapshot node deep")));
        let usable = request(&usable);
        from.time(|| client.must(usable));
        away(&mut client, "from");
        client.must(request("image rm deep"));
        quiet(pooled);
        if round % 2 == 0 && places > 0 {
            written(house, "node");
        }
    }
    for round in 0..ROUNDS {
        let name = format!("gone{round}");
        disk(house, &mut client, pooled, &name, size, places / 4);
        gone.time(|| away(&mut client, &name));
        quiet(pooled);
    }
    for round in 0..ROUNDS {
        client.must(request(&format!("tag rm node t{round}")));
    }
    away(&mut client, "node");
    quiet(pooled);
    for (what, figures, goal) in [
        ("tag create", &tags, 100),
        ("tag rollback", &rollbacks, 300),
        ("node snapshot, usable when answered", &deep, 300),
        ("node deprovision", &gone, 500),
    ] {
        let found = format!("{} (worst of {}: {})", ms(figures.median()), figures.count(), ms(figures.worst()));
        line(what, &found, &format!("< {goal} ms"), figures.worst() < Duration::from_millis(goal));
    }
    let found = format!("{} (worst of {DEEP}: {})", ms(from.median()), ms(from.worst()));
    note("a node from it, while it is being flattened", &found);
}

/// A node whose disk has this size and so much data. Sizes come from images; a large one would take minutes to import.
fn disk(house: &House, client: &mut Client, pooled: &mut Pooled, name: &str, size: u64, places: u64) {
    let provision = pooled.one("rack1", name);
    let all = || pooled.ceph.tool(&["rbd", "ls", POOL]).lines().map(str::to_owned).collect::<Vec<_>>();
    let before = all();
    client.must(provision);
    let volume = all().into_iter().find(|i| !before.contains(i)).expect("a new image");
    pooled.pool.fill(&volume, size, places);
    if places > 0 {
        written(house, name);
    }
}

/// Its machine writes, so that tgtd holds the disk's lock.
fn written(house: &House, name: &str) {
    let shown = house.client().args(["node", "show", name, "-f", "json"]).output().expect("bmictl runs");
    let node: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let node = node.get(0).unwrap_or(&node);
    let text = |field: &str| node[field].as_str().unwrap_or_else(|| panic!("no {field} in {node}")).to_owned();
    let url = format!("iscsi://{}/{}/1", text("portal"), text("iqn"));
    let mut test = Command::new("iscsi-test-cu");
    test.args(["-i", &text("initiator"), "--dataloss", "--test=SCSI.Write16.Simple", &url]);
    let said = test.output().expect("iscsi-test-cu (package libiscsi-bin) runs").stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("...passed"), "{said}");
}

/// Waits until nothing is flattened or purged any more.
fn quiet(pooled: &Pooled) {
    let left = || pooled.ceph.tool(&["rados", "-p", POOL, "listomapkeys", "bmid.register"]).contains("flat.");
    while left() {
        std::thread::sleep(Duration::from_millis(100));
    }
    pooled.settle();
}
