//! The dump holds everything that cannot be derived, goes back whole or not at all, and says when it is not whole.

use super::*;

/// A store with something in every table.
fn full() -> Temp {
    let t = temp();
    let rows: Vec<Change> = samples::rows().into_iter().map(Change::Put).collect();
    put(&t.store, &rows).unwrap();
    let write = |tx: &mut Tx<'_>| {
        tx.put_intent(&samples::intent(90))?;
        tx.put_part(&Part { script: vec![3; 9_000], ..samples::part(90, 0) })?;
        tx.put_answer(&samples::answer(91, Time(20)))?;
        (1..=5).try_for_each(|n| tx.put_event(&samples::event(u64::from(n), n)))
    };
    t.store.write(write).unwrap().1.wait().unwrap();
    assert_eq!(t.store.check().unwrap(), Vec::<String>::new());
    t
}

fn dump(store: &Store) -> String {
    let mut out = Vec::new();
    store.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_dump_restored_and_dumped_again_is_the_same_to_the_byte() {
    let (from, to) = (full(), temp());
    let text = dump(&from.store);
    let engine = from.store.meta().engine;
    assert_eq!(to.store.restore(&mut text.as_bytes()).unwrap(), text.lines().count() as u64 - 2);
    assert_eq!(dump(&to.store), text);
    assert_eq!(to.store.check().unwrap(), Vec::<String>::new());
    assert_eq!(to.store.meta().engine, engine);
    assert_eq!(to.store.parts(id(90)).unwrap(), from.store.parts(id(90)).unwrap());
    let usage = |s: &Store| s.read(|v| v.usage(&owner("default"))).unwrap();
    assert_eq!(usage(&to.store), usage(&from.store));
    assert_eq!(usage(&to.store).nodes, 1);
    let state = to.path();
    let Temp { store, dir } = to;
    drop(store);
    assert_eq!(dump(&open(&state).unwrap().store), text);
    drop(dir);
}

#[test]
fn every_line_names_its_table_and_version_and_the_store_comes_first() {
    let text = dump(&full().store);
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["table"], "meta");
    assert_eq!(lines.last().unwrap()["table"], "end");
    for line in &lines {
        assert!(line["version"].is_u64() && line["row"].is_object(), "{line}");
    }
    for table in Table::ALL {
        assert!(lines.iter().any(|l| l["table"] == table.as_str()), "{}", table.as_str());
    }
}

#[test]
fn a_dump_goes_only_into_an_empty_store() {
    let (from, to) = (full(), temp());
    let text = dump(&from.store);
    put(&to.store, &[node(9, "mine").into()]).unwrap();
    let before = dump(&to.store);
    assert_eq!(to.store.restore(&mut text.as_bytes()).unwrap_err().kind, Kind::Conflict);
    assert_eq!(dump(&to.store), before);
    let with_event = temp();
    with_event.store.write(|tx| tx.put_event(&samples::event(1, 1))).unwrap().1.wait().unwrap();
    with_event.store.restore(&mut text.as_bytes()).expect("what bmid noted of its first start makes room");
    assert_eq!(dump(&with_event.store), text);
}

#[test]
fn a_damaged_dump_restores_nothing() {
    let to = temp();
    let before = dump(&to.store);
    let text = dump(&full().store);
    let lines: Vec<&str> = text.lines().collect();
    let join = |l: &[&str]| l.join("\n") + "\n";
    let mut newer = lines.clone();
    let raised = lines[4].replace("\"version\":1", "\"version\":2");
    newer[4] = &raised;
    let mut unknown = lines.clone();
    unknown.insert(3, r#"{"table":"wish","version":1,"row":{}}"#);
    let mut twice = lines.clone();
    let other = r#"{"table":"project","version":1,"row":{"id":"0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b","name":"alice","created_at":"2026-01-01T00:00:00Z"}}"#;
    twice.insert(2, other);
    let count = format!(r#"{{"table":"end","version":1,"row":{{"lines":{}}}}}"#, lines.len());
    *twice.last_mut().unwrap() = &count;
    for (what, bad) in [
        ("empty", String::new()),
        ("no store's record", join(&lines[1..])),
        ("cut at a line", join(&lines[..lines.len() - 1])),
        ("cut in a line", text[..text.len() / 2].to_owned()),
        ("a line lost", join(&[&lines[..5], &lines[6..]].concat())),
        ("a newer row", join(&newer)),
        ("an unknown table", join(&unknown)),
        ("two rows with one name", join(&twice)),
        ("not JSON", text.replace("\"row\"", "row")),
    ] {
        let fault = to.store.restore(&mut bad.as_bytes()).expect_err(what);
        assert!(matches!(fault.kind, Kind::Corrupt | Kind::Duplicate), "{what}: {fault}");
        assert_eq!(dump(&to.store), before, "{what}");
    }
    to.store.restore(&mut text.as_bytes()).unwrap();
}

#[test]
fn a_dump_shows_no_secret_in_the_clear() {
    // Sealed bytes are ciphertext; what must not happen is that a dump says more than they do.
    let text = dump(&full().store);
    let target = text.lines().find(|l| l.starts_with(r#"{"table":"target""#)).unwrap();
    assert!(target.contains(r#""secret":[1,2,3]"#), "{target}");
}

#[test]
fn the_hourly_dump_keeps_the_newest_and_leaves_no_half_file() {
    let t = full();
    let folder = t.path().join("dumps");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("new.tmp"), b"half of an earlier one").unwrap();
    std::fs::write(folder.join("note.txt"), b"somebody else's").unwrap();
    for hour in 0..5 {
        t.store.dump_to(&folder, 3, Time(hour * 3_600_000_000)).unwrap();
    }
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "bmid-1970-01-01T02-00-00.000000Z.jsonl",
            "bmid-1970-01-01T03-00-00.000000Z.jsonl",
            "bmid-1970-01-01T04-00-00.000000Z.jsonl",
            "note.txt"
        ]
    );
    assert_eq!(std::fs::read_to_string(folder.join(&names[2])).unwrap(), dump(&t.store));
}

#[test]
fn many_dumps_within_an_hour_push_out_no_hour_before_it() {
    let t = full();
    let folder = t.path().join("dumps");
    let hour = |h: u64, minute: u64| Time((h * 3_600 + minute * 60) * 1_000_000);
    for h in 0..60 {
        t.store.dump_to(&folder, 48, hour(h, 0)).unwrap();
    }
    for minute in 1..50 {
        t.store.dump_to(&folder, 48, hour(59, minute)).unwrap();
    }
    let kept: Vec<String> =
        open::dumps(&folder).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(kept.len(), 48);
    let newest: Vec<&str> = kept[42..].iter().map(|n| &n[5..21]).collect();
    let wanted: Vec<String> = (44..50).map(|m| format!("1970-01-03T11-{m}")).collect();
    assert_eq!(newest, wanted, "the newest six are there, whatever their age");
    let hours: std::collections::BTreeSet<&str> = kept.iter().map(|n| &n[5..18]).collect();
    assert_eq!(hours.len(), 43, "42 hours before this one have theirs: {kept:?}");
}

#[test]
fn a_dump_that_is_not_done_in_time_is_given_up_without_a_trace() {
    let t = full();
    let folder = t.path().join("dumps");
    let long_ago = std::time::Instant::now() - std::time::Duration::from_secs(1);
    let fault = t.store.dump_until(&folder, 3, Time(1), Some(long_ago)).unwrap_err();
    assert_eq!(fault.kind, Kind::Timeout, "{fault}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(t.store.last_dump().is_none());
    t.store.dump_to(&folder, 3, Time(1)).unwrap();
    assert!(t.store.last_dump().is_some());
}

#[test]
fn a_slow_reader_of_a_dump_does_not_hold_up_the_writer() {
    struct Slow<'a>(&'a Store, u8);
    impl std::io::Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // Would wait for ever if the dump held the gate while it writes.
            self.1 = self.1.wrapping_add(1);
            put(self.0, &[node(100, &format!("n{}", self.1)).into()]).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let t = full();
    let wanted = dump(&t.store).lines().count() as u64;
    assert_eq!(t.store.dump(&mut Slow(&t.store, 0)).unwrap(), wanted);
}
