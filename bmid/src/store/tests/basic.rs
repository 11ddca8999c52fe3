//! One write, one read; what a transaction sees of itself; what a fault leaves behind.

use super::*;

#[test]
fn a_first_start_makes_the_default_project_and_the_second_finds_it() {
    let t = temp();
    let engine = t.store.meta().engine;
    let state = t.path();
    let Temp { store, dir } = t;
    drop(store);
    let again = open(&state).unwrap();
    assert!(!again.fresh);
    assert_eq!(again.store.meta().engine, engine);
    let projects: Vec<Project> = again.store.read(|v| v.live()).unwrap();
    assert_eq!(projects.len(), 1);
    assert_eq!(projects[0].name, Owner::default_project());
    drop(dir);
}

#[test]
fn a_node_is_found_by_every_index_and_gone_from_all_of_them() {
    let t = temp();
    let n = node(1, "web");
    put(&t.store, &[n.clone().into()]).unwrap();
    let mac = bmi::model::record::mac_key(n.mac);
    t.store
        .read(|v| {
            assert_eq!(v.find(Index::NodeMac, &mac)?, Some(n.id));
            assert_eq!(v.live::<Node>()?, vec![n.clone()]);
            assert_eq!(v.ids(Index::NodesOf, &n.network.0)?, vec![n.id]);
            assert_eq!(v.usage(&n.owner)?.nodes, 1);
            Ok(())
        })
        .unwrap();
    put(&t.store, &[Change::delete(&n), Change::delete(&n)]).unwrap();
    t.store
        .read(|v| {
            assert_eq!(v.find(Index::NodeMac, &mac)?, None);
            assert_eq!(v.live::<Node>()?, vec![]);
            assert_eq!(v.ids(Index::NodesOf, &n.network.0)?, vec![]);
            assert_eq!(v.usage(&n.owner)?, Usage::default());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_key_that_another_row_holds_is_refused_by_name_and_nothing_is_applied() {
    let t = temp();
    put(&t.store, &[node(1, "web").into()]).unwrap();
    let twin = Node { mac: node(1, "x").mac, ..node(2, "db") };
    let fault = put(&t.store, &[node(3, "third").into(), twin.into()]).unwrap_err();
    assert_eq!(fault.kind, Kind::Duplicate);
    assert!(fault.to_string().contains("node_mac"), "{fault}");
    let all: Vec<Node> = t.store.read(|v| v.live()).unwrap();
    assert_eq!(all, vec![node(1, "web")]);
}

#[test]
fn a_transaction_sees_its_own_changes_in_every_way_of_reading() {
    let t = temp();
    put(&t.store, &[node(1, "a").into(), node(3, "c").into()]).unwrap();
    let fault = t
        .store
        .write(|tx| {
            tx.apply(&node(2, "b").into())?;
            tx.apply(&Change::delete(&node(3, "c")))?;
            let names: Vec<String> = tx.live::<Node>()?.iter().map(|n| n.name.to_string()).collect();
            assert_eq!(names, ["a", "b"]);
            assert_eq!(tx.usage(&owner("default"))?.nodes, 2);
            tx.apply(&Node { mac: node(3, "c").mac, ..node(4, "d") }.into())?;
            Err::<(), _>(Fault::conflict("no"))
        })
        .unwrap_err();
    assert_eq!(fault.kind, Kind::Conflict);
    assert_eq!(t.store.read(|v| v.usage(&owner("default"))).unwrap().nodes, 2);
    assert_eq!(t.store.read(|v| v.live::<Node>()).unwrap().len(), 2);
}
