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

#[test]
fn a_process_that_ends_while_ceph_works_for_it_ends_as_it_was_told() {
    if let Ok(job) = std::env::var(ENV) {
        let (conf, namespace) = job.split_once(' ').unwrap();
        let (conf, namespace) = (conf.to_owned(), Some(namespace.to_owned()));
        let (pool, user, export) = ("rbd".to_owned(), "admin".to_owned(), RbdExport::Auto);
        busy(&RbdPlace { pool, namespace, conf, user, keyring: None, datastore: id(120), export });
    }
    // Without care one in five dies of it.
    for _ in 0..10 {
        let job = format!("{} {}", ceph().conf().display(), ceph().namespace());
        let program = std::env::current_exe().unwrap();
        let test =
            "drivers::storage::rbd::tests::ends::a_process_that_ends_while_ceph_works_for_it_ends_as_it_was_told";
        let child = || Command::new(&program).args(["--exact", test]).env(ENV, &job).output().unwrap();
        let ended = ceph().inside(child);
        assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    }
}
