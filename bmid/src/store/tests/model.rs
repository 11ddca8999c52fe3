//! The store against a plain map: whatever is put, changed, deleted or refused, rows, indexes and usage are what a brute
//! search over the map says.

use std::collections::BTreeMap;

use bmi::rules::usage as counting;
use proptest::prelude::*;

use super::*;

type Model = BTreeMap<(u8, Id), Row>;

/// Ids are random outside tests, so no two tables share one.
fn nth(table: Table, n: u8) -> Id {
    id(table as u8 * 10 + n)
}

fn name(n: u8) -> Name {
    format!("n{n}").parse().unwrap()
}

fn whose(n: u8) -> Owner {
    owner(["default", "alice", "al"][usize::from(n % 3)])
}

/// A change over so few ids, names and owners that they collide all the time.
fn change() -> impl Strategy<Value = Change> {
    (0u8..6, 1u8..5, 0u8..4, 0u8..3, 0u64..4, any::<bool>()).prop_map(|(kind, n, called, by, size, gone)| {
        let deleted_at = gone.then_some(Time(5));
        let size_bytes = Bytes(size * ((1 << 30) - 1));
        let table = [Table::Node, Table::Volume, Table::Image, Table::Snapshot, Table::Network]
            [usize::from(if kind == 5 { called } else { kind })];
        let (i, name, owner) = (nth(table, n), name(called), whose(by));
        match kind {
            0 => Node { id: i, owner, name, mac: node(called + 1, "x").mac, ..node(called, "x") }.into(),
            1 => {
                let image = gone.then_some(id(called));
                let v = Volume { id: i, owner, image, size_bytes, ..samples::volume() };
                Volume { deleted_at: if size == 3 { deleted_at } else { None }, ..v }.into()
            }
            2 => Image { id: i, owner, name, size_bytes, deleted_at, ..samples::image() }.into(),
            3 => {
                let tag_of = gone.then_some(id(by));
                Snapshot { id: i, owner, name, node: tag_of, size_bytes, ..samples::snapshot() }.into()
            }
            4 => Network { id: i, owner: Some(owner), name, slot: u16::from(called), ..samples::network() }.into(),
            _ => Change::Delete(table, i),
        }
    })
}

/// Applies a change to the map, refusing what breaks a unique index.
fn apply(model: &mut Model, change: &Change) -> Result<(), ()> {
    let (table, id) = change.key();
    match change {
        Change::Delete(..) => {
            model.remove(&(table as u8, id));
        }
        Change::Put(row) => {
            let keys = row.indexes();
            let taken = model.iter().any(|(key, other)| {
                *key != (table as u8, id) && other.indexes().iter().any(|e| e.unique && keys.contains(e))
            });
            if taken {
                return Err(());
            }
            model.insert((table as u8, id), row.clone());
        }
    }
    Ok(())
}

fn agrees(view: &dyn View, model: &Model) -> Result<(), Fault> {
    for table in [Table::Node, Table::Volume, Table::Image, Table::Snapshot, Table::Network] {
        for n in 1..5 {
            assert_eq!(view.row(table, nth(table, n))?.as_ref(), model.get(&(table as u8, nth(table, n))));
        }
        let live: Vec<Id> = model
            .iter()
            .filter(|((t, _), row)| *t == table as u8 && !row.indexes().is_empty())
            .map(|((_, id), _)| *id)
            .collect();
        assert_eq!(view.ids(Index::Live, &[table as u8])?, live);
    }
    for row in model.values() {
        for e in row.indexes() {
            let under: Vec<Id> = model
                .values()
                .filter(|r| r.indexes().contains(&e))
                .map(Row::id)
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            if e.unique {
                assert_eq!(view.find(e.index, &e.key)?, Some(row.id()));
            } else {
                let mut found = view.ids(e.index, &e.key)?;
                found.dedup();
                assert_eq!(found, under);
            }
        }
    }
    for n in 0..3 {
        let mut sum = Usage::default();
        for (_, one) in model.values().filter_map(counting::count).filter(|(o, _)| *o == whose(n)) {
            sum = counting::plus(&sum, &one);
        }
        assert_eq!(view.usage(&whose(n))?, sum);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rows_indexes_and_usage_are_what_a_plain_map_says(
        writes in prop::collection::vec((prop::collection::vec(change(), 1..5), any::<bool>(), 0u8..4), 1..24),
    ) {
        let t = temp();
        let mut model = Model::new();
        for (changes, keep, turn) in writes {
            // What was committed lies in the log's newest layer, on its way into sled, or in sled.
            match turn {
                0 => t.store.inner.core.catch_up(),
                1 => drop(t.store.inner.core.turn_if_ahead()),
                _ => {}
            }
            let mut next = model.clone();
            let wanted = changes.iter().try_for_each(|c| apply(&mut next, c));
            let done = t.store.write(|tx| {
                for c in &changes {
                    let before = tx.before(c)?;
                    assert_eq!(before, tx.row(c.key().0, c.key().1)?);
                    tx.apply(c)?;
                }
                agrees(tx, &next)?;
                if keep { Ok(()) } else { Err(Fault::conflict("not kept")) }
            });
            match (wanted, keep, done) {
                (Ok(()), true, Ok(_)) => model = next,
                (Ok(()), false, Err(f)) => prop_assert_eq!(f.kind, Kind::Conflict),
                (Err(()), _, Err(f)) => prop_assert_eq!(f.kind, Kind::Duplicate),
                (wanted, keep, done) => prop_assert!(false, "{:?} {} {:?}", wanted, keep, done.map(|_| ())),
            }
            t.store.read(|v| agrees(v, &model)).unwrap();
        }
        let problems = t.store.check().unwrap();
        let wrong: Vec<_> = problems.iter().filter(|p| !p.contains("does not exist") && !p.contains("is not open")).collect();
        prop_assert!(wrong.is_empty(), "{:?}", wrong);
        // And the same after a restart.
        let state = t.path();
        let Temp { store, dir } = t;
        drop(store);
        open(&state).unwrap().store.read(|v| agrees(v, &model)).unwrap();
        drop(dir);
    }
}
