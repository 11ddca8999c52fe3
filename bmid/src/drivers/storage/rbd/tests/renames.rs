//! Renaming that was cut off: librbd writes the new name's object, changes the directory, removes the old name's object, and a bmid that
//! died in between leaves an image with two names.

use bmi::model::Format;
use bmi::step::Backing;

use super::chains::{bytes_of, empties};
use super::*;
use crate::drivers::storage::conformance::{disk, file};

/// Where it was cut off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The new name is there, the directory has the old one.
    Begun,
    /// The directory has the new one, the old name is there, too.
    Ending,
}

/// Leaves an image as a renaming does that is cut off.
fn cut_off(place: &RbdPlace, cut: Cut, from: &str, to: &str) {
    let tool = |program: &str, words: &[&str]| {
        let namespace = place.namespace.as_deref().unwrap();
        ceph().tool(&[&[program, "-p", &place.pool, "--namespace", namespace], words].concat())
    };
    let scratch = tempfile::tempdir().unwrap();
    let bytes = scratch.path().join("id");
    let bytes = bytes.to_str().unwrap();
    let object = |name: &str| format!("rbd_id.{name}");
    tool("rados", &["get", &object(from), bytes]);
    let twice = match cut {
        Cut::Begun => to,
        Cut::Ending => {
            tool("rbd", &["rename", from, to]);
            from
        }
    };
    tool("rados", &["put", &object(twice), bytes]);
}

/// No name leads anywhere any more, once the trash is empty.
fn nothing_is_left(rig: &Rig<'_>, place: &RbdPlace) {
    assert_eq!(rig.seen().len(), 1, "{:?}", rig.seen());
    empties(&place.spec());
    let namespace = place.namespace.as_deref().unwrap();
    let objects = ceph().tool(&["rados", "-p", &place.pool, "--namespace", namespace, "ls"]);
    let images: Vec<&str> = objects.lines().filter(|o| o.starts_with("rbd_id.") || o.contains("header.")).collect();
    assert!(images.is_empty(), "{images:?}");
}

#[test]
fn a_tagged_volume_whose_removal_was_cut_off_in_its_renaming_is_removed_and_its_tag_stays() {
    let ((driver, _scratch), place) = (driver(), place(id(140)));
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(140) };
        rig.apply(rig.make()).unwrap();
        rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(&disk()))).unwrap();
        for cut in [Cut::Begun, Cut::Ending] {
            let (volume, tag, back) = (Backing::volume(id(2), 0), Backing::snapshot(id(3)), Backing::volume(id(2), 1));
            rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap();
            rig.apply(rig.clone(volume, tag)).unwrap();
            cut_off(&place, cut, &volume.rbd_name(&place.prefix()), &names::hidden(&place.prefix(), &volume));
            rig.apply(rig.clone(tag, back)).unwrap();
            rig.apply(rig.remove(volume)).unwrap();
            assert!(!rig.apply(rig.remove(volume)).unwrap().changed, "{cut:?}: it is gone");
            assert!(bytes_of(&rig, tag) == disk(), "{cut:?}");
            rig.apply(rig.remove(back)).unwrap();
            rig.apply(rig.remove(tag)).unwrap();
        }
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
        nothing_is_left(&rig, &place);
    });
}

#[test]
fn an_import_that_was_cut_off_in_its_last_renaming_keeps_the_golden_image() {
    let place = place(id(141));
    ceph().inside(|| {
        for cut in [Cut::Begun, Cut::Ending] {
            let (driver, _scratch) = driver();
            let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(141) };
            rig.apply(rig.make()).unwrap();
            let (image, step) = (Backing::image(id(1)), rig.import(id(1), Some(Format::Raw)));
            rig.with(step.clone(), Some(&file(&disk()))).unwrap();
            // As it was a moment before the name that is last.
            let pool = driver.connect(id(141), &place).unwrap().pool;
            let [staged, _] = import::staged(&pool, &step.staging);
            let whole = image.rbd_name(&place.prefix());
            pool.rename(&whole, &staged).unwrap();
            cut_off(&place, cut, &staged, &whole);
            rig.with(step, Some(&file(&disk()))).unwrap();
            empties(&place.spec());
            assert!(bytes_of(&rig, image) == disk(), "{cut:?}: what stays has its bytes");
            assert_eq!(rig.seen().len(), 2, "{:?}", rig.seen());
            rig.apply(rig.remove(image)).unwrap();
            nothing_is_left(&rig, &place);
        }
    });
}

#[test]
fn a_clone_whose_maker_died_before_its_name_was_listed_is_made() {
    let ((driver, scratch), place) = (driver(), place(id(142)));
    ceph().inside(|| {
        let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(142) };
        rig.apply(rig.make()).unwrap();
        rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(&disk()))).unwrap();
        let (volume, namespace) = (Backing::volume(id(2), 0), place.namespace.as_deref().unwrap());
        let bytes = scratch.path().join("id");
        std::fs::write(&bytes, names::encode(b"10e5b2fc9a0c")).unwrap();
        let object = format!("rbd_id.{}", volume.rbd_name(&place.prefix()));
        ceph().tool(&["rados", "-p", &place.pool, "--namespace", namespace, "put", &object, bytes.to_str().unwrap()]);
        rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap();
        assert!(bytes_of(&rig, volume) == disk());
        rig.apply(rig.remove(volume)).unwrap();
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
        nothing_is_left(&rig, &place);
    });
}
