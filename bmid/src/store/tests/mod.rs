//! The store's tests: one file a promise. Samples and a store in a temporary folder are here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod basic;
mod checking;
mod dumping;
mod failing;
mod feeding;
mod golden;
mod journal;
mod log;
mod model;
mod opening;
mod restoring;
mod samples;
mod torn;

use std::path::Path;

use bmi::model::*;

use super::*;

/// A store in a folder of its own, gone with it.
pub(super) struct Temp {
    pub(super) store: Store,
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn options() -> Options {
    Options {
        cache_bytes: 16 << 20,
        log_bytes: 64 << 10,
        engine_name: "engine1".parse().unwrap(),
        release: "0.1.0".to_owned(),
        now: Time(1_700_000_000_000_000),
        random: [7; 16],
        on_failed: Box::new(|_| {}),
    }
}

pub(super) fn open(dir: &Path) -> Result<Opened, OpenError> {
    Store::open(dir, options())
}

pub(super) fn temp() -> Temp {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(&dir.path().join("state")).unwrap();
    assert!(opened.fresh);
    Temp { store: opened.store, dir }
}

impl Temp {
    pub(super) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// sled, with everything in it.
    pub(super) fn db(&self) -> &sled::Db {
        self.store.inner.core.catch_up();
        &self.store.inner.core.db
    }
}

/// Applies changes and waits until they are durable.
pub(super) fn put(store: &Store, changes: &[Change]) -> Result<(), Fault> {
    let ((), ticket) = store.write(|tx| changes.iter().try_for_each(|c| tx.apply(c)))?;
    ticket.wait()
}

pub(super) fn id(n: u8) -> Id {
    Id::from_random([n; 16])
}

pub(super) fn owner(s: &str) -> Owner {
    s.parse().unwrap()
}

pub(super) fn node(n: u8, name: &str) -> Node {
    Node {
        id: id(n),
        owner: owner("default"),
        name: name.parse().unwrap(),
        kind: NodeType::Physical,
        mac: format!("52:54:00:00:00:{n:02x}").parse().unwrap(),
        nic: None,
        network: id(200),
        address: Some([10, 9, 0, n].into()),
        state: NodeState::Ready,
        cause: None,
        settings: [("console".to_owned(), "ttyS1".to_owned())].into(),
        created_at: Time(1),
        updated_at: Time(2),
        operation: None,
    }
}
