//! What stands on what: nothing that may be deleted is held by what was made from it, and chains stay short.

use bmi::model::Format;
use bmi::step::Backing;

use super::image::ffi::Which;
use super::*;
use crate::drivers::storage::conformance::{disk, file};

/// A rig with one golden image.
pub(super) fn golden<'a>(driver: &'a RbdStore, place: &RbdPlace, datastore: Id) -> Rig<'a> {
    let rig = Rig { driver, place: Place::Rbd(place.clone()), datastore };
    rig.apply(rig.make()).unwrap();
    rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(&disk()))).unwrap();
    rig
}

pub(super) fn bytes_of(rig: &Rig<'_>, what: Backing) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut out = file(b"");
    rig.with(rig.export(what, Format::Raw), Some(&out)).unwrap();
    out.rewind().unwrap();
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes).unwrap();
    bytes
}

pub(super) fn empties(spec: &str) {
    for _ in 0..600 {
        if ceph().tool(&["rbd", "trash", "ls", "--all", spec]).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the trash is not emptied: {}", ceph().tool(&["rbd", "trash", "ls", "--all", spec]));
}

#[test]
fn what_was_made_from_it_outlives_a_removed_image_and_the_trash_empties_behind_the_last() {
    let ((driver, _scratch), place) = (driver(), place(id(101)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(101));
        let (image, volume, tag) = (Backing::image(id(1)), Backing::volume(id(2), 0), Backing::snapshot(id(3)));
        rig.apply(rig.clone(image, volume)).unwrap();
        rig.apply(rig.clone(volume, tag)).unwrap();
        rig.apply(rig.remove(image)).unwrap();
        rig.apply(rig.remove(volume)).unwrap();
        let again = Backing::volume(id(2), 1);
        rig.apply(rig.clone(tag, again)).unwrap();
        assert!(bytes_of(&rig, again) == disk(), "the bytes of the tag came back");
        rig.apply(rig.remove(tag)).unwrap();
        rig.apply(rig.remove(again)).unwrap();
        assert_eq!(rig.seen().len(), 1, "{:?}", rig.seen());
        empties(&place.spec());
        assert_eq!(ceph().tool(&["rbd", "ls", &place.spec()]), "");
    });
}

#[test]
fn a_rollback_reads_what_the_tag_saw_and_a_clone_what_its_volume_has() {
    let ((driver, _scratch), place) = (driver(), place(id(102)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(102));
        let (volume, tag) = (Backing::volume(id(2), 0), Backing::snapshot(id(3)));
        rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap();
        rig.apply(rig.clone(volume, tag)).unwrap();
        let pool = driver.connect(id(102), &place).unwrap().pool;
        let open = pool.open(image::ffi::Which::Name(&volume.rbd_name(&place.prefix()))).unwrap();
        open.write(4_096, &[42; 512]).unwrap();
        drop(open);
        let (copy, back) = (Backing::volume(id(4), 0), Backing::volume(id(2), 1));
        rig.apply(rig.clone(volume, copy)).unwrap();
        rig.apply(rig.clone(tag, back)).unwrap();
        let mut changed = disk();
        changed[4_096..4_608].fill(42);
        assert!(bytes_of(&rig, copy) == changed, "a copy has what was written");
        assert!(bytes_of(&rig, back) == disk(), "a rollback has not");
        let snaps =
            ceph().tool(&["rbd", "snap", "ls", &format!("{}/{}", place.spec(), volume.rbd_name(&place.prefix()))]);
        assert!(!snaps.contains("bmi.to."), "what a copy was made through is gone: {snaps}");
    });
}

#[test]
fn a_chain_of_rollbacks_is_flattened_in_the_background() {
    let ((driver, _scratch), place) = (driver(), place(id(103)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(103));
        rig.apply(rig.clone(Backing::image(id(1)), Backing::volume(id(2), 0))).unwrap();
        for n in 0..5u8 {
            let (now, tag) = (Backing::volume(id(2), n.into()), Backing::snapshot(id(10 + n)));
            rig.apply(rig.clone(now, tag)).unwrap();
            rig.apply(rig.clone(tag, Backing::volume(id(2), u32::from(n) + 1))).unwrap();
            rig.apply(rig.remove(now)).unwrap();
        }
        let last = Backing::volume(id(2), 5);
        let chain = || {
            let (mut names, mut at) = (Vec::new(), format!("{}/{}", place.spec(), last.rbd_name(&place.prefix())));
            while let Some(parent) = ceph()
                .tool(&["rbd", "info", &at])
                .lines()
                .find_map(|l| l.trim().strip_prefix("parent: ").map(str::to_owned))
            {
                at = parent.split('@').next().unwrap().to_owned();
                names.push(at.clone());
            }
            names
        };
        for _ in 0..600 {
            if chain().len() <= 4 {
                assert!(bytes_of(&rig, last) == disk());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{:?}", chain());
    });
}

#[test]
fn what_outruns_the_flattening_is_refused_before_the_kernel_would_refuse_its_disk() {
    let ((driver, _scratch), place) = (driver(), place(id(109)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(109));
        let (volume, tag) = (Backing::volume(id(2), 0), Backing::snapshot(id(10)));
        rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap();
        rig.apply(rig.clone(volume, tag)).unwrap();
        let pool = driver.connect(id(109), &place).unwrap().pool;
        let own = pool.id_of(&volume.rbd_name(&place.prefix())).unwrap().unwrap();
        let deep = |depth| pool.change_mark(&own, |mark| std::mem::replace(&mut mark.depth, depth) != depth).unwrap();
        let back = |n| rig.apply(rig.clone(tag, Backing::volume(id(2), n)));
        deep(15);
        assert!(back(1).unwrap().changed, "sixteen are followed");
        deep(16);
        let before = rig.seen();
        for from in [tag, volume] {
            let refused = rig.apply(rig.clone(from, Backing::volume(id(2), 2))).unwrap_err();
            assert_eq!(refused.kind, Kind::Busy, "{refused}");
            assert!(refused.to_string().contains("16 images stand above"), "{refused}");
        }
        assert_eq!(rig.seen(), before, "nothing was begun");
        // What the flattening leaves.
        deep(0);
        assert!(back(2).unwrap().changed);
        assert!(bytes_of(&rig, Backing::volume(id(2), 2)) == disk());
    });
}

#[test]
fn a_half_made_clone_is_no_disk_and_is_made_anew() {
    let ((driver, _scratch), place) = (driver(), place(id(104)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(104));
        let volume = Backing::volume(id(2), 0);
        let before = rig.seen();
        let pool = driver.connect(id(104), &place).unwrap().pool;
        pool.io.create(&volume.rbd_name(&place.prefix()), 1 << 20).unwrap();
        assert_eq!(rig.seen(), before, "without a mark it is not seen");
        assert!(rig.apply(rig.clone(Backing::image(id(1)), volume)).unwrap().changed);
        assert!(bytes_of(&rig, volume) == disk());
        // Cut off behind librbd's work: it has copied the parent's mark into the clone.
        let (image, cut) = (Backing::image(id(1)).rbd_name(&place.prefix()), Backing::volume(id(6), 0));
        let seen = rig.seen();
        let copied = || {
            pool.io.make_clone(&pool.io, &image, names::BASE, &cut.rbd_name(&place.prefix())).unwrap();
            let there = format!("{}/{}", place.spec(), cut.rbd_name(&place.prefix()));
            assert!(
                ceph().tool(&["rbd", "image-meta", "ls", &there]).contains("bmid"),
                "this librbd copies no metadata"
            );
            assert_eq!(rig.seen(), seen, "a parent's mark makes it no disk");
        };
        copied();
        assert!(rig.apply(rig.remove(cut)).unwrap().changed);
        copied();
        assert!(rig.apply(rig.clone(Backing::image(id(1)), cut)).unwrap().changed);
        assert!(bytes_of(&rig, cut) == disk());
        // And taken back: a name without a mark goes, too.
        pool.io.create(&Backing::volume(id(5), 0).rbd_name(&place.prefix()), 1 << 20).unwrap();
        assert!(rig.apply(rig.remove(Backing::volume(id(5), 0))).unwrap().changed);
    });
}

#[test]
fn engines_that_share_a_pool_never_touch_one_anothers_disks() {
    let ((driver, _scratch), here) = (driver(), place(id(105)));
    let there = RbdPlace { datastore: id(106), ..here.clone() };
    ceph().inside(|| {
        ceph().tool(&["rbd", "create", "--size", "1M", &format!("{}/vm-1", here.spec())]);
        let rig = golden(&driver, &here, id(105));
        let other = Rig { driver: &driver, place: Place::Rbd(there.clone()), datastore: id(106) };
        let foreign = bmi::step::MakeStore { engine: id(201), ..other.make() };
        assert!(other.apply(foreign).unwrap().changed, "another engine may use the pool, too");
        assert_eq!(other.seen().len(), 1, "{:?}", other.seen());
        other.apply(other.remove(Backing::image(id(1)))).unwrap();
        other.apply(other.unmake()).unwrap();
        assert_eq!(rig.seen().len(), 2, "{:?}", rig.seen());
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
        rig.apply(rig.unmake()).unwrap();
        assert_eq!(ceph().tool(&["rbd", "ls", &here.spec()]), "vm-1\n");
    });
}

/// What librbd does last for a child that goes, done for one that stays: its parent no longer knows it.
fn forget_child(pool: &super::pool::Pool, parent: &str, snap: u64, child: &str) {
    let pools = ceph().tool(&["ceph", "osd", "lspools"]);
    let number = pools.lines().find_map(|l| l.split_once(' ').filter(|(_, name)| *name == "rbd")).unwrap().0;
    let (number, namespace) = (number.parse::<i64>().unwrap(), pool.place.namespace.clone().unwrap());
    let mut spec = number.to_le_bytes().to_vec();
    spec.extend(names::encode(child.as_bytes()));
    spec.extend(names::encode(namespace.as_bytes()));
    let mut input = snap.to_le_bytes().to_vec();
    // A structure of version 2 that version 1 can read, and its length.
    input.extend([2, 1]);
    input.extend(u32::try_from(spec.len()).unwrap().to_le_bytes());
    input.extend(spec);
    pool.io.exec(&format!("rbd_header.{parent}"), c"rbd", "child_detach", &input).unwrap();
}

#[test]
fn an_image_whose_last_clone_was_cut_off_in_its_end_leaves_the_trash_all_the_same() {
    let ((driver, _scratch), place) = (driver(), place(id(108)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(108));
        let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
        rig.apply(rig.clone(image, volume)).unwrap();
        let pool = driver.connect(id(108), &place).unwrap().pool;
        let id_of = |what: Backing| pool.id_of(&what.rbd_name(&place.prefix())).unwrap().unwrap();
        let (parent, child) = (id_of(image), id_of(volume));
        rig.apply(rig.remove(image)).unwrap();
        let left = || pool.snap_ids(&parent).unwrap();
        for _ in 0..600 {
            if pool.open_read(Which::Id(&parent), None).unwrap().snaps().unwrap().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert!(left().len() == 1 && trash::purge(&pool, |_| true), "a child keeps it");
        forget_child(&pool, &parent, left()[0], &child);
        // The driver's own sweep may be at it.
        for left in (0..300).rev() {
            if !trash::purge(&pool, |_| true) {
                break;
            }
            assert!(left > 0, "nothing keeps it any more");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        empties(&place.spec());
    });
}

#[test]
fn an_image_is_removed_by_one_at_a_time_and_nobody_waits_for_one_that_is_gone() {
    let ((driver, _scratch), place) = (driver(), place(id(107)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, id(107));
        let pool = driver.connect(id(107), &place).unwrap().pool;
        let trashed = || pool.trashed().unwrap();
        for n in 0..4 {
            // Nothing of the datastore's, or the driver's own sweep could take it.
            let name = format!("other.n.{n}");
            pool.io.create(&name, 16 << 20).unwrap();
            let image = pool.open(Which::Name(&name)).unwrap();
            image.write(0, &[1; 512]).unwrap();
            image.snap("base").unwrap();
            drop(image);
            pool.trash(&name).unwrap();
        }
        let all = trashed();
        let first = trash::Alone::with(&pool, &all[0].0).unwrap();
        assert!(trash::purge(&pool, |_| true), "one is being removed");
        assert_eq!(trashed(), all[..1]);
        drop(first);
        // Now and then librbd waits for ever for the lock of an image that went while it was about to remove it.
        let (its, (of, _)) = (Arc::clone(&pool), all[0].clone());
        let (_held, hangs) = std::sync::mpsc::channel::<()>();
        let done = trash::gone_when(&pool, &all[0].0, move || {
            let image = its.open(Which::Id(&of)).unwrap();
            image.unsnap("base").unwrap();
            drop(image);
            its.trash_remove(&of).unwrap();
            hangs.recv().map_err(|_| nix::errno::Errno::EIO)
        });
        assert_eq!((done, trashed()), (Ok(()), vec![]));
        assert_eq!(rig.seen().len(), 2, "{:?}", rig.seen());
    });
}
