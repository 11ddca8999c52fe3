//! What is in a pool already becomes a golden image: by a clone or in place, cut off anywhere, and given back.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bmi::model::{Bytes, Format, RbdSource};
use bmi::step::{Backing, Step, TakeOver, Undoable};
use sha2::{Digest, Sha256};

use super::chains::{bytes_of, empties};
use super::*;
use crate::drivers::storage::conformance::disk;
use crate::drivers::storage::stream::hex;

/// A disk of somebody else's: whole sectors.
fn theirs() -> Vec<u8> {
    let mut bytes = disk();
    bytes.resize(2 << 20, 0);
    bytes
}

/// An image of somebody else's with these bytes.
fn put(spec: &str, name: &str, bytes: &[u8], more: &[&str]) -> RbdSource {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let (path, to) = (file.path().to_str().unwrap().to_owned(), format!("{spec}/{name}"));
    ceph().tool(&[&["rbd", "import", "--no-progress"], more, &[path.as_str(), to.as_str()]].concat());
    to.parse().unwrap()
}

fn step(rig: &Rig<'_>, image: Id, from: &RbdSource, in_place: bool) -> TakeOver {
    let (datastore, place, max_size) = (rig.datastore, rig.place.clone(), Bytes(64 << 20));
    TakeOver { datastore, place, image, from: from.clone(), in_place, size: None, sha256: None, max_size, note: None }
}

fn snaps(source: &RbdSource) -> String {
    let image = RbdSource { snap: None, ..source.clone() };
    ceph().tool(&["rbd", "snap", "ls", "--all", &image.to_string()])
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    assert!(
        (0..600).any(|_| holds() || (std::thread::sleep(std::time::Duration::from_millis(100)), false).1),
        "{what}"
    );
}

#[test]
fn an_image_elsewhere_is_cloned_and_soon_free_again_and_a_snapshot_of_it_too() {
    let ((driver, _scratch), place) = (driver(), place(id(140)));
    let spec = format!("rbd/{}", ceph().namespace());
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(140) };
        rig.apply(rig.make()).unwrap();
        let whole = put(&spec, "vm-1", &theirs(), &[]);
        ceph().tool(&["rbd", "snap", "create", "--no-progress", &format!("{whole}@ready")]);
        let ready = RbdSource { snap: Some("ready".into()), ..whole.clone() };
        for (n, source) in [(1, &whole), (2, &ready)] {
            let step = step(&rig, id(n), source, false);
            let imported = rig.apply(step.clone()).unwrap().imported.unwrap();
            let size = theirs().len() as u64;
            assert_eq!((imported.source_format, imported.size_bytes), (Format::Raw, Bytes(size)));
            assert_eq!([&imported.sha256, &imported.raw_sha256], [&hex(&Sha256::digest(theirs())); 2]);
            let again = rig.apply(step).unwrap();
            assert_eq!(again, Done { changed: false, imported: Some(imported) }, "the same answer");
            assert!(bytes_of(&rig, Backing::image(id(n))) == theirs());
        }
        rig.apply(rig.clone(Backing::image(id(1)), Backing::volume(id(3), 0))).unwrap();
        eventually("the other's image is free", || snaps(&whole).lines().count() == 2);
        assert!(snaps(&whole).contains("ready"), "its own snapshot stays: {}", snaps(&whole));
        // `rbd children` would look into every pool, those included that others made to be out of order.
        ceph().tool(&["rbd", "snap", "rm", "--no-progress", &ready.to_string()]);
        ceph().tool(&["rbd", "rm", "--no-progress", &whole.to_string()]);
        assert!(bytes_of(&rig, Backing::volume(id(3), 0)) == theirs(), "a disk of it has its bytes");
        for what in [Backing::volume(id(3), 0), Backing::image(id(1)), Backing::image(id(2))] {
            rig.apply(rig.remove(what)).unwrap();
        }
        assert_eq!(rig.seen().len(), 1);
        rig.apply(rig.unmake()).unwrap();
        empties(&place.spec());
    });
}

#[test]
fn an_image_in_place_keeps_its_name_through_it_and_is_given_back_with_its_bytes() {
    let ((driver, _scratch), place) = (driver(), place(id(141)));
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(141) };
        rig.apply(rig.make()).unwrap();
        let source = put(&place.spec(), "debian", &theirs(), &[]);
        let (golden, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
        let step = step(&rig, id(1), &source, true);
        let imported = rig.apply(step.clone()).unwrap().imported.unwrap();
        assert_eq!(imported.sha256, hex(&Sha256::digest(theirs())));
        assert!(!rig.apply(step.clone()).unwrap().changed);
        assert!(rig.seen().contains(&format!("{:?}", bmi::step::Seen::Backing(golden))), "{:?}", rig.seen());
        let twice = TakeOver { image: id(9), ..step };
        let e = rig.apply(twice.clone()).unwrap_err();
        assert!(e.kind == Kind::Conflict && e.why.contains("bmid's own already"), "{e:?}");
        rig.apply(twice.undo()).unwrap();
        let (copy, before) = (Backing::image(id(3)), Backing::volume(id(4), 0));
        rig.apply(rig.clone(golden, before)).unwrap();
        // Its owner gives it another name than the one it had for that disk a moment ago.
        let renamed = RbdSource { image: "debian-12".into(), ..source.clone() };
        ceph().tool(&["rbd", "rename", &source.to_string(), &renamed.to_string()]);
        rig.apply(rig.clone(golden, copy)).unwrap();
        rig.apply(rig.clone(golden, volume)).unwrap();
        for disk in [golden, before, copy, volume] {
            assert!(bytes_of(&rig, disk) == theirs(), "{disk:?}");
        }
        assert_eq!(rig.apply(rig.unmake()).unwrap_err().kind, Kind::Conflict, "it counts as a disk");
        assert!(rig.apply(rig.remove(golden)).unwrap().changed);
        assert!(!rig.apply(rig.remove(golden)).unwrap().changed);
        assert!(bytes_of(&rig, volume) == theirs(), "disks made from it stay");
        for disk in [before, copy, volume] {
            rig.apply(rig.remove(disk)).unwrap();
        }
        assert_eq!(rig.seen().len(), 1);
        eventually("no snapshot is left", || snaps(&renamed).is_empty());
        let spec = renamed.to_string();
        assert_eq!(
            ceph().tool(&["rbd", "image-meta", "ls", &spec]),
            "There are 0 metadata on this image.\n\n".trim_end_matches('\n').to_owned() + "\n"
        );
        let (sums, path) = (hex(&Sha256::digest(theirs())), tempfile::tempdir().unwrap());
        let out = path.path().join("out");
        ceph().tool(&["rbd", "export", "--no-progress", &spec, out.to_str().unwrap()]);
        assert_eq!(hex(&Sha256::digest(std::fs::read(out).unwrap())), sums, "its bytes are what they were");
        rig.apply(rig.unmake()).unwrap();
        assert_eq!(ceph().tool(&["rbd", "ls", &place.spec()]), "debian-12\n");
    });
}

#[test]
fn cut_off_anywhere_a_taking_over_goes_on_by_itself_or_leaves_nothing() {
    let place = place(id(142));
    ceph().inside(|| {
        for in_place in [false, true] {
            let source = put(&place.spec(), "vm", &theirs(), &[]);
            // Until it is never asked so often.
            for at in 0.. {
                let cut = |rig: &Rig<'_>, driver: &RbdStore| {
                    let asked = AtomicU32::new(0);
                    let cx = StepCx { cancelled: &|| asked.fetch_add(1, Ordering::Relaxed) == at, ..StepCx::PLAIN };
                    let Step::Storage(it) = step(rig, id(1), &source, in_place).into() else { unreachable!() };
                    driver.apply(&it, &cx)
                };
                let ((driver, _one), (other, _two)) = (driver(), driver());
                let rig = |driver| Rig { driver, place: Place::Rbd(place.clone()), datastore: id(142) };
                rig(&driver).apply(rig(&driver).make()).unwrap();
                let ended = cut(&rig(&driver), &driver);
                rig(&other).apply(rig(&other).remove(Backing::image(id(1)))).unwrap();
                assert_eq!(rig(&other).seen().len(), 1, "{at}: taken back");
                eventually("no snapshot is left", || snaps(&source).is_empty());
                assert_eq!(ceph().tool(&["rbd", "ls", &place.spec()]), "vm\n", "{at}");
                let pool = other.connect(id(142), &place).unwrap().pool;
                assert!(pool.entries::<serde_json::Value>("from.").unwrap().is_empty(), "{at}");
                if ended.is_ok() {
                    assert!(at > 3, "it was cut off {at} times");
                    break;
                }
                assert_eq!(ended.unwrap_err().kind, Kind::Cancelled);
                cut(&rig(&driver), &driver).unwrap_err();
                let done = rig(&other).apply(step(&rig(&other), id(1), &source, in_place)).unwrap();
                assert!(done.imported.is_some_and(|i| i.sha256 == hex(&Sha256::digest(theirs()))), "{at}");
                assert_eq!(rig(&other).seen().len(), 2, "{at}: gone on with");
                rig(&other).apply(rig(&other).remove(Backing::image(id(1)))).unwrap();
                eventually("no snapshot is left", || snaps(&source).is_empty());
            }
            ceph().tool(&["rbd", "rm", "--no-progress", &source.to_string()]);
        }
    });
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_the_reason_and_stays_as_it_was() {
    let ((driver, _scratch), place) = (driver(), place(id(143)));
    let (spec, n) = (place.spec(), AtomicU8::new(10));
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(143) };
        rig.apply(rig.make()).unwrap();
        let refused = |source: &RbdSource, in_place: bool, kind: Kind, why: &str, fix: &str| {
            let step = step(&rig, id(n.fetch_add(1, Ordering::Relaxed)), source, in_place);
            let e = rig.apply(step.clone()).unwrap_err();
            assert!(e.kind == kind && e.why.contains(why) && e.fix.contains(fix), "{e:?}");
            rig.apply(step.undo()).unwrap();
        };
        let named = |name: &str| -> RbdSource { format!("{spec}/{name}").parse().unwrap() };
        let plain = put(&spec, "plain", &theirs(), &[]);
        let journaled = put(&spec, "journaled", &theirs(), &["--image-feature", "layering,exclusive-lock,journaling"]);
        let layerless = put(&spec, "layerless", &theirs(), &["--image-feature", "exclusive-lock"]);
        let luks = put(&spec, "luks", &[&b"LUKS\xba\xbe"[..], &theirs()].concat()[..1 << 20], &[]);
        let qcow2 = put(&spec, "qcow2", &[&b"QFI\xfb\0\0\0\x03"[..], &theirs()].concat()[..1 << 20], &[]);
        let (large, empty) = (named("large"), named("empty"));
        ceph().tool(&["rbd", "create", "--size", "1G", &large.to_string()]);
        ceph().tool(&["rbd", "create", "--size", "0", &empty.to_string()]);
        refused(&named("none"), false, Kind::NotFound, "there is no", "rbd ls");
        refused(&named("plain@none"), false, Kind::NotFound, "there is no", "rbd snap ls");
        refused(&"nopool/vm".parse().unwrap(), false, Kind::NotFound, "there is no nopool/vm", "rbd ls nopool");
        refused(&journaled, false, Kind::Invalid, "journaled", "POOL/IMAGE@SNAPSHOT");
        refused(&journaled, true, Kind::Invalid, "journaled", "POOL/IMAGE@SNAPSHOT");
        refused(&layerless, false, Kind::Invalid, "layering", "rbd export");
        refused(&luks, false, Kind::Invalid, "encrypted", "rbd export");
        refused(&qcow2, false, Kind::Invalid, "holds a qcow2 file", "--format qcow2");
        refused(&large, false, Kind::Limit, "1073741824 bytes", "max_image");
        refused(&empty, false, Kind::Invalid, "0 bytes", "rbd resize");
        let opened = driver.connect(id(143), &place).unwrap().pool.open(image::ffi::Which::Name("plain")).unwrap();
        refused(&plain, true, Kind::Busy, "is open: 1 clients", "leave --in-place out");
        drop(opened);
        let lied = TakeOver { sha256: Some("00".repeat(32)), ..step(&rig, id(1), &plain, false) };
        assert_eq!(rig.apply(lied.clone()).unwrap_err().kind, Kind::Corrupt);
        rig.apply(lied.undo()).unwrap();
        rig.apply(step(&rig, id(1), &plain, false)).unwrap();
        let ours = named(&Backing::image(id(1)).rbd_name(&place.prefix()));
        refused(&ours, false, Kind::Conflict, "bmid's own already", "image copy");
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
        for source in [&plain, &journaled, &layerless, &luks, &qcow2, &large] {
            eventually("no snapshot is left", || snaps(source).is_empty());
        }
        let left = ceph().tool(&["rbd", "ls", &spec]);
        assert!(!left.contains("bmi."), "{left}");
    });
}

#[test]
fn a_pool_that_the_user_may_not_use_is_told_with_the_rights_for_both() {
    let here = place(id(144));
    let there = ceph().namespace();
    let osd = format!("profile rbd pool=rbd namespace={}", here.namespace.as_deref().unwrap());
    let key = ceph().user("narrow", "profile rbd", &osd);
    let place = RbdPlace { user: "narrow".into(), keyring: Some(key.to_str().unwrap().to_owned()), ..here };
    let (driver, _scratch) = driver();
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(144) };
        rig.apply(rig.make()).unwrap();
        let source = put(&format!("rbd/{there}"), "vm", &theirs(), &[]);
        let e = rig.apply(step(&rig, id(1), &source, false)).unwrap_err();
        assert!(e.why.contains("refuses it to this user"), "{e:?}");
        assert!(
            e.fix.contains(&format!(
                "ceph auth caps client.narrow mon 'profile rbd' osd '{osd}, profile rbd pool=rbd namespace={there}'"
            )),
            "{e:?}"
        );
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
    });
}
