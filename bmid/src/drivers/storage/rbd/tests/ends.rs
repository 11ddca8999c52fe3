//! How a process ends that has Ceph's threads in it.

use std::process::Command;
use std::time::Duration;

use super::image::ffi::Which;
use super::*;

const ENV: &str = "BMID_CEPH_ENDS";

/// Opens and closes an image, again and again, until the process ends under it.
fn busy(place: &RbdPlace) -> ! {
    let pool = Arc::new(Pool::connect(place, &library::ffi::api).unwrap());
    for n in 0..4 {
        let (pool, name) = (Arc::clone(&pool), format!("busy{n}"));
        pool.io.create(&name, 1 << 20).unwrap();
        std::thread::spawn(move || {
            loop {
                let _ = pool.open(Which::Name(&name)).and_then(|image| image.write(0, &[1; 512]));
            }
        });
    }
    std::thread::sleep(Duration::from_millis(300));
    std::process::exit(7)
}

/// Dies with the image in its hands that a pool is tried with.
fn trying(place: &RbdPlace) -> ! {
    let pool = Arc::new(Pool::connect(place, &library::ffi::api).unwrap());
    let name = format!("{}.n.try", place.prefix());
    pool.io.create(&name, 1 << 20).unwrap();
    let image = pool.open(Which::Name(&name)).unwrap();
    image.write(0, &[1; 512]).unwrap();
    image.snap("base").unwrap();
    std::process::abort()
}

/// Runs this test program again, for one job of one test.
fn child(test: &str, place: &RbdPlace) -> std::process::Output {
    let job = format!("{} {}", place.conf, place.namespace.as_deref().unwrap());
    let test = format!("drivers::storage::rbd::tests::ends::{test}");
    let run = || Command::new(std::env::current_exe().unwrap()).args(["--exact", &test]).env(ENV, &job).output();
    ceph().inside(run).unwrap()
}

/// The place of the job, in a child.
fn job(datastore: Id) -> Option<RbdPlace> {
    let job = std::env::var(ENV).ok()?;
    let (conf, namespace) = job.split_once(' ').unwrap();
    let (conf, namespace) = (conf.to_owned(), Some(namespace.to_owned()));
    let (pool, user, export) = ("rbd".to_owned(), "admin".to_owned(), RbdExport::Auto);
    Some(RbdPlace { pool, namespace, conf, user, keyring: None, datastore, export })
}

#[test]
fn a_datastore_whose_maker_died_trying_the_pool_is_made_and_one_that_is_given_up_leaves_nothing() {
    const TEST: &str = "a_datastore_whose_maker_died_trying_the_pool_is_made_and_one_that_is_given_up_leaves_nothing";
    if let Some(place) = job(id(121)) {
        trying(&place);
    }
    let (driver, _scratch) = driver();
    for given_up in [false, true] {
        let place = place(id(121));
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(121) };
        assert_eq!(child(TEST, &place).status.code(), None, "it died");
        assert!(ceph().tool(&["rbd", "ls", &place.spec()]).contains(".n.try"));
        ceph().inside(|| {
            let done = if given_up { rig.apply(rig.unmake()) } else { rig.apply(rig.make()) };
            assert_eq!(done.unwrap().changed, !given_up);
        });
        assert_eq!(ceph().tool(&["rbd", "ls", &place.spec()]), "");
        chains::empties(&place.spec());
        // A rig's datastore is one connection, and the next place is another.
        driver.connected.lock().unwrap().clear();
    }
}

#[test]
fn a_process_that_ends_while_ceph_works_for_it_ends_as_it_was_told() {
    const TEST: &str = "a_process_that_ends_while_ceph_works_for_it_ends_as_it_was_told";
    if let Some(place) = job(id(120)) {
        busy(&place);
    }
    // Without care one in five dies of it.
    for _ in 0..10 {
        let ended = child(TEST, &place(id(120)));
        assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    }
}
