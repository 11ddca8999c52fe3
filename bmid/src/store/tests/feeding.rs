//! From the log into sled: at every moment all commits are seen, and after any end of the process all durable ones are back.

use std::fs;

use super::super::log::{self, Files};
use super::*;

/// The process ends here: nothing more gets into sled, and the folder is free.
fn die(t: Temp) -> (tempfile::TempDir, PathBuf) {
    t.store.inner.core.commits.fail(Fault::new(Kind::Unavailable, "the process dies"));
    let path = t.path();
    let Temp { store, dir } = t;
    drop(store);
    (dir, path)
}

fn nodes(store: &Store) -> Vec<Node> {
    let mut all: Vec<Node> = store.read(|v| v.live()).unwrap();
    all.sort_by_key(|n| n.id);
    all
}

fn reached(db: &sled::Db) -> u64 {
    feed::read_reached(&db.get([tables::REACHED]).unwrap().unwrap()).unwrap()
}

fn refused(path: &Path) -> OpenError {
    match open(path) {
        Ok(_) => panic!("the store opened"),
        Err(e) => e,
    }
}

#[test]
fn what_is_durable_is_in_the_log_alone_and_comes_back_from_it() {
    let t = temp();
    put(&t.store, &[node(1, "a").into(), node(2, "b").into()]).unwrap();
    put(&t.store, &[Change::Delete(Table::Node, id(1))]).unwrap();
    assert_eq!(t.store.inner.core.db.get(tables::row(Table::Node, id(2))).unwrap(), None);
    let (dir, path) = die(t);
    let again = open(&path).unwrap();
    assert_eq!(nodes(&again.store), [node(2, "b")]);
    let db = &again.store.inner.core.db;
    assert!(db.get(tables::row(Table::Node, id(2))).unwrap().is_some());
    assert_eq!(reached(db), 2);
    assert!(again.store.check().unwrap().iter().all(|p| p.contains("network")));
    drop(dir);
}

#[test]
fn sled_half_fed_is_fed_again_and_never_goes_backwards() {
    let t = temp();
    for n in 1..40 {
        put(&t.store, &[node(n, &format!("n{n}")).into()]).unwrap();
    }
    let wanted = nodes(&t.store);
    let db = t.store.inner.core.db.clone();
    let (dir, path) = die(t);
    // As a feeder leaves it that dies in the middle: some keys, and not how far.
    let (changes, last) = log::replay(&path.join("db"), 0).ok().unwrap();
    for (key, value) in changes.iter().step_by(3) {
        if let Some(value) = value {
            db.insert(key, value).unwrap();
        }
    }
    db.flush().unwrap();
    drop(db);
    let again = open(&path).unwrap();
    assert_eq!(nodes(&again.store), wanted);
    assert_eq!(reached(&again.store.inner.core.db), last);
    // What came since is newer than the log's earlier round, which lies behind it in the file.
    put(&again.store, &[Node { cause: Some("since".into()), ..node(1, "n1") }.into()]).unwrap();
    let Temp { store, dir } = Temp { store: again.store, dir };
    let (dir, path) = die(Temp { store, dir });
    let third = open(&path).unwrap();
    assert_eq!(nodes(&third.store)[0].cause.as_deref(), Some("since"));
    assert_eq!(nodes(&third.store).len(), wanted.len());
    drop(dir);
}

#[test]
fn the_log_takes_turns_while_readers_see_every_commit() {
    let t = temp();
    for k in 0..60u32 {
        let all: Vec<Change> = (1..30)
            .map(|n| Node { cause: Some(format!("{k} {}", "x".repeat(300))), ..node(n, &format!("g{k}-{n}")) }.into())
            .collect();
        let ((), ticket) = t.store.write(|tx| all.iter().try_for_each(|c| tx.apply(c))).unwrap();
        let seen = nodes(&t.store);
        assert_eq!(seen.len(), 29);
        assert!(seen.iter().all(|n| n.cause.as_ref().is_some_and(|c| c.starts_with(&format!("{k} ")))));
        ticket.wait().unwrap();
    }
    // Two files of 64 KiB hold a few of these commits each.
    let db = t.db();
    assert_eq!(reached(db), 60);
    assert_eq!(t.store.check().unwrap().iter().filter(|p| !p.contains("network")).count(), 0);
}

#[test]
fn a_commit_larger_than_the_logs_files_is_kept_and_the_file_shrinks_again() {
    let t = temp();
    let huge = Part { script: vec![7; 3 << 20], ..samples::part(90, 0) };
    let write = |tx: &mut Tx<'_>| {
        tx.put_intent(&samples::intent(90))?;
        tx.put_part(&huge)
    };
    t.store.write(write).unwrap().1.wait().unwrap();
    let longest = || {
        let len = |n: &str| fs::metadata(t.path().join("db").join(n)).unwrap().len();
        len("log.0").max(len("log.1"))
    };
    assert!(longest() > 3 << 20);
    assert_eq!(t.store.part(id(90), 0).unwrap().as_ref(), Some(&huge));
    t.db();
    assert_eq!(longest(), options().log_bytes);
    assert_eq!(t.store.part(id(90), 0).unwrap().as_ref(), Some(&huge));
    // And where the process dies before sled has it.
    t.store.write(|tx| tx.put_part(&Part { index: 1, ..huge.clone() })).unwrap().1.wait().unwrap();
    let (dir, path) = die(t);
    let again = open(&path).unwrap();
    assert_eq!(again.store.part(id(90), 1).unwrap(), Some(Part { index: 1, ..huge }));
    drop(dir);
}

#[test]
fn a_store_from_before_the_log_opens_and_gets_one() {
    let t = temp();
    put(&t.store, &[node(1, "web").into()]).unwrap();
    let path = t.path();
    let Temp { store, dir } = t;
    drop(store);
    let db = sled::open(path.join("db")).unwrap();
    db.remove([tables::REACHED]).unwrap();
    let meta: Meta = codec::decode(&db.get([tables::META]).unwrap().unwrap()).unwrap();
    db.insert([tables::META], codec::encode(&Meta { schema: SCHEMA - 2, ..meta }).unwrap()).unwrap();
    db.flush().unwrap();
    drop(db);
    // One of the two files may be there already, from a start that was cut off.
    fs::remove_file(path.join("db/log.0")).unwrap();
    let again = open(&path).unwrap();
    assert!(!again.fresh);
    assert_eq!(nodes(&again.store), [node(1, "web")]);
    // sled itself tells the earlier release that this is not for it any more.
    let row = again.store.inner.core.db.get([tables::META]).unwrap().unwrap();
    assert_eq!(codec::decode::<Meta>(&row).unwrap().schema, SCHEMA);
    drop(dir);
}

#[test]
fn a_log_of_a_newer_release_is_refused_and_left_alone_and_a_missing_one_is_damage() {
    let t = temp();
    put(&t.store, &[node(1, "web").into()]).unwrap();
    let (dir, path) = die(t);
    let file = path.join("db/log.0");
    let good = fs::read(&file).unwrap();
    let mut newer = good.clone();
    newer[8] = log::VERSION + 1;
    let crc = crc32fast::hash(&newer[..28]);
    newer[28..32].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, &newer).unwrap();
    for _ in 0..2 {
        let e = refused(&path);
        assert!(matches!(e, OpenError::NewerLog { .. }), "{e}");
        assert!(e.to_string().contains("version 2, this release knows 1"), "{e}");
    }
    assert_eq!(fs::read(&file).unwrap(), newer);
    fs::write(&file, &good).unwrap();
    assert_eq!(nodes(&open(&path).unwrap().store), [node(1, "web")]);
    fs::remove_file(&file).unwrap();
    let OpenError::Corrupt { why, moved_to, .. } = refused(&path) else { panic!("another refusal") };
    assert!(why.contains("log.0"), "{why}");
    assert!(moved_to.join("log.1").exists());
    drop(dir);
}

#[test]
fn a_damaged_log_is_said_plainly_and_moved_aside_with_its_store() {
    let t = temp();
    for n in 1..6 {
        put(&t.store, &[node(n, &format!("n{n}")).into()]).unwrap();
    }
    let (dir, path) = die(t);
    let file = path.join("db/log.0");
    let mut bytes = fs::read(&file).unwrap();
    bytes[log::BLOCK + 40] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let OpenError::Corrupt { why, moved_to, .. } = refused(&path) else { panic!("another refusal") };
    assert!(why.contains("log is damaged") && why.contains("nothing follows commit 0"), "{why}");
    assert_eq!(fs::read(moved_to.join("log.0")).unwrap(), bytes);
    assert!(open(&path).unwrap().fresh);
    drop(dir);
}

#[test]
fn a_log_that_was_cut_off_is_damage_wherever_it_ends() {
    for length in [0, 100, log::BLOCK as u64, 2 * log::BLOCK as u64, options().log_bytes - 1] {
        let t = temp();
        for n in 1..6 {
            put(&t.store, &[node(n, &format!("n{n}")).into()]).unwrap();
        }
        let (dir, path) = die(t);
        fs::File::options().write(true).open(path.join("db/log.0")).unwrap().set_len(length).unwrap();
        let OpenError::Corrupt { why, .. } = refused(&path) else { panic!("another refusal") };
        assert!(why.contains(&format!("log.0 was cut off: it has {length} bytes")), "{why}");
        assert!(open(&path).unwrap().fresh);
        drop(dir);
    }
}

#[test]
fn the_logs_files_are_for_their_owner_alone_and_there_before_anything_is_served() {
    use std::os::unix::fs::PermissionsExt as _;
    let t = temp();
    for name in ["log.0", "log.1"] {
        let found = fs::metadata(t.path().join("db").join(name)).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, options().log_bytes));
    }
    assert!(Files::open(&t.path().join("db"), 1).is_ok());
}
