//! What every storage driver must keep, the simulator included: each step twice, taken back twice, taken back without
//! having been done, looked at after each, and refused where it must be.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::{Read, Seek, Write};

use bmi::model::{Bytes, Format, Id, Kind, Note, Place, SnapshotNote, StoreNote, Time};
use bmi::step::{
    AdoptStore, Backing, Clone, Contents, Export, Fact, Import, Imported, Look, MakeStore, OpenStore, Remove, Scope,
    Seen, SetNote, Step, StorageStep, StoreFound, UnmakeStore,
};
use sha2::{Digest, Sha256};

use super::sim::SimStore;
use super::stream::hex;
use crate::drivers::{Done, Driver, DriverError, StepCx};

pub(super) fn id(n: u8) -> Id {
    Id::from_random([n; 16])
}

/// A driver with a place for one datastore.
pub(super) struct Rig<'a> {
    pub(super) driver: &'a dyn Driver<Step = StorageStep>,
    pub(super) place: Place,
    pub(super) datastore: Id,
}

impl Rig<'_> {
    pub(super) fn apply(&self, step: impl Into<Step>) -> Result<Done, DriverError> {
        self.with(step, None)
    }

    pub(super) fn with(&self, step: impl Into<Step>, input: Option<&File>) -> Result<Done, DriverError> {
        let Step::Storage(step) = step.into() else { panic!("not a storage step") };
        self.driver.apply(&step, &StepCx { input, ..StepCx::PLAIN })
    }

    /// Does it twice: the first changes, the second does not.
    fn twice(&self, step: impl Into<Step>) {
        let step = step.into();
        assert!(self.apply(step.clone()).unwrap().changed, "{step:?}");
        assert!(!self.apply(step.clone()).unwrap().changed, "again: {step:?}");
    }

    /// All that is seen, sorted to be compared, without the time of staging.
    pub(super) fn seen(&self) -> Vec<String> {
        let scope = Scope::Datastore { datastore: self.datastore, place: self.place.clone() };
        let all = self.driver.observe(&scope).unwrap();
        let mut seen: Vec<String> = all.iter().filter(|s| !matches!(s, Seen::Bare(_))).map(word).collect();
        seen.sort();
        seen
    }

    /// Beside what nothing is written.
    fn bare(&self) -> Vec<Backing> {
        let scope = Scope::Datastore { datastore: self.datastore, place: self.place.clone() };
        let seen = self.driver.observe(&scope).unwrap();
        seen.iter().filter_map(|s| if let Seen::Bare(what) = s { Some(*what) } else { None }).collect()
    }

    pub(super) fn make(&self) -> MakeStore {
        MakeStore { datastore: self.datastore, engine: id(200), place: self.place.clone(), note: store_note() }
    }

    pub(super) fn unmake(&self) -> UnmakeStore {
        UnmakeStore { datastore: self.datastore, place: self.place.clone() }
    }

    pub(super) fn import(&self, image: Id, format: Option<Format>) -> Import {
        Import {
            datastore: self.datastore,
            place: self.place.clone(),
            image,
            staging: format!("import-{image}"),
            format,
            size: None,
            sha256: None,
            max_size: Bytes(64 << 20),
            note: None,
        }
    }

    pub(super) fn clone(&self, from: Backing, to: Backing) -> Clone {
        Clone { datastore: self.datastore, place: self.place.clone(), from, to, note: None }
    }

    pub(super) fn remove(&self, what: Backing) -> Remove {
        Remove { datastore: self.datastore, place: self.place.clone(), what }
    }

    pub(super) fn export(&self, what: Backing, format: Format) -> Export {
        Export { datastore: self.datastore, place: self.place.clone(), what, format }
    }

    pub(super) fn open(&self) -> OpenStore {
        OpenStore { datastore: self.datastore, place: self.place.clone() }
    }
}

/// What the datastores of these tests say of themselves.
pub(crate) fn store_note() -> StoreNote {
    StoreNote { name: "fast".parse().unwrap(), engine_name: "host1".parse().unwrap() }
}

fn word(seen: &Seen) -> String {
    match seen {
        Seen::Staging(name, _) => format!("staging {name}"),
        other => format!("{other:?}"),
    }
}

pub(super) fn file(bytes: &[u8]) -> File {
    let mut f = tempfile::tempfile().unwrap();
    f.write_all(bytes).unwrap();
    f.rewind().unwrap();
    f
}

/// A small disk with a hole in it.
pub(super) fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 300_032];
    bytes[..5_000].fill(7);
    bytes[200_000..].fill(9);
    bytes
}

/// The suite.
pub(super) fn suite(rig: &Rig<'_>) {
    nothing_is_done_where_no_store_is(rig);
    a_store_is_made_once_and_belongs_to_one(rig);
    an_image_is_taken_in_once(rig);
    disks_are_cloned_and_removed(rig);
    bad_input_leaves_nothing(rig);
    a_store_with_disks_stays(rig);
    what_is_noted_is_found_again(rig);
    let facts = facts(rig);
    assert!(!facts.available && facts.problem.is_some(), "{facts:?}");
}

pub(super) fn facts(rig: &Rig<'_>) -> bmi::step::DatastoreFacts {
    match rig.driver.look(&Look::Datastore(rig.datastore, (&rig.place).into())) {
        Some(Ok(Fact::Datastore(facts))) => facts,
        other => panic!("{other:?}"),
    }
}

fn nothing_is_done_where_no_store_is(rig: &Rig<'_>) {
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    let steps: [Step; 5] = [
        rig.import(id(1), None).into(),
        rig.clone(image, volume).into(),
        rig.remove(volume).into(),
        rig.open().into(),
        rig.export(image, Format::Raw).into(),
    ];
    for step in steps {
        assert_eq!(rig.apply(step.clone()).unwrap_err().kind, Kind::Unavailable, "{step:?}");
    }
    assert_eq!(rig.seen(), Vec::<String>::new());
    assert!(!rig.apply(rig.unmake()).unwrap().changed, "taken back without having been made");
    assert!(!facts(rig).available);
}

fn a_store_is_made_once_and_belongs_to_one(rig: &Rig<'_>) {
    rig.twice(rig.make());
    let store = [word(&Seen::Store(rig.datastore))];
    assert_eq!(rig.seen(), store);
    assert!(!rig.apply(rig.open()).unwrap().changed);
    // A cluster that has just started does not know its room yet.
    let known = (0..200).map(|_| facts(rig)).find(|facts| {
        let known = facts.total.0 > 0;
        if !known {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        known
    });
    let facts = known.expect("it tells its size");
    assert!(facts.available && facts.free <= facts.total, "{facts:?}");
    for foreign in [MakeStore { datastore: id(99), ..rig.make() }, MakeStore { engine: id(99), ..rig.make() }] {
        assert_eq!(rig.apply(foreign).unwrap_err().kind, Kind::Conflict);
    }
    let other = Rig { driver: rig.driver, place: rig.place.clone(), datastore: id(99) };
    assert_eq!(other.seen(), Vec::<String>::new(), "another's store is none of that id");
    assert_eq!(other.apply(other.remove(Backing::image(id(1)))).unwrap_err().kind, Kind::Unavailable);
    rig.twice(rig.make().undo_step());
    assert_eq!(rig.seen(), Vec::<String>::new());
    rig.twice(rig.make());
}

trait UndoStep {
    fn undo_step(&self) -> Step;
}
impl<T: std::clone::Clone + Into<Step>> UndoStep for T {
    fn undo_step(&self) -> Step {
        self.clone().into().inverse().unwrap()
    }
}

fn an_image_is_taken_in_once(rig: &Rig<'_>) {
    let bytes = disk();
    let import = rig.import(id(1), Some(Format::Raw));
    assert!(!rig.apply(import.undo_step()).unwrap().changed, "taken back without having been done");
    assert_eq!(rig.apply(import.clone()).unwrap_err().kind, Kind::Interrupted, "no input");
    let done = rig.with(import.clone(), Some(&file(&bytes))).unwrap();
    let sum = hex(&Sha256::digest(&bytes));
    let imported = Imported {
        image: id(1),
        source_format: Format::Raw,
        size_bytes: Bytes(bytes.len() as u64),
        md5: hex(&md5::Md5::digest(&bytes)),
        sha256: sum.clone(),
        raw_sha256: sum,
    };
    assert_eq!(done, Done { changed: true, imported: Some(imported.clone()) });
    let again = rig.apply(import.clone()).unwrap();
    assert_eq!(again, Done { changed: false, imported: Some(imported) }, "the same answer without the input");
    assert_eq!(rig.seen(), [word(&Seen::Backing(Backing::image(id(1)))), word(&Seen::Store(rig.datastore))]);
    let (mut out, mut back) = (file(b"old"), Vec::new());
    assert_eq!(rig.apply(rig.export(Backing::image(id(1)), Format::Raw)).unwrap_err().kind, Kind::Interrupted);
    rig.with(rig.export(Backing::image(id(1)), Format::Raw), Some(&out)).unwrap();
    out.rewind().unwrap();
    out.read_to_end(&mut back).unwrap();
    assert!(back == bytes, "exported bytes differ");
    rig.twice(import.undo_step());
    assert_eq!(rig.seen(), [word(&Seen::Store(rig.datastore))]);
    // Undeclared, and not whole sectors: filled up with zeros.
    let odd = rig.with(rig.import(id(1), None), Some(&file(&bytes[..1_000]))).unwrap().imported.unwrap();
    let mut padded = bytes[..1_000].to_vec();
    padded.resize(1_024, 0);
    assert_eq!((odd.size_bytes, odd.source_format), (Bytes(1_024), Format::Raw));
    assert_eq!(odd.raw_sha256, hex(&Sha256::digest(&padded)));
    assert_eq!(odd.sha256, hex(&Sha256::digest(&bytes[..1_000])));
    rig.twice(import.undo_step());
}

fn disks_are_cloned_and_removed(rig: &Rig<'_>) {
    rig.with(rig.import(id(1), Some(Format::Raw)), Some(&file(&disk()))).unwrap();
    let (image, copy) = (Backing::image(id(1)), Backing::image(id(4)));
    let (volume, next, tag) = (Backing::volume(id(2), 0), Backing::volume(id(2), 1), Backing::snapshot(id(3)));
    let missing = rig.apply(rig.clone(Backing::image(id(77)), volume)).unwrap_err();
    assert_eq!(missing.kind, Kind::Outside);
    let before = rig.seen();
    for (from, to) in [(image, volume), (volume, tag), (tag, next), (tag, copy)] {
        let step = rig.clone(from, to);
        assert!(!rig.apply(step.undo_step()).unwrap().changed, "taken back without having been done");
        rig.twice(step.clone());
        assert!(rig.seen().contains(&word(&Seen::Backing(to))));
        rig.twice(step.undo_step());
        assert!(!rig.seen().contains(&word(&Seen::Backing(to))));
        rig.twice(step);
    }
    assert_eq!(rig.seen().len(), before.len() + 4);
    // A clone outlives what it was made from.
    rig.twice(rig.remove(volume));
    assert!(!rig.apply(rig.clone(tag, next)).unwrap().changed);
    for what in [next, tag, copy, image] {
        rig.twice(rig.remove(what));
    }
    assert_eq!(rig.seen(), [word(&Seen::Store(rig.datastore))]);
}

fn bad_input_leaves_nothing(rig: &Rig<'_>) {
    let good = disk();
    let declared = |size: Option<u64>, sha256: Option<&str>, max: u64| Import {
        size: size.map(Bytes),
        sha256: sha256.map(str::to_owned),
        max_size: Bytes(max),
        ..rig.import(id(1), None)
    };
    let len = good.len() as u64;
    for (step, bytes, kind) in [
        (declared(None, None, len), &b""[..], Kind::Invalid),
        (declared(Some(len + 1), None, len), &good, Kind::Corrupt),
        (declared(Some(len - 1), None, len), &good, Kind::Corrupt),
        (declared(None, Some(&"0".repeat(64)), len), &good, Kind::Corrupt),
        (declared(None, None, len - 1), &good, Kind::Limit),
        (rig.import(id(1), Some(Format::Qcow2)), &good, Kind::Corrupt),
        (rig.import(id(1), Some(Format::Raw)), &b"QFI\xfb\0\0\0\x03"[..], Kind::Corrupt),
        (rig.import(id(1), None), &b"QFI\xfb\0\0\0\x03"[..], Kind::Corrupt),
    ] {
        let e = rig.with(step.clone(), Some(&file(bytes))).unwrap_err();
        assert_eq!(e.kind, kind, "{e}: {step:?}");
        assert!(!e.tried.is_empty() && !e.why.is_empty() && !e.fix.is_empty(), "{e:?}");
        assert_eq!(rig.seen(), [word(&Seen::Store(rig.datastore))], "{step:?}");
    }
    let right = declared(Some(len), Some(&hex(&Sha256::digest(&good)).to_uppercase()), len);
    assert!(rig.with(right, Some(&file(&good))).unwrap().changed);
}

fn a_store_with_disks_stays(rig: &Rig<'_>) {
    assert_eq!(rig.apply(rig.unmake()).unwrap_err().kind, Kind::Conflict);
    rig.twice(rig.remove(Backing::image(id(1))));
    rig.twice(rig.unmake());
}

fn sim(dir: &tempfile::TempDir) -> SimStore {
    SimStore::new(dir.path())
}

fn folder(path: &str) -> Place {
    Place::Folder { path: path.to_owned(), loop_size: None, thin: false }
}

#[test]
fn the_simulator_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let driver = sim(&dir);
    suite(&Rig { driver: &driver, place: folder("/srv/sim"), datastore: id(100) });
}

#[test]
fn the_simulators_world_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = |driver| Rig { driver, place: folder("/srv/sim"), datastore: id(100) };
    let first = sim(&dir);
    rig(&first).apply(rig(&first).make()).unwrap();
    let second = sim(&dir);
    assert_eq!(rig(&second).seen(), [word(&Seen::Store(id(100)))]);
}

#[test]
fn a_simulated_step_that_fails_at_any_point_can_be_repeated_and_taken_back() {
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    let names = ["make_store", "import", "clone", "remove", "unmake_store"];
    for (failing, name) in names.iter().enumerate() {
        for side in ["before", "after", "staged"] {
            if side == "staged" && *name != "import" {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let driver = sim(&dir);
            let rig = Rig { driver: &driver, place: folder("/srv/sim"), datastore: id(100) };
            let steps: [Step; 5] = [
                rig.make().into(),
                rig.import(id(1), Some(Format::Raw)).into(),
                rig.clone(image, volume).into(),
                rig.remove(image).into(),
                rig.unmake().into(),
            ];
            let input = || file(&disk());
            for step in &steps[..failing.min(4)] {
                rig.with(step.clone(), Some(&input())).unwrap();
            }
            if failing == 4 {
                rig.apply(rig.remove(volume)).unwrap();
            }
            std::fs::write(dir.path().join("faults"), format!("fail storage.{name}.{side} 1\n")).unwrap();
            let step = &steps[failing];
            let before = rig.seen();
            assert_eq!(rig.with(step.clone(), Some(&input())).unwrap_err().kind, Kind::Outside);
            if let Some(back) = step.inverse() {
                rig.apply(back).unwrap();
                let kept: Vec<String> = rig.seen().into_iter().filter(|s| !s.starts_with("staging")).collect();
                assert_eq!(kept, before, "{name} {side}: taken back");
            }
            rig.with(step.clone(), Some(&input())).unwrap();
            assert!(!rig.seen().iter().any(|s| s.starts_with("staging")), "{name} {side}");
            assert!(!rig.with(step.clone(), Some(&input())).unwrap().changed);
        }
    }
}

/// What is known of everything in the store.
pub(super) fn contents(rig: &Rig<'_>) -> Contents {
    match rig.driver.look(&Look::Contents(rig.datastore, (&rig.place).into())) {
        Some(Ok(Fact::Contents(contents))) => contents,
        other => panic!("{other:?}"),
    }
}

fn stores(rig: &Rig<'_>) -> Vec<StoreFound> {
    match rig.driver.look(&Look::Stores((&rig.place).into())) {
        Some(Ok(Fact::Stores(found))) => found,
        other => panic!("{other:?}"),
    }
}

fn note_of(rig: &Rig<'_>, what: Backing) -> Option<Note> {
    contents(rig).things.into_iter().find(|t| t.what == what).unwrap_or_else(|| panic!("{what:?}")).note
}

fn tag_note(name: &str) -> Note {
    Note::Snapshot(Box::new(SnapshotNote {
        owner: "default".parse().unwrap(),
        name: name.parse().unwrap(),
        volume: id(2),
        node: Some(id(9)),
        size_bytes: Bytes(300_032),
        image: Some(id(1)),
        created_at: Time(1),
    }))
}

/// A note stands beside its bytes from the moment they are whole, is changed and taken back, and goes with them; a store is found
/// with the name it gave itself, and taken over from the engine that has it and from no other.
fn what_is_noted_is_found_again(rig: &Rig<'_>) {
    rig.twice(rig.make());
    let (image, volume, tag) = (Backing::image(id(1)), Backing::volume(id(2), 4), Backing::snapshot(id(3)));
    let [one, two, three] = ["one", "two", "three"].map(tag_note);
    let bytes = file(&disk());
    rig.with(Import { note: Some(one.clone()), ..rig.import(id(1), None) }, Some(&bytes)).unwrap();
    rig.twice(Clone { note: Some(two.clone()), ..rig.clone(image, volume) });
    rig.twice(Clone { note: Some(three.clone()), ..rig.clone(volume, tag) });
    for (what, note) in [(image, &one), (volume, &two), (tag, &three)] {
        assert_eq!(note_of(rig, what).as_ref(), Some(note), "{what:?}");
        let to = tag_note("four");
        let set =
            SetNote { datastore: rig.datastore, place: rig.place.clone(), what, to: to.clone(), from: note.clone() };
        rig.twice(set.clone());
        assert_eq!(note_of(rig, what), Some(to));
        rig.twice(Step::from(set).inverse().unwrap_or_else(|| panic!("a note can be taken back")));
        assert_eq!(note_of(rig, what).as_ref(), Some(note), "{what:?}");
    }
    assert_eq!(rig.bare(), []);
    let other = Backing::volume(id(9), 0);
    rig.twice(rig.clone(image, other));
    assert_eq!(rig.bare(), [other], "a clone has nothing of its parent's note");
    let set =
        SetNote { datastore: rig.datastore, place: rig.place.clone(), what: other, to: two.clone(), from: two.clone() };
    rig.twice(set);
    assert_eq!(rig.bare(), []);
    rig.twice(rig.remove(other));
    let all = contents(rig);
    assert_eq!(all.things.len(), 3);
    assert!(all.half_made.is_empty() && all.staging.is_empty(), "{all:?}");
    assert!(all.things.iter().all(|t| t.size == Some(Bytes(300_032))), "{all:?}");
    let found = stores(rig).into_iter().find(|s| s.datastore == rig.datastore).unwrap();
    assert_eq!((found.engine, found.note), (id(200), Some(store_note())));
    let adopt = AdoptStore { datastore: rig.datastore, place: rig.place.clone(), to: id(201), from: id(200) };
    assert_eq!(rig.apply(AdoptStore { from: id(199), ..adopt.clone() }).unwrap_err().kind, Kind::Conflict);
    rig.twice(adopt.clone());
    assert_eq!(note_of(rig, volume), Some(two), "what stands there is as it was");
    rig.twice(Step::from(adopt).inverse().unwrap_or_else(|| panic!("it can be given back")));
    for what in [tag, volume, image] {
        rig.twice(rig.remove(what));
    }
    let gone = SetNote { datastore: rig.datastore, place: rig.place.clone(), what: volume, to: one.clone(), from: one };
    assert!(!rig.apply(gone).unwrap().changed, "what is gone needs no note");
    rig.twice(rig.unmake());
}
