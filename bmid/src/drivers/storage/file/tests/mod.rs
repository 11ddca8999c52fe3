//! The folder driver on real file systems. As root, with the tools installed: without them these tests fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod imports;
mod kill;
mod places;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bmi::model::{Bytes, Format, Kind, Place};
use bmi::step::{Backing, Import};
use proptest::prelude::*;

use super::*;
use crate::drivers::proving::program;
use crate::drivers::storage::conformance::{Rig, disk, facts, file, id, suite};

/// Runs a command of the system that must succeed.
pub(super) fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Unmounts; busy for a moment only means that another test forks.
pub(super) fn unmount(at: &Path) {
    while let Err(e) = nix::mount::umount(at) {
        assert_eq!(e, nix::errno::Errno::EBUSY, "{}", at.display());
        std::thread::yield_now();
    }
}

/// A temporary folder in which file systems may be mounted: unmounts them at the end, after a panic too.
pub(super) struct Ground(pub(super) tempfile::TempDir);

impl Ground {
    pub(super) fn new() -> Ground {
        Ground(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn folder(&self, name: &str) -> Place {
        Place::Folder { path: self.path(name).to_str().unwrap().to_owned(), loop_size: None, thin: false }
    }

    pub(super) fn looped(&self, name: &str, size: u64) -> Place {
        let path = self.path(name).to_str().unwrap().to_owned();
        Place::Folder { path, loop_size: Some(Bytes(size)), thin: true }
    }

    /// A small file system of its own.
    pub(super) fn file_system(&self, kind: &str, size: u64) -> PathBuf {
        let (image, at) = (self.path(&format!("{kind}.img")), self.path(kind));
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        sh(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        fs::create_dir(&at).unwrap();
        sh("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        at
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let here = self.0.path().to_str().unwrap_or("/nowhere").to_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for at in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|at| at.starts_with(&here)) {
            let _ = Command::new("umount").args(["--lazy", at]).status();
        }
        for (device, _) in loops(&here) {
            let _ = Command::new("losetup").args(["--detach", &device]).status();
        }
    }
}

/// The loop devices whose file is below a path: device and file.
pub(super) fn loops(below: &str) -> Vec<(String, String)> {
    let list = sh("losetup", &["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"]);
    let pairs = list.lines().filter_map(|l| l.split_once(' ')).map(|(d, f)| (d.to_owned(), f.to_owned()));
    pairs.filter(|(_, f)| f.starts_with(below)).collect()
}

/// Waits until none is left: a mount namespace that something else on this machine made meanwhile holds one for as long as it lives.
pub(super) fn no_loops(below: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !loops(below).is_empty() {
        assert!(std::time::Instant::now() < end, "still there: {:?}", loops(below));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

pub(super) fn driver() -> FileStore {
    FileStore::new(Manager::Detached)
}

/// All files below a folder, with the hidden ones.
pub(super) fn files(below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![below.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            } else {
                found.push(path.strip_prefix(below).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A rig with a datastore made in the given place.
pub(super) fn made(driver: &FileStore, place: Place) -> Rig<'_> {
    let rig = Rig { driver, place, datastore: id(100) };
    rig.apply(rig.make()).unwrap();
    rig
}

#[test]
fn the_folder_driver_keeps_the_contract() {
    let ground = Ground::new();
    let driver = driver();
    suite(&Rig { driver: &driver, place: ground.folder("deep/er/store"), datastore: id(100) });
    assert!(!ground.path("deep/er/store").exists(), "the folder it made is gone with the datastore");
}

#[test]
fn the_folder_driver_keeps_the_contract_on_a_loop_of_its_own() {
    let ground = Ground::new();
    let driver = driver();
    suite(&Rig { driver: &driver, place: ground.looped("store", 300 << 20), datastore: id(100) });
    assert_eq!(files(ground.0.path()), Vec::<String>::new());
    assert!(!ground.path("store").exists());
    no_loops(ground.0.path().to_str().unwrap());
}

/// 24 MiB of noise between holes, 64 MiB in all.
fn holed() -> Vec<u8> {
    let mut bytes = vec![0u8; 64 << 20];
    let mut n = 1u32;
    for b in &mut bytes[8 << 20..32 << 20] {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *b = (n >> 24) as u8;
    }
    bytes
}

fn blocks(path: &str) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn clones_share_bytes_on_xfs_and_are_sparse_copies_on_ext4() {
    for (kind, size, reflink) in [("xfs", 400u64 << 20, true), ("ext4", 200 << 20, false)] {
        let ground = Ground::new();
        let driver = driver();
        let at = ground.file_system(kind, size);
        let rig = made(&driver, ground.folder(&format!("{kind}/store")));
        let found = facts(&rig);
        assert_eq!((found.filesystem.as_str(), found.reflink), (kind, reflink));
        let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
        rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(&holed()))).unwrap();
        let stored = blocks(&image.path(&rig.place));
        assert!((24 << 20..26 << 20).contains(&stored), "{kind}: holes of the input are stored: {stored}");
        let free = || nix::sys::statvfs::statvfs(&at).unwrap().blocks_free() * 4_096;
        let before = free();
        rig.apply(rig.clone(image, volume)).unwrap();
        let taken = before.saturating_sub(free());
        assert_eq!(taken < 8 << 20, reflink, "{kind}: a clone took {taken} bytes");
        let copied = blocks(&volume.path(&rig.place));
        assert!((24 << 20..26 << 20).contains(&copied), "{kind}: holes are stored in a clone: {copied}");
        assert!(fs::read(volume.path(&rig.place)).unwrap() == holed(), "{kind}: other bytes");
    }
}

#[test]
fn golden_images_and_snapshots_are_read_only_and_volumes_their_owners_alone() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let (image, volume, tag) = (Backing::image(id(1)), Backing::volume(id(2), 0), Backing::snapshot(id(3)));
    rig.with(rig.import(id(1), None), Some(&file(&disk()))).unwrap();
    rig.apply(rig.clone(image, volume)).unwrap();
    rig.apply(rig.clone(volume, tag)).unwrap();
    let mode = |b: Backing| fs::metadata(b.path(&rig.place)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(image), mode(volume), mode(tag)), (0o400, 0o600, 0o400));
    assert_eq!(fs::metadata(ground.path("store")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(ground.path("store/volumes")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_copy_that_a_kill_left_half_made_is_neither_seen_nor_in_the_way_nor_left() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    rig.with(rig.import(id(1), None), Some(&file(&disk()))).unwrap();
    let seen = rig.seen();
    let half = ground.path("store/volumes").join(format!(".{}.raw.new", volume.name()));
    fs::write(&half, "half").unwrap();
    assert_eq!(rig.seen(), seen);
    assert!(rig.apply(rig.remove(volume)).unwrap().changed);
    assert!(!half.exists());
    fs::write(&half, "half").unwrap();
    rig.apply(rig.clone(image, volume)).unwrap();
    assert!(!half.exists());
    assert!(fs::read(volume.path(&rig.place)).unwrap() == disk());
}

#[test]
fn what_bears_no_name_of_ours_is_not_seen() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let seen = rig.seen();
    let id = id(5);
    for name in [format!("{id}.raw"), format!("{id}.00.raw"), format!("{id}.0.qcow2"), "x.0.raw".to_owned()] {
        fs::write(ground.path("store/volumes").join(name), "").unwrap();
    }
    assert_eq!(rig.seen(), seen);
}

#[test]
fn a_full_datastore_is_a_clear_error_and_keeps_nothing_half() {
    let ground = Ground::new();
    let driver = driver();
    ground.file_system("ext4", 40 << 20);
    let rig = made(&driver, ground.folder("ext4/store"));
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    let noise = &holed()[8 << 20..28 << 20];
    rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(noise))).unwrap();
    let before = files(&ground.path("ext4/store"));
    let e = rig.apply(rig.clone(image, volume)).unwrap_err();
    assert_eq!((e.kind, e.fix.is_empty()), (Kind::Full, false), "{e}");
    for (input, name) in [(noise.to_vec(), "raw"), (fs::read(qcow2(&ground, noise)).unwrap(), "qcow2")] {
        let e = rig.with(rig.import(id(3), None), Some(&file(&input))).unwrap_err();
        assert_eq!((e.kind, e.fix.is_empty()), (Kind::Full, false), "{name}: {e}");
    }
    assert_eq!(files(&ground.path("ext4/store")), before);
}

/// The bytes as a compressed qcow2.
pub(super) fn qcow2(ground: &Ground, bytes: &[u8]) -> PathBuf {
    let (raw, out) = (ground.path("raw"), ground.path("out.qcow2"));
    fs::write(&raw, bytes).unwrap();
    sh("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), out.to_str().unwrap()]);
    out
}

#[test]
fn a_disk_goes_out_as_qcow2_and_into_a_pipe() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    rig.with(rig.import(id(1), None), Some(&file(&disk()))).unwrap();
    let out = ground.path("out.qcow2");
    let image = Backing::image(id(1));
    rig.with(rig.export(image, Format::Qcow2), Some(&fs::File::create(&out).unwrap())).unwrap();
    let original = image.path(&rig.place);
    sh("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", out.to_str().unwrap(), &original]);
    assert!(!rig.seen().iter().any(|s| s.starts_with("staging")), "{:?}", rig.seen());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut all).map(|_| all)
    });
    let writer = fs::File::from(std::os::fd::OwnedFd::from(writer));
    rig.with(rig.export(image, Format::Raw), Some(&writer)).unwrap();
    drop(writer);
    assert!(reading.join().unwrap().unwrap() == disk());
    assert_eq!(rig.with(rig.export(image, Format::Vmdk), Some(&file(b""))).unwrap_err().kind, Kind::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_sparse_copy_has_the_same_bytes_and_stores_no_more(
        extents in prop::collection::vec((0u64..3_000_000, 1usize..200_000, any::<u8>()), 0..8),
        tail in 0u64..50_000,
    ) {
        use std::os::unix::fs::FileExt;
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for (offset, len, byte) in extents {
            from.write_all_at(&vec![byte; len], offset).unwrap();
        }
        let size = from.metadata().unwrap().len() + tail;
        from.set_len(size).unwrap();
        copy::sparse(&from, &to, &StepCx::PLAIN).unwrap();
        let all = |f: &fs::File| {
            let mut bytes = vec![0; usize::try_from(f.metadata().unwrap().len()).unwrap()];
            f.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        prop_assert!(all(&from) == all(&to));
        prop_assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks());
    }
}

#[test]
fn the_doctor_names_tools_and_datastores() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let findings = || match driver.look(&Look::Doctor { networks: vec![] }) {
        Some(Ok(Fact::Findings(found))) => found,
        other => panic!("{other:?}"),
    };
    let check = format!("datastore in {}", ground.path("store").display());
    for name in ["qemu-img", "unshare", "prlimit", "setpriv", "mkfs.xfs", "losetup", &check] {
        assert!(findings().iter().any(|f| f.check == name), "{name} is not looked at");
    }
    fs::remove_file(ground.path("store/.bmid-datastore")).unwrap();
    let bad = findings().into_iter().find(|f| f.check == check).unwrap();
    assert_eq!((bad.severity, bad.fix.is_empty()), (bmi::step::Severity::Error, false), "{bad:?}");
    assert!(facts(&rig).problem.is_some());
}

/// An import of the second image of these tests.
pub(super) fn undeclared(rig: &Rig<'_>) -> Import {
    rig.import(id(7), None)
}
