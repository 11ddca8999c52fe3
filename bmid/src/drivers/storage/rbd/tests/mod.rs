//! The driver of pools on a real Ceph. As root, with the packages of the tests: without them these tests fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod absent;
mod alikes;
#[path = "../../../../../../tests/support/ceph.rs"]
pub(crate) mod ceph;
mod chains;
mod ends;
mod halves;
mod imports;
mod reach;

mod takeovers;

use bmi::model::RbdExport;

use self::ceph::ceph;
use super::*;
use crate::drivers::storage::conformance::{Rig, id, suite};
use crate::drivers::storage::file::Detached;

/// A driver with a folder of its own for conversions.
fn driver() -> (RbdStore, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    (RbdStore::new(scratch.path().join("scratch"), Box::new(Detached)), scratch)
}

/// A namespace of the test's own as a place.
fn place(datastore: Id) -> RbdPlace {
    RbdPlace {
        pool: "rbd".to_owned(),
        namespace: Some(ceph().namespace()),
        conf: ceph().conf().to_str().unwrap().to_owned(),
        user: "admin".to_owned(),
        keyring: None,
        datastore,
        export: RbdExport::Auto,
    }
}

/// A tool of Ceph's in the place's namespace.
fn tool(place: &RbdPlace, program: &str, words: &[&str]) -> String {
    let namespace = place.namespace.as_deref().unwrap();
    ceph().tool(&[&[program, "-p", &place.pool, "--namespace", namespace], words].concat())
}

#[test]
fn the_driver_of_pools_keeps_the_contract() {
    let (driver, _scratch) = driver();
    let place = place(id(100));
    ceph().inside(|| suite(&Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(100) }));
    let spec = place.spec();
    assert_eq!(ceph().tool(&["rbd", "ls", &spec]), "");
    chains::empties(&spec);
}
