//! Every kind of damage is found and named; a store without damage has no finding.

use super::*;

fn whole() -> Temp {
    let t = temp();
    let rows: Vec<Change> = samples::rows().into_iter().map(Change::Put).collect();
    put(&t.store, &rows).unwrap();
    let write = |tx: &mut Tx<'_>| {
        tx.put_intent(&samples::intent(90))?;
        tx.put_part(&Part { script: vec![1; 10_000], ..samples::part(90, 0) })?;
        tx.put_event(&samples::event(1, 1))
    };
    t.store.write(write).unwrap().1.wait().unwrap();
    assert_eq!(t.store.check().unwrap(), Vec::<String>::new());
    assert_eq!(t.store.verify_usage().unwrap(), []);
    t
}

/// Does damage behind the store's back; the findings must be exactly those that hold the given words.
fn damage(what: &str, f: impl FnOnce(&sled::Db), words: &[&str]) {
    let t = whole();
    f(t.db());
    let found = t.store.check().unwrap();
    assert_eq!(found.len(), words.len(), "{what}: {found:#?}");
    for word in words {
        assert!(found.iter().any(|p| p.contains(word)), "{what}: no finding says {word:?}: {found:#?}");
    }
}

fn mac_entry() -> Vec<u8> {
    tables::unique(Index::NodeMac, &bmi::model::record::mac_key(samples::full_node().mac))
}

#[test]
fn index_entries_without_rows_and_rows_without_entries_are_found() {
    damage("lost", |db| drop(db.remove(mac_entry()).unwrap()), &["it is missing"]);
    damage(
        "alien",
        |db| drop(db.insert(tables::unique(Index::NodeMac, b"zzzzzz"), &[7; 16]).unwrap()),
        &["no row wants it"],
    );
    damage("misled", |db| drop(db.insert(mac_entry(), &[7; 16]).unwrap()), &["no row wants it"]);
}

#[test]
fn counters_that_drifted_are_found_and_a_recount_says_by_how_much() {
    let wrong = |db: &sled::Db| {
        let key = tables::usage(&owner("default"));
        db.insert(key, codec::encode(&Usage { nodes: 5, ..Usage::default() }).unwrap()).unwrap();
    };
    damage("drift", wrong, &["usage of default"]);
    let t = whole();
    wrong(t.db());
    let drift = t.store.verify_usage().unwrap();
    assert_eq!((drift.len(), drift[0].stored.nodes, drift[0].counted.nodes), (1, 5, 1));
    assert_eq!(drift[0].counted.gigabytes, 10);
}

#[test]
fn rows_that_do_not_decode_or_lie_about_their_id_are_found_and_not_blamed_twice() {
    let key = |t, i| tables::row(t, i);
    // What the damaged row no longer says leaves its index entries and its count behind.
    damage(
        "undecodable",
        |db| drop(db.insert(key(Table::Project, id(20)), &[1, 2]).unwrap()),
        &["does not decode", "no row wants it", "no row wants it"],
    );
    damage(
        "lying",
        |db| {
            let other = codec::encode_row(&Project { id: id(66), ..samples::project() }.into()).unwrap();
            db.insert(key(Table::Project, id(20)), other).unwrap();
        },
        &["its row says it is", "no row wants it", "no row wants it"],
    );
    damage("unknown table", |db| drop(db.insert([0x3f, 1], &[]).unwrap()), &["no table has such keys"]);
}

#[test]
fn broken_references_are_found() {
    let t = whole();
    put(&t.store, &[Change::delete(&samples::image())]).unwrap();
    let found = t.store.check().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|p| p.contains("its image") && p.contains("does not exist")), "{found:?}");
    put(&t.store, &[Change::delete(&samples::server())]).unwrap();
    // Two datastores and an engine are gone with it.
    assert_eq!(t.store.check().unwrap().len(), 5);
}

#[test]
fn a_journal_with_parts_missing_or_left_behind_is_found() {
    damage(
        "no parts",
        |db| drop(db.remove(tables::part(id(90), 0)).unwrap()),
        &["0 of its 1 parts", "a piece of", "a piece of", "a piece of"],
    );
    damage(
        "one too many",
        |db| {
            let extra = codec::encode(&codec::StoredPart::new(&samples::part(90, 4)).unwrap()).unwrap();
            db.insert(tables::part(id(90), 4), extra).unwrap();
        },
        &["part 4 of intent"],
    );
    let piece = tables::chunk(&tables::part(id(90), 0), 1);
    damage("a piece lost", |db| drop(db.remove(piece).unwrap()), &["piece 1 of 3 is missing", "0 of its 1 parts"]);
    damage("a torn event", |db| drop(db.insert(tables::event(Time(1), id(1)), &[1]).unwrap()), &["event "]);
}

#[test]
fn an_object_held_by_an_operation_that_is_not_open_is_found() {
    let t = whole();
    t.store.write(|tx| tx.drop_intent(id(90))).unwrap().1.wait().unwrap();
    let found = t.store.check().unwrap();
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found.iter().all(|p| p.contains("is not open")), "{found:?}");
}
