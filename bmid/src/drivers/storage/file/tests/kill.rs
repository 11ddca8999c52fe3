//! The driver killed from outside, at any moment: only whole disks have names, and nothing is lost to those who clean up.

use std::time::Duration;

use super::*;

/// Tells the child where to work.
const CHILD: &str = "BMID_STORAGE_KILL";

/// A disk's bytes, different for each number.
fn bytes(n: u8) -> Vec<u8> {
    (0..600_064u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8 ^ n).collect()
}

fn disks(n: u8) -> [Backing; 3] {
    [Backing::image(id(n)), Backing::volume(id(n), 0), Backing::snapshot(id(n))]
}

/// Takes in, clones and removes, for ever.
fn work(rig: &Rig<'_>) -> ! {
    loop {
        for n in 1..6 {
            let [image, volume, snapshot] = disks(n);
            rig.with(rig.import(id(n), None), Some(&file(&bytes(n)))).unwrap();
            rig.apply(rig.clone(image, volume)).unwrap();
            rig.apply(rig.clone(volume, snapshot)).unwrap();
            rig.apply(rig.remove(volume)).unwrap();
        }
        for what in (1..6).flat_map(disks) {
            rig.apply(rig.remove(what)).unwrap();
        }
    }
}

#[test]
fn whatever_moment_a_kill_comes_only_whole_disks_have_names_and_all_can_be_cleaned_up() {
    let driver = driver();
    let rig = |path: String| Rig {
        driver: &driver,
        place: Place::Folder { path, loop_size: None, thin: false },
        datastore: id(100),
    };
    if let Ok(path) = std::env::var(CHILD) {
        work(&rig(path));
    }
    let ground = Ground::new();
    let path = ground.path("store").to_str().unwrap().to_owned();
    let rig = rig(path.clone());
    rig.apply(rig.make()).unwrap();
    let name = "whatever_moment_a_kill_comes_only_whole_disks_have_names_and_all_can_be_cleaned_up";
    for round in 0..24 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("drivers::storage::file::tests::kill::{name}")])
            .env(CHILD, &path)
            // Its input files have no names, so that they leave nothing.
            .env("TMPDIR", ground.0.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(15 + round * 13 % 120));
        child.kill().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(libc::SIGKILL));
        for n in 1..6 {
            for what in disks(n) {
                if let Ok(found) = fs::read(what.path(&rig.place)) {
                    assert!(found == bytes(n), "round {round}: {what:?} is not whole");
                }
            }
        }
    }
    // An import that was cut off is repeated, everything else is removed.
    for n in 1..6 {
        rig.with(rig.import(id(n), None), Some(&file(&bytes(n)))).unwrap();
        for what in disks(n) {
            rig.apply(rig.remove(what)).unwrap();
        }
    }
    assert_eq!(files(Path::new(&path)), [".bmid-datastore"], "something leaked");
}
