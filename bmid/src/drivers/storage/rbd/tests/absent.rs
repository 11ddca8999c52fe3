//! Hosts whose libraries of Ceph are not there, too old, or lack what bmid can do without.

use bmi::step::{Fact, Finding, Look};

use super::*;
use crate::drivers::storage::conformance::facts;
use crate::drivers::storage::rbd::library::ffi::{From, load};

/// All that is optional.
const OPTIONAL: &[&str] = &[
    "rados_getaddrs",
    "rados_ioctx_get_id",
    "rados_write_op_create",
    "rados_write_op_assert_exists",
    "rados_write_op_exec",
    "rados_aio_create_completion2",
    "rados_aio_write_op_operate",
    "rados_aio_wait_for_complete",
    "rados_aio_get_return_value",
    "rados_aio_release",
    "rbd_diff_iterate2",
    "rbd_trash_move",
    "rbd_trash_list",
    "rbd_trash_list_cleanup",
    "rbd_trash_remove",
    "rbd_snap_get_namespace_type",
    "rbd_snap_remove_by_id",
    "rbd_flatten",
    "rbd_lock_get_owners",
    "rbd_lock_get_owners_cleanup",
    "rbd_lock_break",
    "rbd_get_features",
    "rbd_watchers_list",
    "rbd_watchers_list_cleanup",
];

fn host<'a>(hidden: &'a [&'a str]) -> From<'a> {
    From { rados: "librados.so.2", rbd: "librbd.so.1", hidden }
}

fn leaked(from: From<'_>) -> Result<&'static Api, Missing> {
    load(from).map(|api| &*Box::leak(Box::new(api)))
}

fn with(api: fn() -> Result<&'static Api, Missing>) -> (RbdStore, tempfile::TempDir) {
    let (driver, scratch) = driver();
    (RbdStore { api, ..driver }, scratch)
}

fn doctor(driver: &RbdStore) -> Vec<Finding> {
    let look = Look::Doctor { networks: Vec::new() };
    let Some(Ok(Fact::Findings(found))) = driver.look(&look) else { panic!("no findings") };
    found
}

#[test]
fn a_host_without_ceph_says_on_the_datastore_what_is_missing_and_the_doctor_says_it_too() {
    type Case = (fn() -> Result<&'static Api, Missing>, &'static str);
    let cases: [Case; 3] = [
        (|| leaked(From { rados: "librados.so.none", ..host(&[]) }), "librados cannot be loaded"),
        (|| leaked(From { rbd: "librbd.so.none", ..host(&[]) }), "librbd cannot be loaded"),
        (|| leaked(host(&["rbd_clone3"])), "librbd of this host lacks rbd_clone3"),
    ];
    for (api, why) in cases {
        let (driver, _scratch) = with(api);
        let place = place(id(130));
        let rig = Rig { driver: &driver, place: Place::Rbd(place), datastore: id(130) };
        assert!(doctor(&driver).is_empty(), "nobody asked for a pool");
        let e = rig.apply(rig.make()).unwrap_err();
        assert!(e.kind == Kind::Unavailable && e.why.contains(why), "{e:?}");
        assert!(e.fix.contains("apt-get install librbd1"), "{e:?}");
        let facts = facts(&rig);
        assert!(!facts.available && facts.problem.as_ref().is_some_and(|p| p.contains(why)), "{facts:?}");
        let [found] = doctor(&driver).try_into().unwrap();
        assert!(found.severity == Severity::Error && found.found.contains(why), "{found:?}");
        assert!(found.fix.contains("apt-get install librbd1"), "{found:?}");
    }
}

#[test]
fn a_library_of_another_release_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("old.c"), folder.path().join("librbd.so"));
    // All that must be there, as functions that are never called, and the number of Octopus.
    let names = ["image_options_create", "image_options_set_uint64", "image_options_destroy", "create4", "clone3"]
        .into_iter()
        .chain(["remove", "rename", "list2", "image_spec_list_cleanup", "open", "open_read_only", "open_by_id"])
        .chain(["open_by_id_read_only", "close", "get_size", "resize", "read", "write", "flush", "snap_create"])
        .chain(["snap_remove", "snap_list", "snap_list_end"]);
    let mut text: String = names.map(|n| format!("int rbd_{n}(void) {{ return -38; }}\n")).collect();
    text.push_str("void rbd_version(int *a, int *b, int *c) { *a = 1; *b = 14; *c = 0; }\n");
    std::fs::write(&source, text).unwrap();
    let mut gcc = std::process::Command::new("gcc");
    assert!(gcc.args(["-shared", "-fPIC", "-o"]).arg(&object).arg(&source).status().unwrap().success());
    let old = From { rbd: object.to_str().unwrap(), ..host(&[]) };
    let told = load(old).err().unwrap().to_string();
    assert!(told.contains("is 1.14; Pacific (1.16) is the oldest"), "{told}");
}

#[test]
fn a_library_that_lacks_all_that_is_optional_keeps_the_contract_and_the_doctor_names_what_is_off() {
    let (driver, _scratch) = with(|| leaked(host(OPTIONAL)));
    let place = place(id(131));
    let spec = place.spec();
    ceph().inside(|| {
        suite(&Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(131) });
        let [found, _] = doctor(&driver).try_into().unwrap();
        assert_eq!(found.severity, Severity::Warning);
        for symbol in OPTIONAL {
            assert!(found.found.contains(&format!("{symbol} (")), "{symbol}: {}", found.found);
        }
    });
    for _ in 0..600 {
        if ceph().tool(&["rbd", "ls", &spec]).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{}", ceph().tool(&["rbd", "ls", &spec]));
}

#[test]
fn without_the_symbol_a_namespace_is_refused_and_never_the_pool_used_instead() {
    let (driver, _scratch) = with(|| leaked(host(&["rados_ioctx_set_namespace"])));
    let place = place(id(132));
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(132) };
        let e = rig.apply(rig.make()).unwrap_err();
        assert!(e.kind == Kind::Unavailable && e.why.contains("cannot do that"), "{e:?}");
    });
}
