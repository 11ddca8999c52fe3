//! Images on their way in and out: holes stay holes, what was cut off goes on, foreign formats become raw.

use std::io::{Read, Seek};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use bmi::model::{Bytes, Format};
use bmi::step::{Backing, Import, Step};
use sha2::{Digest, Sha256};

use super::*;
use crate::drivers::storage::conformance::{disk, file};
use crate::drivers::storage::stream::hex;

/// 6 MiB of noise in a disk of 128 MiB.
fn holed() -> Vec<u8> {
    let mut bytes = vec![0u8; 128 << 20];
    let mut n = 1u32;
    for b in &mut bytes[40 << 20..46 << 20] {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *b = (n >> 24) as u8;
    }
    bytes
}

fn large(rig: &Rig<'_>, format: Option<Format>) -> Import {
    Import { max_size: Bytes(1 << 30), ..rig.import(id(1), format) }
}

#[test]
fn zeros_are_neither_written_nor_read_and_come_back_as_zeros() {
    let ((driver, _scratch), place, bytes) = (driver(), place(id(120)), holed());
    let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(120) };
    ceph().inside(|| {
        rig.apply(rig.make()).unwrap();
        let imported = rig.with(large(&rig, None), Some(&file(&bytes))).unwrap().imported.unwrap();
        assert_eq!(imported.raw_sha256, hex(&Sha256::digest(&bytes)));
        let image = Backing::image(id(1));
        let pool = driver.connect(id(120), &place).unwrap().pool;
        let open = pool.open_read(image::ffi::Which::Name(&image.rbd_name(&place.prefix())), None).unwrap();
        let stored: u64 = open.stored().unwrap().iter().map(|e| e.len).sum();
        assert!(stored <= 8 << 20, "{stored} bytes are stored of 6 MiB");
        let info = ceph().tool(&["rbd", "info", &format!("{}/{}", place.spec(), image.rbd_name(&place.prefix()))]);
        assert!(info.contains("exclusive-lock") && info.contains("object-map"), "{info}");
        let (mut out, mut back) = (file(b"old"), Vec::new());
        rig.with(rig.export(image, Format::Raw), Some(&out)).unwrap();
        out.rewind().unwrap();
        out.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "other bytes came back");
        use std::os::unix::fs::MetadataExt;
        assert!(out.metadata().unwrap().blocks() * 512 <= 9 << 20, "holes are holes in a file");
    });
}

#[test]
fn an_import_that_was_cut_off_goes_on_with_another_bmid_and_replaces_what_differs() {
    let (place, bytes) = (place(id(121)), holed());
    ceph().inside(|| {
        for spoilt in [false, true] {
            let (first, _one) = driver();
            let rig = Rig { driver: &first, place: Place::Rbd(place.clone()), datastore: id(121) };
            rig.apply(rig.make()).unwrap();
            let step = Import { staging: format!("cut-{spoilt}"), ..large(&rig, Some(Format::Raw)) };
            let came = AtomicU64::new(0);
            let cx = StepCx {
                input: Some(&file(&bytes)),
                progress: &|n, _| came.store(n, Ordering::Relaxed),
                cancelled: &|| came.load(Ordering::Relaxed) >= 44 << 20,
            };
            let Step::Storage(it) = step.clone().into() else { unreachable!() };
            assert_eq!(first.apply(&it, &cx).unwrap_err().kind, Kind::Cancelled);
            assert!(rig.seen().contains(&format!("staging {}", step.staging)), "{:?}", rig.seen());
            let (second, _two) = driver();
            let rig = Rig { driver: &second, ..rig };
            let mut sent = bytes.clone();
            if spoilt {
                sent[41 << 20] ^= 1;
            }
            let imported = rig.with(step.clone(), Some(&file(&sent))).unwrap().imported.unwrap();
            assert_eq!(imported.raw_sha256, hex(&Sha256::digest(&sent)), "spoilt: {spoilt}");
            let (mut out, mut back) = (file(b""), Vec::new());
            rig.with(rig.export(Backing::image(id(1)), Format::Raw), Some(&out)).unwrap();
            out.rewind().unwrap();
            out.read_to_end(&mut back).unwrap();
            assert!(back == sent, "spoilt: {spoilt}");
            rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
            assert_eq!(rig.seen().len(), 1, "no staging is left: {:?}", rig.seen());
        }
    });
}

#[test]
fn a_qcow2_comes_in_as_raw_and_goes_out_as_qcow2() {
    let ((driver, scratch), place) = (driver(), place(id(122)));
    let rig = Rig { driver: &driver, place: Place::Rbd(place), datastore: id(122) };
    let at = |name: &str| scratch.path().join(name);
    std::fs::write(at("raw"), disk()).unwrap();
    let qemu = |args: &[&str], from: &str, to: &str| {
        let status = Command::new("qemu-img").args(args).arg(at(from)).arg(at(to)).status().unwrap();
        assert!(status.success());
    };
    qemu(&["convert", "-f", "raw", "-O", "qcow2"], "raw", "q");
    ceph().inside(|| {
        rig.apply(rig.make()).unwrap();
        let step = rig.import(id(1), None);
        let imported = rig.with(step, Some(&std::fs::File::open(at("q")).unwrap())).unwrap().imported.unwrap();
        let padded = disk().len().next_multiple_of(512);
        assert_eq!((imported.source_format, imported.size_bytes), (Format::Qcow2, Bytes(padded as u64)));
        assert_eq!(imported.raw_sha256, hex(&Sha256::digest(disk())));
        let out = std::fs::File::create_new(at("out")).unwrap();
        rig.with(rig.export(Backing::image(id(1)), Format::Qcow2), Some(&out)).unwrap();
        assert_eq!(rig.seen().len(), 2, "{:?}", rig.seen());
    });
    qemu(&["convert", "-f", "qcow2", "-O", "raw"], "out", "back");
    assert!(std::fs::read(at("back")).unwrap() == disk());
    assert_eq!(std::fs::read_dir(at("scratch")).unwrap().count(), 0, "nothing stays on this host");
}

#[test]
fn an_unfinished_import_that_nobody_came_for_goes_and_a_young_one_stays() {
    let ((first, _one), place, bytes) = (driver(), place(id(123)), holed());
    ceph().inside(|| {
        let rig = Rig { driver: &first, place: Place::Rbd(place.clone()), datastore: id(123) };
        rig.apply(rig.make()).unwrap();
        for name in ["old", "young"] {
            let step = Import { staging: name.to_owned(), ..large(&rig, Some(Format::Raw)) };
            let (input, came) = (file(&bytes), AtomicU64::new(0));
            let cx = StepCx {
                input: Some(&input),
                progress: &|n, _| came.store(n, Ordering::Relaxed),
                cancelled: &|| came.load(Ordering::Relaxed) >= 1 << 20,
            };
            let Step::Storage(it) = step.into() else { unreachable!() };
            assert_eq!(first.apply(&it, &cx).unwrap_err().kind, Kind::Cancelled);
        }
        let pool = first.connect(id(123), &place).unwrap().pool;
        let key = format!("stage.{}.old", id(123));
        let mut stage: import::Stage = pool.entry(&key).unwrap().unwrap();
        stage.touched -= 8 * 24 * 3_600;
        pool.set_entry(&key, &stage).unwrap();
        first.connect(id(123), &place).unwrap().chores.ring();
        for _ in 0..600 {
            let staged = ceph().tool(&["rbd", "ls", &place.spec()]);
            if !rig.seen().contains(&"staging old".to_owned()) && staged.lines().count() == 1 {
                assert!(rig.seen().contains(&"staging young".to_owned()), "{:?}", rig.seen());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{:?}", rig.seen());
    });
}
