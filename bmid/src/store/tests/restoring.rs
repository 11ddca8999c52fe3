//! A restore is whole or has not been, holds little of a large dump in memory, and lets nobody see half of it.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use super::*;

/// Set in the child that restores.
const CHILD: &str = "BMID_RESTORE_CHILD";

fn dump(store: &Store) -> String {
    let mut out = Vec::new();
    store.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A store of which bmid has made what it makes at a first start.
fn started() -> Temp {
    let t = temp();
    let made = samples::rows().into_iter().find_map(|row| match row {
        Row::Server(s) => Some(Server { name: "default".parse().unwrap(), operation: None, ..s }),
        _ => None,
    });
    put(&t.store, &[made.unwrap().into()]).unwrap();
    t.store.write(|tx| tx.put_event(&samples::event(1, 1))).unwrap().1.wait().unwrap();
    t
}

fn numbered(n: u32) -> Node {
    let mut id = [9u8; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let [a, b, c, d] = n.to_be_bytes();
    Node {
        id: Id::from_random(id),
        name: format!("node-{n}").parse().unwrap(),
        mac: format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}").parse().unwrap(),
        address: None,
        cause: Some("x".repeat(300)),
        ..node(1, "any")
    }
}

/// An event that sled takes for little, and whoever holds it for much.
fn event(n: u32) -> Event {
    let mut id = [8u8; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let (id, at) = (Id::from_random(id), Time(u64::from(n)));
    Event { id, at, message: format!("{n} {}", "x".repeat(900)), ..samples::event(1, 1) }
}

/// A dump of so many rows, without ever holding it: every tenth a node, the others events.
fn large(path: &Path, count: u32) {
    let t = temp();
    let first = dump(&t.store).lines().next().unwrap().to_owned();
    let mut out = BufWriter::new(File::create(path).unwrap());
    writeln!(out, "{first}").unwrap();
    let mut line = |table: &str, row: serde_json::Value| {
        writeln!(out, "{}", serde_json::json!({"table": table, "version": 1, "row": row})).unwrap();
    };
    for n in (0..count).filter(|n| n % 10 == 0) {
        line("node", codec::row_to_json(&Row::Node(numbered(n))).unwrap());
    }
    for n in (0..count).filter(|n| n % 10 != 0) {
        line("event", serde_json::to_value(event(n)).unwrap());
    }
    writeln!(out, r#"{{"table":"end","version":1,"row":{{"lines":{}}}}}"#, count + 1).unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
}

/// The most memory this process ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim();
    line.trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_dump_of_a_hundred_thousand_rows_is_restored_in_bounded_memory() {
    const COUNT: u32 = 100_000;
    const LIMIT: u64 = 64;
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = std::path::PathBuf::from(dir);
        let store = open(&dir.join("state")).unwrap().store;
        let before = peak();
        let rows = store.restore_file(&File::open(dir.join("dump")).unwrap()).unwrap();
        println!("restored {rows} peak {before} {}", peak());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    large(&dir.path().join("dump"), COUNT);
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("store::tests::restoring::a_dump_of_a_hundred_thousand_rows_is_restored_in_bounded_memory")
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let figures = said.lines().find_map(|l| l.split_once("restored ")).expect(&said).1;
    let figures: Vec<u64> = figures.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let dumped = std::fs::metadata(dir.path().join("dump")).unwrap().len() >> 20;
    println!("a dump of {dumped} MiB: peak {} MiB before and {} MiB after the restore", figures[1], figures[2]);
    assert_eq!(figures[0], u64::from(COUNT));
    // sled's cache and what waits for it; the rows alone are more than twice that.
    assert!(figures[2] - figures[1] < LIMIT, "{figures:?} of a dump of {dumped} MiB");
    let store = open(&dir.path().join("state")).unwrap().store;
    assert_eq!(store.read(|v| v.get::<Node>(numbered(77_770).id)).unwrap(), Some(numbered(77_770)));
}

#[test]
fn a_restore_killed_in_the_middle_leaves_at_the_next_start_what_was_there_before() {
    let t = started();
    let before = dump(&t.store);
    {
        let inner = &t.store.inner;
        inner.make_empty().unwrap();
        for n in 0..1_200 {
            inner.transact(Who::Restore, |tx| tx.apply(&numbered(n).into())).unwrap().1.wait().unwrap();
        }
    }
    assert_ne!(dump(&t.store), before);
    let path = t.path();
    let Temp { store, dir } = t;
    drop(store);
    for _ in 0..2 {
        let again = open(&path).unwrap().store;
        assert_eq!(dump(&again), before);
        assert_eq!(again.check().unwrap(), Vec::<String>::new());
    }
    drop(dir);
}

#[test]
fn a_restore_that_fails_far_inside_puts_everything_back() {
    let t = started();
    let before = dump(&t.store);
    let path = t.dir.path().join("dump");
    large(&path, 20_000);
    let text = std::fs::read_to_string(&path).unwrap();
    // Two nodes with one card: each line can be read, and both together cannot stand.
    let card = text.replace("52:54:00:00:07:d0", "52:54:00:00:00:0a");
    assert_ne!(card, text);
    let fault = t.store.restore(&mut card.as_bytes()).unwrap_err();
    assert_eq!(fault.kind, Kind::Duplicate, "{fault}");
    assert_eq!(dump(&t.store), before);
    assert_eq!(t.store.check().unwrap(), Vec::<String>::new());
    assert_eq!(t.store.restore(&mut text.as_bytes()).unwrap(), 20_000);
    assert_eq!(dump(&t.store).lines().count(), text.lines().count());
}

#[test]
fn nobody_sees_or_changes_a_store_into_which_a_dump_is_taken() {
    let t = started();
    let shut = t.store.inner.core.commits.shut().unwrap();
    let faults = [
        t.store.read(|v| v.live::<Node>()).unwrap_err(),
        put(&t.store, &[node(1, "web").into()]).unwrap_err(),
        t.store.intents().unwrap_err(),
        t.store.dump(&mut Vec::new()).unwrap_err(),
        t.store.restore(&mut dump_text().as_bytes()).unwrap_err(),
    ];
    for fault in faults {
        assert_eq!(fault.kind, Kind::Busy, "{fault}");
        assert!(fault.to_string().contains("restored"), "{fault}");
    }
    drop(shut);
    put(&t.store, &[node(1, "web").into()]).unwrap();
}

fn dump_text() -> String {
    dump(&started().store)
}

#[test]
fn a_pipe_and_a_file_read_from_its_middle_are_dumps_too() {
    let text = dump_text();
    let t = temp();
    let path = t.dir.path().join("behind");
    std::fs::write(&path, format!("not of it\n{text}")).unwrap();
    let mut file = File::open(&path).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(10)).unwrap();
    t.store.restore_file(&file).unwrap();
    assert_eq!(dump(&t.store), text);
    let t = temp();
    let (read, write) = nix::unistd::pipe().unwrap();
    let sent = text.clone();
    let sender = std::thread::spawn(move || File::from(write).write_all(sent.as_bytes()));
    t.store.restore_file(&File::from(read)).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(dump(&t.store), text);
    assert!(!t.path().join("restore.tmp").exists());
}
