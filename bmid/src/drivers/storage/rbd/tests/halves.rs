//! Making and renaming that were cut off. librbd writes the new name's object, changes the directory, removes the old name's object, and a bmid that
//! died in between leaves an image with two names.

use bmi::model::Format;
use bmi::step::Backing;

use super::chains::{bytes_of, empties, golden};
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
    let tool = |program: &str, words: &[&str]| tool(place, program, words);
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
pub(super) fn nothing_is_left(rig: &Rig<'_>, place: &RbdPlace) {
    assert_eq!(rig.seen().len(), 1, "{:?}", rig.seen());
    empties(&place.spec());
    let objects = tool(place, "rados", &["ls"]);
    let images: Vec<&str> = objects
        .lines()
        .filter(|o| o.starts_with("rbd_id.") || o.contains("header.") || o.contains("object_map."))
        .collect();
    assert!(images.is_empty(), "{images:?}");
}

#[test]
fn a_tagged_volume_whose_removal_was_cut_off_in_its_renaming_is_removed_and_its_tag_stays() {
    let ((driver, _scratch), place) = (driver(), place(id(140)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(140));
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

/// What is there of an image whose maker died in its first moments.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    /// Its name leads to an id that the directory does not have.
    Unlisted,
    /// The directory has it, its name leads nowhere.
    Nameless,
    /// It has name and id, and nothing is there.
    Headless,
}

/// Leaves an image as its making does that is cut off.
pub(super) fn half_made(place: &RbdPlace, half: Half, name: &str) {
    let tool = |program: &str, words: &[&str]| tool(place, program, words);
    tool("rbd", &["create", "--size", "16", name]);
    let info = tool("rbd", &["info", name]);
    let id = info.lines().find_map(|l| l.trim().strip_prefix("id: ")).unwrap();
    let object = |kind: &str, of: &str| tool("rados", &["rm", &format!("rbd_{kind}.{of}")]);
    object("object_map", id);
    object("header", id);
    match half {
        Half::Unlisted => {
            tool("rados", &["rmomapkey", "rbd_directory", &format!("name_{name}")]);
            tool("rados", &["rmomapkey", "rbd_directory", &format!("id_{id}")]);
        }
        Half::Nameless => drop(object("id", name)),
        Half::Headless => {}
    }
}

#[test]
fn what_a_maker_left_that_died_at_once_is_in_nobodys_way() {
    for (n, half) in (142..).zip([Half::Unlisted, Half::Nameless, Half::Headless]) {
        let ((driver, _scratch), place) = (driver(), place(id(n)));
        ceph().inside(|| {
            let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(n) };
            rig.apply(rig.make()).unwrap();
            let step = rig.import(id(1), Some(Format::Raw));
            let pool = driver.connect(id(n), &place).unwrap().pool;
            let [staged, _] = import::staged(&pool, &step.staging);
            half_made(&place, half, &staged);
            rig.with(step, Some(&file(&disk()))).unwrap();
            let golden = Backing::image(id(1));
            let (volume, tag) = (Backing::volume(id(2), 0), Backing::snapshot(id(3)));
            let (back, deep) = (Backing::volume(id(2), 1), Backing::image(id(4)));
            for (from, to) in [(golden, volume), (volume, tag), (tag, back), (volume, deep)] {
                if to != tag {
                    half_made(&place, half, &to.rbd_name(&place.prefix()));
                }
                rig.apply(rig.clone(from, to)).unwrap();
                assert!(bytes_of(&rig, to) == disk(), "{half:?}: {to:?}");
            }
            for what in [back, tag, volume, deep, golden] {
                rig.apply(rig.remove(what)).unwrap();
            }
            nothing_is_left(&rig, &place);
        });
    }
}

#[test]
fn what_is_half_made_is_removed_whole() {
    for (n, half) in (145..).zip([Half::Unlisted, Half::Nameless, Half::Headless]) {
        let ((driver, _scratch), place) = (driver(), place(id(n)));
        ceph().inside(|| {
            let rig = Rig { driver: &driver, place: Place::Rbd(place.clone()), datastore: id(n) };
            rig.apply(rig.make()).unwrap();
            half_made(&place, half, &Backing::volume(id(2), 0).rbd_name(&place.prefix()));
            rig.apply(rig.remove(Backing::volume(id(2), 0))).unwrap();
            nothing_is_left(&rig, &place);
        });
    }
}

#[test]
fn a_copy_is_made_though_the_snapshot_of_an_earlier_try_is_half_removed() {
    let ((driver, _scratch), place) = (driver(), place(id(148)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(148));
        let volume = Backing::volume(id(2), 0);
        rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap();
        let pool = driver.connect(id(148), &place).unwrap().pool;
        let name = volume.rbd_name(&place.prefix());
        let its = pool.id_of(&name).unwrap().unwrap();
        for to in [Backing::image(id(3)), Backing::volume(id(4), 0)] {
            pool.open(image::ffi::Which::Name(&name)).unwrap().snap(&names::through(&to)).unwrap();
            // librbd removes its object map before it takes it off the image.
            let map = format!("rbd_object_map.{its}.{:016x}", pool.snap_ids(&its).unwrap()[0]);
            tool(&place, "rados", &["rm", &map]);
            rig.apply(rig.clone(volume, to)).unwrap();
            assert!(bytes_of(&rig, to) == disk());
        }
    });
}
