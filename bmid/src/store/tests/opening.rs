//! What opening refuses, what it moves aside, and what it never loses.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A state folder with a store in it that holds one node, closed.
fn closed() -> (tempfile::TempDir, PathBuf) {
    let t = temp();
    put(&t.store, &[node(1, "web").into()]).unwrap();
    let path = t.path();
    let Temp { store, dir } = t;
    drop(store);
    (dir, path)
}

fn refused(path: &Path) -> OpenError {
    match open(path) {
        Ok(_) => panic!("the store opened"),
        Err(e) => e,
    }
}

#[test]
fn a_second_open_is_refused_with_the_holders_pid() {
    let t = temp();
    let OpenError::Held { pid } = refused(&t.path()) else { panic!("another refusal") };
    assert_eq!(pid, std::process::id());
    let text = OpenError::Held { pid }.to_string();
    assert!(text.contains(&pid.to_string()), "{text}");
    let path = t.path();
    let Temp { store, dir } = t;
    drop(store);
    assert!(!open(&path).unwrap().fresh);
    drop(dir);
}

#[test]
fn a_lock_on_the_data_file_alone_never_makes_a_store_look_corrupt() {
    let (dir, path) = closed();
    let data = fs::File::options().read(true).write(true).open(path.join("db/db")).unwrap();
    let held = nix::fcntl::Flock::lock(data, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e).unwrap();
    std::thread::scope(|s| {
        let opening = s.spawn(|| open(&path).map(|o| o.fresh));
        // Long enough for a first try to be refused; whether it was is seen by what is asserted below either way.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        assert!(!opening.join().unwrap().unwrap());
    });
    assert!(open(&path).unwrap().aside.is_empty());
    drop(dir);
}

#[test]
fn a_store_with_its_data_file_damaged_is_moved_aside_and_the_newest_dump_named() {
    let (dir, path) = closed();
    let first = open(&path).unwrap().store;
    first.dump_to(&path.join("dumps"), 9, Time(1_000_000)).unwrap();
    let newest = first.dump_to(&path.join("dumps"), 9, Time(2_000_000)).unwrap();
    drop(first);
    let data = path.join("db/db");
    let len = fs::metadata(&data).unwrap().len();
    fs::write(&data, vec![0xa5; usize::try_from(len).unwrap()]).unwrap();
    fs::write(path.join("db/conf"), b"segment_size: nonsense").unwrap();
    let OpenError::Corrupt { moved_to, newest_dump, .. } = refused(&path) else { panic!("another refusal") };
    assert_eq!(newest_dump.as_deref(), Some(newest.as_path()));
    assert_eq!(fs::read(moved_to.join("db")).unwrap(), vec![0xa5; usize::try_from(len).unwrap()]);
    // The next start is empty and says what lies aside; the dump brings everything back.
    let again = open(&path).unwrap();
    assert!(again.fresh);
    assert_eq!(again.aside, [moved_to]);
    again.store.restore(&mut std::io::BufReader::new(fs::File::open(newest).unwrap())).unwrap();
    assert_eq!(again.store.read(|v| v.get::<Node>(id(1))).unwrap(), Some(node(1, "web")));
    drop(dir);
}

#[test]
fn a_store_without_its_own_record_is_moved_aside_and_never_onto_another() {
    let (dir, path) = closed();
    for _ in 0..2 {
        fs::create_dir_all(path.join("db")).unwrap();
        let db = sled::open(path.join("db")).unwrap();
        db.remove([tables::META]).unwrap();
        db.flush().unwrap();
        drop(db);
        assert!(matches!(refused(&path), OpenError::Corrupt { .. }));
    }
    assert_eq!(open(&path).unwrap().aside.len(), 2);
    drop(dir);
}

#[test]
fn a_store_of_a_newer_release_is_refused_and_left_alone() {
    let (dir, path) = closed();
    let newer = Meta { schema: SCHEMA + 1, release: "9.9".to_owned(), ..samples::meta() };
    for (bytes, found) in [(codec::encode(&newer).unwrap(), SCHEMA + 1), (vec![tables::META_VERSION + 1, 1, 2], 0)] {
        let db = sled::open(path.join("db")).unwrap();
        db.insert([tables::META], bytes).unwrap();
        db.flush().unwrap();
        drop(db);
        for _ in 0..2 {
            let OpenError::NewerSchema { found: f, known, .. } = refused(&path) else { panic!("another refusal") };
            assert_eq!((f, known), (found, SCHEMA));
        }
    }
    assert!(path.join("db/db").exists());
    drop(dir);
}

#[test]
fn a_row_of_a_newer_release_is_refused_not_misread() {
    let t = temp();
    put(&t.store, &[node(1, "web").into()]).unwrap();
    let key = tables::row(Table::Node, id(1));
    let mut bytes = t.db().get(&key).unwrap().unwrap().to_vec();
    bytes[0] = Node::VERSION + 1;
    t.db().insert(&key, bytes).unwrap();
    let fault = t.store.read(|v| v.get::<Node>(id(1))).unwrap_err();
    assert_eq!(fault.kind, Kind::Corrupt);
    assert!(fault.to_string().contains("start the release that wrote it"), "{fault}");
    let problems = t.store.check().unwrap();
    assert!(problems.iter().any(|p| p.contains("node") && p.contains("version 2")), "{problems:?}");
}

#[test]
fn a_later_release_notes_itself_and_an_older_schema_is_dumped_first() {
    let (dir, path) = closed();
    drop(Store::open(&path, Options { release: "0.2.0".to_owned(), ..options() }).unwrap());
    assert!(!path.join("dumps").exists());
    let store = open(&path).unwrap().store;
    store.put_meta(Meta { schema: SCHEMA - 1, ..(*store.meta()).clone() }).unwrap();
    drop(store);
    let store = open(&path).unwrap().store;
    assert_eq!((store.meta().schema, store.meta().release.as_str()), (SCHEMA, "0.1.0"));
    let dumps = open::dumps(&path.join("dumps"));
    assert_eq!(dumps.len(), 1);
    assert!(fs::read_to_string(&dumps[0]).unwrap().contains("52:54:00:00:00:01"));
    drop(store);
    drop(dir);
}

#[test]
fn a_first_start_that_was_cut_off_leaves_nothing_that_looks_like_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/state");
    fs::create_dir_all(path.join("db.new")).unwrap();
    fs::write(path.join("db.new/conf"), b"half").unwrap();
    let opened = open(&path).unwrap();
    assert!(opened.fresh && !path.join("db.new").exists());
}

#[test]
fn a_state_folder_that_is_no_folder_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"").unwrap();
    let e = refused(&path);
    assert!(matches!(e, OpenError::Unwritable { .. }), "{e}");
    assert!(e.to_string().contains(path.to_str().unwrap()), "{e}");
}

#[test]
fn what_the_system_refuses_to_open_is_left_where_it_is() {
    let (dir, path) = closed();
    fs::rename(path.join("db"), path.join("kept")).unwrap();
    fs::write(path.join("db"), b"not a folder").unwrap();
    let e = refused(&path);
    assert!(matches!(e, OpenError::Unreadable { .. }), "{e}");
    assert_eq!(fs::read(path.join("db")).unwrap(), b"not a folder");
    fs::remove_file(path.join("db")).unwrap();
    fs::rename(path.join("kept"), path.join("db")).unwrap();
    assert!(!open(&path).unwrap().fresh);
    drop(dir);
}

#[test]
fn the_state_folder_and_the_files_in_it_are_for_their_owner_alone() {
    let t = temp();
    let dump = t.store.dump_to(&t.path().join("dumps"), 1, Time(1)).unwrap();
    for (path, mode) in
        [(t.path(), 0o700), (t.path().join("lock"), 0o600), (t.path().join("reserve"), 0o600), (dump, 0o600)]
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}
