//! Clones that are made as librbd made one: the same to everybody, wherever they are cut off, and librbd's own where that cannot be.

use std::collections::BTreeMap;
use std::sync::Arc;

use bmi::step::Backing;
use nix::errno::Errno;

use super::alike::{Made, Making};
use super::chains::{bytes_of, golden};
use super::halves::{Half, half_made, nothing_is_left};
use super::pattern::Pattern;
use super::pool::{dir_entry, header, id_object, object_map};
use super::*;
use crate::drivers::storage::conformance::disk;

fn image() -> Backing {
    Backing::image(id(1))
}

fn volume(n: u8) -> Backing {
    Backing::volume(id(n), 0)
}

/// All turns but the mark.
const TURNS: usize = 3;

/// A pool with a golden image of which librbd has made a clone, volume 2.
struct Learnt<'a> {
    rig: Rig<'a>,
    place: &'a RbdPlace,
    pool: Arc<Pool>,
    golden: String,
    pattern: Arc<Pattern>,
}

impl<'a> Learnt<'a> {
    fn new(driver: &'a RbdStore, place: &'a RbdPlace, meta: &[[&str; 2]]) -> Learnt<'a> {
        let rig = golden(driver, place, place.datastore);
        let name = image().rbd_name(&place.prefix());
        for [key, value] in meta {
            tool(place, "rbd", &["image-meta", "set", &name, key, value]);
        }
        rig.apply(rig.clone(image(), volume(2))).unwrap();
        let pool = driver.connect(place.datastore, place).unwrap().pool;
        let id = pool.id_of(&name).unwrap().unwrap();
        let pattern = pool.recent.pattern(&image(), &id).flatten().expect("librbd's clone was learnt from");
        Learnt { rig, place, pool, golden: id, pattern }
    }

    /// Makes a clone alike with this id, without its mark, as far as so many turns lead.
    fn alike(&self, what: Backing, id: &str, turns: usize) -> Result<(), Errno> {
        let name = what.rbd_name(&self.place.prefix());
        let making = Making::new(&self.pool, &self.pattern, &name, id)?;
        let metadata = making.enter()?;
        if turns > 1 {
            making.write(&metadata)?;
        }
        if turns > 2 { making.attach() } else { Ok(()) }
    }

    fn end(&self, left: &[Backing]) {
        for what in left {
            self.rig.apply(self.rig.remove(*what)).unwrap();
        }
        self.rig.apply(self.rig.remove(image())).unwrap();
        nothing_is_left(&self.rig, self.place);
    }
}

/// What it is called, how many turns lead there, and what of the last is taken back; the latter gets the clone's id.
type Cut<'a> = (&'a str, usize, &'a dyn Fn(&str));

/// All that an image's header holds and what its object map is, but for what is each image's own.
fn written(pool: &Pool, what: Backing) -> (BTreeMap<String, Vec<u8>>, Vec<u8>) {
    let id = pool.id_of(&what.rbd_name(&pool.place.prefix())).unwrap().unwrap();
    let (keys, more) = pool.io.keys(&header(&id), "", "").unwrap();
    assert!(!more);
    let mut keys: BTreeMap<String, Vec<u8>> = keys.into_iter().collect();
    let prefix = keys.insert("object_prefix".to_owned(), Vec::new()).unwrap();
    assert_eq!(prefix, names::encode(format!("rbd_data.{id}").as_bytes()));
    for time in ["access_timestamp", "create_timestamp", "modify_timestamp"] {
        assert_eq!(keys.insert(time.to_owned(), Vec::new()).unwrap().len(), 8, "{time}");
    }
    assert!(keys.remove("metadata_bmid").is_some(), "it has its mark");
    (keys, pool.io.read(&object_map(&id)).unwrap())
}

#[test]
fn a_clone_made_alike_is_what_librbd_makes() {
    let ((driver, _scratch), place) = (driver(), place(id(150)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[["conf_rbd_cache", "false"], ["owner", "somebody"]]);
        let (rig, pool, name) = (&its.rig, &*its.pool, image().rbd_name(&place.prefix()));
        // librbd cannot find the golden image: only what is made without it comes about.
        let kept = pool.io.read(&id_object(&name)).unwrap();
        pool.io.remove_object(&id_object(&name)).unwrap();
        assert!(rig.apply(rig.clone(image(), volume(3))).unwrap().changed);
        assert!(!rig.apply(rig.clone(image(), volume(3))).unwrap().changed, "it is there already");
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("id");
        std::fs::write(&file, kept).unwrap();
        tool(&place, "rados", &["put", &id_object(&name), file.to_str().unwrap()]);
        let (librbd, alike) = (written(pool, volume(2)), written(pool, volume(3)));
        assert_eq!(librbd, alike);
        assert!(librbd.0.contains_key("metadata_conf_rbd_cache") && librbd.0.contains_key("metadata_owner"));
        let children = tool(&place, "rbd", &["children", &format!("{name}@base")]);
        assert_eq!(children.lines().count(), 2, "{children}");
        // What its owner sets on the golden image counts for the next clone.
        tool(&place, "rbd", &["image-meta", "set", &name, "owner", "somebody else"]);
        rig.apply(rig.clone(image(), volume(5))).unwrap();
        assert_eq!(written(pool, volume(5)).0["metadata_owner"], b"somebody else");
        rig.apply(rig.remove(volume(5))).unwrap();
        // It is read, written to, tagged, rolled back and flattened like any other.
        let (tag, back) = (Backing::snapshot(id(4)), Backing::volume(id(3), 1));
        assert!(bytes_of(rig, volume(3)) == disk());
        rig.apply(rig.clone(volume(3), tag)).unwrap();
        rig.apply(rig.clone(tag, back)).unwrap();
        tool(&place, "rbd", &["flatten", "--no-progress", &volume(3).rbd_name(&place.prefix())]);
        assert!(bytes_of(rig, volume(3)) == disk() && bytes_of(rig, back) == disk());
        its.end(&[back, tag, volume(3), volume(2)]);
    });
}

#[test]
fn one_that_is_cut_off_anywhere_is_made_anew_and_removed_whole() {
    let ((driver, _scratch), place) = (driver(), place(id(151)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[]);
        let (rig, what) = (&its.rig, volume(3));
        let name = what.rbd_name(&place.prefix());
        let detached = |id: &str| {
            let child = its.pattern.child(id, its.pool.io.id().unwrap(), place.namespace.as_deref().unwrap());
            its.pool.io.exec(&header(&its.golden), c"rbd", "child_detach", &child).unwrap();
        };
        let mapless = |id: &str| its.pool.io.remove_object(&object_map(id)).unwrap();
        let cuts: [Cut<'_>; 7] = [
            ("it is listed", 1, &|_| ()),
            ("and has a name", 2, &|id| its.pool.io.remove_object(&header(id)).unwrap()),
            ("and a header", 2, &|_| its.pool.io.remove_object(&id_object(&name)).unwrap()),
            ("and both", 2, &|_| ()),
            ("it is no child", 3, &detached),
            ("it has no object map", 3, &mapless),
            ("it has no mark", 3, &|_| ()),
        ];
        for (n, (cut, turns, undo)) in (0..).zip(cuts) {
            let [first, second] = [1, 2].map(|time| format!("c0ffee{n}{time}"));
            its.alike(what, &first, turns).unwrap();
            undo(&first);
            assert!(rig.apply(rig.clone(image(), what)).unwrap().changed, "{cut}: made anew");
            assert!(bytes_of(rig, what) == disk(), "{cut}");
            rig.apply(rig.remove(what)).unwrap();
            its.alike(what, &second, turns).unwrap();
            undo(&second);
            rig.apply(rig.remove(what)).unwrap();
            assert!(its.pool.id_of(&name).unwrap().is_none(), "{cut}: removed");
        }
        assert!(its.pool.recent.pattern(&image(), &its.golden).flatten().is_some(), "the next are made alike");
        its.end(&[volume(2)]);
    });
}

#[test]
fn one_that_somebody_removes_while_it_is_made_is_no_child_of_anybodys() {
    let ((driver, _scratch), place) = (driver(), place(id(156)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[]);
        let name = volume(3).rbd_name(&place.prefix());
        let making = Making::new(&its.pool, &its.pattern, &name, "c0ffee").unwrap();
        making.write(&making.enter().unwrap()).unwrap();
        tool(&place, "rbd", &["rm", "--no-progress", &name]);
        making.attach().unwrap();
        let mark = its.pool.mark(&its.golden).unwrap().unwrap();
        let e = its.pool.set_mark("c0ffee", &mark).unwrap_err();
        Made { id: "c0ffee".to_owned(), alike: Some(Arc::clone(&its.pattern)) }.unmarked(&its.pool, e);
        its.end(&[volume(2)]);
    });
}

#[test]
fn what_a_maker_left_that_died_at_once_is_in_no_clones_way() {
    let ((driver, _scratch), place) = (driver(), place(id(154)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[]);
        for half in [Half::Unlisted, Half::Nameless, Half::Headless] {
            half_made(&place, half, &volume(3).rbd_name(&place.prefix()));
            its.rig.apply(its.rig.clone(image(), volume(3))).unwrap();
            assert!(bytes_of(&its.rig, volume(3)) == disk(), "{half:?}");
            its.rig.apply(its.rig.remove(volume(3))).unwrap();
        }
        its.end(&[volume(2)]);
    });
}

#[test]
fn of_a_release_that_nobody_knows_librbd_makes_every_clone() {
    let (driver, _scratch) = driver();
    let later = || library::ffi::load(library::ffi::HOST).map(|api| &*Box::leak(Box::new(Api { release: 21, ..api })));
    let (driver, place) = (RbdStore { api: later, ..driver }, place(id(155)));
    ceph().inside(|| {
        let rig = golden(&driver, &place, place.datastore);
        for n in [2, 3] {
            rig.apply(rig.clone(image(), volume(n))).unwrap();
            assert!(bytes_of(&rig, volume(n)) == disk());
        }
        let pool = driver.connect(place.datastore, &place).unwrap().pool;
        let id = pool.id_of(&image().rbd_name(&place.prefix())).unwrap().unwrap();
        assert!(pool.recent.pattern(&image(), &id).is_some_and(|p| p.is_none()), "and it is not read each time");
    });
}

#[test]
fn an_id_that_another_image_has_leads_to_nothing_and_hurts_nobody() {
    let ((driver, _scratch), place) = (driver(), place(id(153)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[]);
        let (rig, what) = (&its.rig, volume(3));
        let name = |what: Backing| what.rbd_name(&place.prefix());
        for other in [volume(2), image()] {
            let id = its.pool.id_of(&name(other)).unwrap().unwrap();
            assert_eq!(its.alike(what, &id, TURNS), Err(Errno::EBADF));
            assert_eq!(its.pool.id_of(&name(what)).unwrap(), None);
            assert!(!rig.apply(rig.remove(what)).unwrap().changed, "there is nothing of it");
        }
        // Listed, and without a header.
        its.pool.io.exec("rbd_directory", c"rbd", "dir_add_image", &dir_entry("other", "c0ffee")).unwrap();
        assert_eq!(its.alike(what, "c0ffee", TURNS), Err(Errno::EBADF));
        assert_eq!(its.pool.io.read(&header("c0ffee")), Err(Errno::ENOENT));
        its.pool.unlist("other", "c0ffee").unwrap();
        // Neither listed nor in the trash.
        its.pool.io.set_key(&header("c0ffee9"), "size", b"").unwrap();
        assert_eq!(its.alike(what, "c0ffee9", TURNS), Err(Errno::EEXIST));
        assert_eq!(its.pool.name_of("c0ffee9").unwrap(), None);
        its.pool.io.remove_object(&header("c0ffee9")).unwrap();
        // Gone before it is marked.
        let mark = its.pool.mark(&its.golden).unwrap().unwrap();
        assert_eq!(its.pool.set_mark("c0ffee9", &mark), Err(Errno::ENOENT));
        assert_eq!(its.pool.io.read(&header("c0ffee9")), Err(Errno::ENOENT));
        // In a namespace that is being removed (1: no more images; ready is 0).
        its.pool.io.set_key("rbd_directory", "state", &[1]).unwrap();
        assert!(its.alike(what, "c0ffee9", TURNS).is_err());
        its.pool.io.set_key("rbd_directory", "state", &[0]).unwrap();
        assert_eq!(its.pool.name_of("c0ffee9").unwrap(), None);
        // Known to the golden image as one of its clones.
        Making::new(&its.pool, &its.pattern, "", "c0ffee8").unwrap().attach().unwrap();
        assert_eq!(its.alike(what, "c0ffee8", TURNS), Err(Errno::EEXIST));
        rig.apply(rig.clone(image(), what)).unwrap();
        assert!(bytes_of(rig, what) == disk());
        rig.apply(rig.remove(what)).unwrap();
        // One in the trash has its id as well.
        let id = its.pool.id_of(&name(image())).unwrap().unwrap();
        rig.apply(rig.remove(image())).unwrap();
        assert_eq!(its.alike(what, &id, TURNS), Err(Errno::EEXIST));
        assert_eq!(its.pool.name_of(&id).unwrap(), None, "it is not in the directory");
        assert!(bytes_of(rig, volume(2)) == disk(), "the clone's parent is where it was");
        rig.apply(rig.remove(volume(2))).unwrap();
        nothing_is_left(rig, &place);
    });
}

#[test]
fn where_it_cannot_be_made_alike_librbd_says_why() {
    let ((driver, _scratch), place) = (driver(), place(id(152)));
    ceph().inside(|| {
        let its = Learnt::new(&driver, &place, &[]);
        let (rig, pool) = (&its.rig, &*its.pool);
        rig.apply(rig.remove(volume(2))).unwrap();
        super::chains::empties(&place.spec());
        let base = format!("{}@base", image().rbd_name(&place.prefix()));
        tool(&place, "rbd", &["snap", "rm", "--no-progress", &base]);
        let e = rig.apply(rig.clone(image(), volume(3))).unwrap_err();
        assert!(e.why.contains("No such file"), "{e:?}");
        assert!(pool.recent.pattern(&image(), &its.golden).is_none(), "it is forgotten with where the image was");
        tool(&place, "rbd", &["snap", "create", "--no-progress", &base]);
        rig.apply(rig.clone(image(), volume(3))).unwrap();
        assert!(pool.recent.pattern(&image(), &its.golden).flatten().is_some(), "it is learnt from anew");
        // More than is read at once, and than is kept.
        let mut many = 600u32.to_le_bytes().to_vec();
        (0..600).for_each(|n| many.extend([names::encode(format!("{n}").as_bytes()), names::encode(b"x")].concat()));
        pool.io
            .exec(
                &header(&pool.id_of(&image().rbd_name(&place.prefix())).unwrap().unwrap()),
                c"rbd",
                "metadata_set",
                &many,
            )
            .unwrap();
        for n in [4, 5] {
            rig.apply(rig.clone(image(), volume(n))).unwrap();
            assert!(pool.recent.pattern(&image(), &its.golden).is_some_and(|p| p.is_none()), "librbd makes them");
            assert!(bytes_of(rig, volume(n)) == disk());
        }
        its.end(&[volume(3), volume(4), volume(5)]);
    });
}
