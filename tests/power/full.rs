//! A disk full to the brim: refused before anything is lost, what runs may end, the next start comes up, the reserve comes
//! back when there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bmi::model::journal::Standing;
use bmi::model::{Answer, Caller, Fault, Intent, Kind, Node, Outcome, Owner, Part, Time, ViewExt as _};
use bmid::store::{OpenError, Options, Store};

use crate::child::{node, open, options};
use crate::disk::Disk;

const RESERVE: u64 = 64 << 20;

fn put(store: &Store, n: u64) -> Result<(), Fault> {
    store.write(|tx| tx.apply(&node(n).into()))?.1.wait()
}

fn intent(n: u64) -> Intent {
    Intent {
        id: node(n).id,
        method: "node.provision".to_owned(),
        request: vec![1; 100],
        caller: Caller::bmid(),
        project: Owner::default_project(),
        started_at: Time(1),
        parts: 1,
        atomic: true,
        changes: vec![],
        uses: vec![],
        subjects: vec![],
    }
}

fn answer(n: u64) -> Answer {
    Answer {
        id: node(n).id,
        method: "node.provision".to_owned(),
        request: vec![1; 100],
        caller: Caller::bmid(),
        subjects: vec![],
        started_at: Time(1),
        ended_at: Time(2),
        outcome: Outcome::Done { changed: true },
        items: vec![],
    }
}

#[test]
fn on_a_full_disk_new_writes_are_refused_running_operations_end_and_nothing_is_lost() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    let store = open(&state).unwrap().store;
    assert!(store.reserve_present());
    put(&store, 1).unwrap();
    let begin = |tx: &mut bmid::store::Tx<'_>| tx.put_intent(&intent(50));
    store.write(begin).unwrap().1.wait().unwrap();
    disk.fill(0);
    let free = disk.free();
    assert!(free < 1 << 20, "{free} bytes are still free");
    let fault = put(&store, 2).unwrap_err();
    assert_eq!(fault.kind, Kind::Full, "{fault}");
    assert!(fault.to_string().contains(state.to_str().unwrap()), "{fault}");
    // Nothing was applied, reading goes on, and so does what has begun.
    assert_eq!(store.read(|v| v.live::<Node>()).unwrap().len(), 1);
    assert!(store.reserve_present());
    let end = |tx: &mut bmid::store::Tx<'_>| {
        tx.apply(&node(3).into())?;
        tx.put_answer(&answer(50))?;
        tx.drop_intent(intent(50).id)
    };
    store.write(end).unwrap().1.wait().unwrap();
    assert!(!store.reserve_present());
    let dump = store.dump_to(&state.join("dumps"), 3, Time(1));
    assert!(dump.is_ok(), "a dump has room now: {dump:?}");
    assert!(!store.remake_reserve().unwrap(), "there is no room for the reserve");
    disk.drop_fill();
    put(&store, 2).unwrap();
    assert!(store.remake_reserve().unwrap() && store.reserve_present());
    assert_eq!(std::fs::metadata(state.join("reserve")).unwrap().len(), RESERVE);
    assert_eq!(store.answers().unwrap().len(), 1);
    assert_eq!(store.intents().unwrap(), []);
}

#[test]
fn a_dump_onto_a_full_disk_is_refused_and_leaves_no_half_file() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    let store = open(&state).unwrap().store;
    for n in 0..200 {
        put(&store, n).unwrap();
    }
    let good = store.dump_to(&state.join("dumps"), 3, Time(1)).unwrap();
    disk.fill(0);
    let fault = store.dump_to(&state.join("dumps"), 3, Time(2)).unwrap_err();
    assert_eq!(fault.kind, Kind::Full, "{fault}");
    let left: Vec<_> = std::fs::read_dir(state.join("dumps")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [good]);
}

#[test]
fn a_store_on_a_full_disk_opens_by_giving_the_reserve_back() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    let store = open(&state).unwrap().store;
    put(&store, 1).unwrap();
    drop(store);
    disk.fill(0);
    let opened = open(&state).unwrap_or_else(|e| panic!("{e}"));
    assert!(!opened.fresh && !opened.store.reserve_present());
    assert_eq!(opened.store.read(|v| v.live::<Node>()).unwrap().len(), 1);
    put(&opened.store, 2).unwrap();
    drop(opened);
    disk.drop_fill();
    assert!(open(&state).unwrap().store.reserve_present());
}

#[test]
fn a_first_start_on_a_full_disk_is_refused_and_leaves_nothing_behind() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    std::fs::create_dir(&state).unwrap();
    disk.fill(0);
    let Err(e) = open(&state) else { panic!("there was room") };
    assert!(matches!(e, OpenError::Full { .. }), "{e}");
    assert!(!state.join("db").exists() && !state.join("db.new").exists());
    disk.drop_fill();
    assert!(open(&state).unwrap().fresh);
}

#[test]
fn a_state_folder_on_a_read_only_file_system_is_refused_and_left_alone() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    put(&open(&state).unwrap().store, 1).unwrap();
    disk.read_only(true);
    for dir in [&state, &disk.path().join("other")] {
        let Err(e) = open(dir) else { panic!("it opened") };
        assert!(matches!(e, OpenError::Unwritable { .. }), "{e}");
        assert!(e.to_string().contains("read-only") && e.to_string().contains(dir.to_str().unwrap()), "{e}");
    }
    disk.read_only(false);
    assert_eq!(open(&state).unwrap().store.read(|v| v.live::<Node>()).unwrap().len(), 1);
}

#[test]
fn a_write_larger_than_what_is_left_of_the_disk_is_refused_whole_and_the_store_goes_on() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let on_failed = Box::new(move |f: Fault| {
        assert_eq!(f.kind, Kind::Full, "{f}");
        count.fetch_add(1, Ordering::SeqCst);
    });
    let store = Store::open(&state, Options { on_failed, ..options() }).unwrap().store;
    for n in 0..50 {
        put(&store, n).unwrap();
    }
    // Just enough to be let in, not enough to get through.
    disk.fill(9 << 20);
    let big = |tx: &mut bmid::store::Tx<'_>| {
        tx.put_intent(&intent(60))?;
        (0..4).try_for_each(|index| {
            let script = vec![index as u8; 8 << 20];
            tx.put_part(&Part {
                intent: intent(60).id,
                index,
                standing: Standing::BEGUN,
                script,
                before: vec![],
                commit: vec![],
                subjects: vec![],
            })
        })
    };
    let fault = store.write(big).and_then(|((), t)| t.wait()).unwrap_err();
    assert_eq!(fault.kind, Kind::Full, "{fault}");
    // Nothing of it was applied, the store goes on, and so may what ends something.
    assert_eq!(store.intents().unwrap(), []);
    assert_eq!(store.read(|v| v.live::<Node>()).unwrap().len(), 50);
    put(&store, 98).unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 0);
    drop(store);
    // The disk is as full as before.
    let again = open(&state).unwrap_or_else(|e| panic!("{e}"));
    assert!(!again.fresh && again.aside.is_empty());
    assert_eq!(again.store.read(|v| v.live::<Node>()).unwrap().len(), 51);
    assert_eq!(again.store.intents().unwrap(), []);
    let torn: Vec<_> = again.store.check().unwrap().into_iter().filter(|p| !p.contains("its network")).collect();
    assert_eq!(torn, Vec::<String>::new());
    put(&again.store, 99).unwrap();
}

#[test]
fn what_a_full_disk_keeps_from_sled_stays_in_the_log_until_there_is_room() {
    let disk = Disk::new();
    let state = disk.path().join("state");
    let store = open(&state).unwrap().store;
    let script = vec![7; 6 << 20];
    let large = Part {
        intent: intent(60).id,
        index: 0,
        standing: Standing::BEGUN,
        script,
        before: vec![],
        commit: vec![],
        subjects: vec![],
    };
    for n in 0..50 {
        put(&store, n).unwrap();
    }
    let write = |tx: &mut bmid::store::Tx<'_>| {
        tx.put_intent(&intent(60))?;
        tx.put_part(&large)
    };
    store.write(write).unwrap().1.wait().unwrap();
    disk.fill(0);
    // It may have been needed already, to bring things into sled.
    let _ = std::fs::remove_file(state.join("reserve"));
    disk.fill(0);
    drop(store);
    // Whether sled opens or not: nothing is moved aside, and nothing is lost.
    for _ in 0..2 {
        match open(&state) {
            Err(OpenError::Full { .. }) => {}
            Err(e) => panic!("{e}"),
            Ok(opened) => assert_eq!(opened.store.part(intent(60).id, 0).unwrap().as_ref(), Some(&large)),
        }
    }
    disk.drop_fill();
    let again = open(&state).unwrap_or_else(|e| panic!("{e}"));
    assert!(again.aside.is_empty());
    assert_eq!(again.store.read(|v| v.live::<Node>()).unwrap().len(), 50);
    assert_eq!(again.store.part(intent(60).id, 0).unwrap(), Some(large));
}
