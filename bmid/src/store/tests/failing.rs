//! A flush that fails ends the store: nothing is acknowledged, nothing further is served, the daemon is told once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn after_a_failed_flush_every_ticket_and_every_call_errs_and_the_daemon_is_told_once() {
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let commits = Arc::new(Commits::new(
        0,
        None,
        Box::new(move |f: Fault| {
            assert_eq!(f.kind, Kind::Full);
            count.fetch_add(1, Ordering::SeqCst);
        }),
    ));
    let (first, second) = (commits.applied(Vec::new()), commits.applied(Vec::new()));
    let (tell, heard) = std::sync::mpsc::channel();
    commits.applied(Vec::new()).on_durable(Box::new(move |r| tell.send(r).unwrap()));
    assert!(!first.is_durable());
    let mut calls = 0;
    commits.run(|_, _| {
        calls += 1;
        Err(Fault::new(Kind::Full, "no room"))
    });
    assert_eq!(calls, 1);
    assert_eq!(first.wait().unwrap_err().kind, Kind::Full);
    assert_eq!(second.wait().unwrap_err().kind, Kind::Full);
    assert_eq!(heard.recv().unwrap().unwrap_err().kind, Kind::Full);
    assert_eq!(commits.alive().unwrap_err().kind, Kind::Full);
    commits.fail(Fault::internal("again"));
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_while_flushing_is_a_failed_flush() {
    let commits = Arc::new(Commits::new(0, None, Box::new(|_| {})));
    let ticket = commits.applied(Vec::new());
    commits.run(|_, _| panic!("sled"));
    assert_eq!(ticket.wait().unwrap_err().kind, Kind::Internal);
}

#[test]
fn all_commits_that_wait_become_durable_with_one_flush() {
    let commits = Arc::new(Commits::new(0, None, Box::new(|_| {})));
    let tickets: Vec<Ticket> = (0..100).map(|_| commits.applied(Vec::new())).collect();
    commits.close();
    let mut flushes = 0;
    commits.run(|_, _| {
        flushes += 1;
        Ok(())
    });
    assert_eq!(flushes, 1);
    assert!(tickets.iter().all(Ticket::is_durable));
    tickets.into_iter().for_each(|t| t.wait().unwrap());
}

#[test]
fn a_failed_store_refuses_reads_and_writes() {
    let t = temp();
    t.store.inner.core.commits.fail(Fault::new(Kind::Unavailable, "the disk is gone"));
    assert_eq!(t.store.read(|v| v.live::<Node>()).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(put(&t.store, &[node(1, "a").into()]).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(t.store.intents().unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn a_write_that_changes_nothing_waits_for_what_it_may_have_read() {
    let commits = Arc::new(Commits::new(0, None, Box::new(|_| {})));
    let applied = commits.applied(Vec::new());
    let seen = commits.settled();
    assert!(!seen.is_durable());
    commits.close();
    commits.run(|_, _| Ok(()));
    assert!(seen.is_durable() && applied.is_durable());
    let t = temp();
    let ((), ticket) = t.store.write(|_| Ok(())).unwrap();
    ticket.wait().unwrap();
}

#[test]
fn a_plan_that_panics_leaves_nothing_behind_and_the_store_usable() {
    let t = temp();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        t.store.write(|tx| -> Result<(), Fault> {
            tx.apply(&node(1, "a").into())?;
            panic!("a defect in a plan")
        })
    }));
    assert!(caught.is_err());
    assert_eq!(t.store.read(|v| v.live::<Node>()).unwrap(), []);
    put(&t.store, &[node(1, "a").into()]).unwrap();
}

#[test]
fn who_would_wait_writes_itself_and_a_commit_nobody_waits_for_is_written_too() {
    let t = temp();
    for n in 1..20 {
        let ((), mut ticket) = t.store.write(|tx| tx.apply(&node(n, &format!("n{n}")).into())).unwrap();
        // On a slow or busy disk the committer does it.
        if !ticket.settle() {
            ticket.wait().unwrap();
        }
        let ((), dropped) = t.store.write(|tx| tx.apply(&node(n + 100, &format!("m{n}")).into())).unwrap();
        drop(dropped);
    }
    t.store.settled().wait().unwrap();
    let applied = t.store.inner.core.commits.last();
    assert_eq!(applied, 38);
    t.store.inner.core.commits.fail(Fault::new(Kind::Unavailable, "the disk is gone"));
    let (state, Temp { store, dir }) = (t.path(), t);
    drop(store);
    assert_eq!(open(&state).unwrap().store.read(|v| v.live::<Node>()).unwrap().len(), 38);
    drop(dir);
}
