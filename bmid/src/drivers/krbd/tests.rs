//! The kernel's files played in a folder: what is mapped, what is refused, and that nothing foreign is touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use super::hand::Refusal;
use super::key::NoKey;
use super::*;
use crate::drivers::proving::program;

const KEY: &str = "AQBGqFdpAAAAABAAyLQWw8Z9hNq0ZZ3VvLqTqA==";

/// A kernel that keeps its maps in a folder as the real one shows them, and refuses as it is told.
#[derive(Clone)]
struct Fake {
    sys: PathBuf,
    lines: Arc<Mutex<Vec<(String, String)>>>,
    refuse: Arc<Mutex<Vec<Refusal>>>,
    module: bool,
}

impl Hand for Fake {
    fn write(&self, file: &Path, line: &str, key: Option<(&str, &KeyFile)>) -> Result<(), Refusal> {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        self.lines.lock().unwrap().push((name.clone(), line.to_owned()));
        if let Some((_, key)) = key {
            key.read().map_err(Refusal::Key)?;
        }
        if let Some(refusal) = self.refuse.lock().unwrap().pop() {
            return Err(refusal);
        }
        if name.starts_with("remove") {
            fs::remove_dir_all(self.sys.join("bus/rbd/devices").join(line)).unwrap();
            return Ok(());
        }
        let words: Vec<&str> = line.split(' ').collect();
        let namespace = words[1].split(',').find_map(|o| o.strip_prefix("_pool_ns=")).unwrap_or("");
        let number = fs::read_dir(self.sys.join("bus/rbd/devices")).unwrap().count();
        self.show(number, "f-1", [words[2], namespace, words[3], "id-1"]);
        Ok(())
    }

    fn loadable(&self) -> bool {
        self.module
    }

    fn load(&self) {
        if self.module {
            self.lay_out();
        }
    }
}

impl Fake {
    fn lay_out(&self) {
        fs::create_dir_all(self.sys.join("bus/rbd/devices")).unwrap();
        for file in ["add", "remove", "add_single_major", "remove_single_major"] {
            fs::write(self.sys.join("bus/rbd").join(file), "").unwrap();
        }
        fs::write(self.sys.join("bus/rbd/supported_features"), "0x1bf\n").unwrap();
    }

    fn show(&self, number: usize, fsid: &str, [pool, namespace, name, id]: [&str; 4]) {
        let folder = self.sys.join("bus/rbd/devices").join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        let all = [
            ("cluster_fsid", fsid),
            ("pool", pool),
            ("pool_ns", namespace),
            ("name", name),
            ("image_id", id),
            ("current_snap", "-"),
            ("client_addr", "10.8.0.2:0/17"),
        ];
        for (file, text) in all {
            fs::write(folder.join(file), format!("{text}\n")).unwrap();
        }
    }

    fn refuse(&self, refusal: Refusal) {
        self.refuse.lock().unwrap().push(refusal);
    }

    fn lines(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    fn numbers(&self) -> Vec<u32> {
        Map::all(&self.sys.join("bus/rbd")).iter().map(|m| m.number).collect()
    }
}

struct House {
    _folder: tempfile::TempDir,
    fake: Fake,
    krbd: Krbd,
    reach: Reach,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let (lines, refuse) = Default::default();
    let fake = Fake { sys: folder.path().join("sys"), lines, refuse, module: true };
    fake.lay_out();
    let keyring = folder.path().join("keyring");
    fs::write(&keyring, format!("[client.other]\n\tkey = AAAA\n[client.bmi]\n\tkey = {KEY}\n\tcaps mon = \"x\"\n"))
        .unwrap();
    let key = KeyFile { path: keyring.to_str().unwrap().to_owned(), user: Some("bmi".to_owned()) };
    let disk = Disk { fsid: "f-1".into(), pool: "p".into(), namespace: "ns".into(), image: "bmi.1.v.2.0".into() };
    let monitors = vec!["10.8.0.1:6789".to_owned(), "10.8.0.3:6789".to_owned()];
    let reach = Reach { disk, id: "id-1".into(), monitors, user: "bmi".into(), key };
    let krbd = Krbd::new(&fake.sys, Box::new(fake.clone()));
    House { _folder: folder, fake, krbd, reach }
}

fn fix_of(e: &DriverError) -> &str {
    let told = format!("{e:?} {}", bmi::model::Fault::from(DriverError::new(e.kind, &e.tried, &e.why).fix(&e.fix)));
    assert!(!told.contains(KEY) && !told.contains(&KEY[8..20]), "a key in {told}");
    assert!(!e.tried.is_empty() && !e.why.is_empty() && !e.fix.is_empty(), "{e:?}");
    &e.fix
}

#[test]
fn a_disk_is_mapped_once_and_unmapped_once() {
    let House { fake, krbd, reach, .. } = &house();
    assert_eq!(krbd.mapped("try", reach).unwrap(), None);
    assert_eq!(krbd.map("try", reach).unwrap(), Path::new("/dev/rbd0"));
    let lines = fake.lines();
    let [(file, line)] = &lines[..] else { panic!("{lines:?}") };
    let key = format!("bmid.{}.0", std::process::id());
    let options = format!("name=bmi,key={key},osd_request_timeout=30,mount_timeout=10,_pool_ns=ns");
    assert_eq!(file, "add_single_major");
    assert_eq!(*line, format!("10.8.0.1:6789,10.8.0.3:6789 {options} p bmi.1.v.2.0 -"));
    assert_eq!(krbd.map("try", reach).unwrap(), Path::new("/dev/rbd0"), "already so");
    assert_eq!(fake.lines(), [], "and nothing was written for it");
    assert_eq!(krbd.name("/dev/rbd0").as_deref(), Some("rbd:p/ns/bmi.1.v.2.0"));
    assert_eq!(krbd.clients(), ["10.8.0.2:0/17"]);
    assert!(krbd.unmap("try", &reach.disk, |_| false).unwrap());
    assert_eq!(fake.lines(), [("remove_single_major".to_owned(), "0".to_owned())]);
    assert!(!krbd.unmap("try", &reach.disk, |_| false).unwrap(), "already gone");
    assert_eq!((fake.lines(), krbd.name("/dev/rbd0")), (vec![], None));
}

#[test]
fn a_kernel_with_a_number_for_each_map_is_told_through_the_plain_files() {
    let House { fake, krbd, reach, .. } = &house();
    for file in ["add_single_major", "remove_single_major"] {
        fs::remove_file(fake.sys.join("bus/rbd").join(file)).unwrap();
    }
    krbd.map("try", reach).unwrap();
    krbd.unmap("try", &reach.disk, |_| false).unwrap();
    assert_eq!(fake.lines().into_iter().map(|(file, _)| file).collect::<Vec<_>>(), ["add", "remove"]);
}

#[test]
fn what_does_not_fit_in_all_is_never_unmapped() {
    let House { fake, krbd, reach, .. } = &house();
    let name = reach.disk.image.as_str();
    fake.show(0, "f-2", ["p", "ns", name, "id-1"]);
    fake.show(1, "f-1", ["q", "ns", name, "id-1"]);
    fake.show(2, "f-1", ["p", "", name, "id-1"]);
    fake.show(3, "f-1", ["p", "ns", "vm-7", "id-1"]);
    fake.show(4, "f-1", ["p", "ns", name, "id-1"]);
    fs::write(fake.sys.join("bus/rbd/devices/4/current_snap"), "snap\n").unwrap();
    // One that does not tell its cluster cannot be compared.
    fake.show(5, "f-1", ["p", "ns", name, "id-1"]);
    fs::remove_file(fake.sys.join("bus/rbd/devices/5/cluster_fsid")).unwrap();
    assert!(!krbd.unmap("try", &reach.disk, |_| false).unwrap());
    assert_eq!(fake.lines(), []);
    fake.show(6, "f-1", ["p", "ns", name, "id-1"]);
    assert!(krbd.unmap("try", &reach.disk, |_| false).unwrap());
    assert_eq!(fake.lines(), [("remove_single_major".to_owned(), "6".to_owned())]);
    assert_eq!(fake.numbers(), [0, 1, 2, 3, 4]);
}

#[test]
fn the_map_of_another_image_that_had_the_name_goes_first() {
    let House { fake, krbd, reach, .. } = &house();
    fake.show(0, "f-1", ["p", "ns", &reach.disk.image, "id-0"]);
    assert_eq!(krbd.map("try", reach).unwrap(), Path::new("/dev/rbd0"));
    let files: Vec<String> = fake.lines().into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["remove_single_major", "add_single_major"]);
}

#[test]
fn a_device_that_is_open_is_waited_for_and_then_named() {
    let House { fake, krbd, reach, .. } = &house();
    krbd.map("try", reach).unwrap();
    for _ in 0..3 {
        fake.refuse(Refusal::Said(Errno::EBUSY));
    }
    assert!(krbd.unmap("try", &reach.disk, |_| false).unwrap(), "it was let go of meanwhile");
    krbd.map("try", reach).unwrap();
    fake.refuse(Refusal::Said(Errno::EBUSY));
    assert!(!krbd.unmap("try", &reach.disk, |d| d == Path::new("/dev/rbd0")).unwrap(), "another target has it");
    for _ in 0..1_000 {
        fake.refuse(Refusal::Said(Errno::EBUSY));
    }
    let e = krbd.unmap("try", &reach.disk, |_| false).unwrap_err();
    assert!(e.kind == Kind::Conflict && e.why.contains("/dev/rbd0") && fix_of(&e).contains("fuser"), "{e:?}");
}

#[test]
fn each_refusal_says_what_to_do() {
    let House { fake, krbd, reach, .. } = &house();
    let closed = |e| Refusal::Closed(io::Error::from_raw_os_error(e));
    let said = Refusal::Said;
    let no = |e| Refusal::Key(NoKey::Refused(e));
    let cases = [
        (said(Errno::ENXIO), Kind::Outside, "unsupported features", "--export librbd"),
        (said(Errno::EINVAL), Kind::Outside, "does not understand", "dmesg"),
        (said(Errno::EPERM), Kind::Unavailable, "refuses client.bmi", "ceph auth get client.bmi"),
        (said(Errno::EACCES), Kind::Unavailable, "refuses client.bmi", "profile rbd"),
        (said(Errno::ENOENT), Kind::Unavailable, "does not find", "dmesg"),
        (said(Errno::ETIMEDOUT), Kind::Unavailable, "10.8.0.1:6789", "ceph -s"),
        (said(Errno::EIO), Kind::Unavailable, "do not answer", "ceph -s"),
        (said(Errno::ESHUTDOWN), Kind::Unavailable, "blocklisted", "blocklist ls"),
        (said(Errno::EROFS), Kind::Outside, "reading only", "dmesg"),
        (said(Errno::ENOMEM), Kind::Outside, "does not map it", "dmesg"),
        (closed(libc::ENOENT), Kind::Unavailable, "cannot be written", "modprobe rbd"),
        (closed(libc::EROFS), Kind::Unavailable, "cannot be written", "sandbox"),
        (closed(libc::EACCES), Kind::Unavailable, "cannot be written", "CAP_SYS_ADMIN"),
        (no(Errno::ENOENT), Kind::Unavailable, "does not take the key", "modprobe -a cbc"),
        (no(Errno::ENODEV), Kind::Unavailable, "does not take the key", "modprobe libceph"),
        (no(Errno::EDQUOT), Kind::Unavailable, "does not take the key", "root_maxkeys"),
        (no(Errno::EPERM), Kind::Unavailable, "does not take the key", "add_key"),
    ];
    for (refusal, kind, why, fix) in cases {
        fake.refuse(refusal);
        let e = krbd.map("map disk d", reach).unwrap_err();
        assert!(e.kind == kind && e.why.contains(why) && fix_of(&e).contains(fix), "{e:?}");
        assert_eq!(fake.numbers(), Vec::<u32>::new());
    }
    krbd.map("try", reach).unwrap();
    fake.refuse(said(Errno::EIO));
    let e = krbd.unmap("try", &reach.disk, |_| false).unwrap_err();
    assert!(e.why.contains("does not unmap /dev/rbd0") && fix_of(&e).contains("dmesg"), "{e:?}");
}

#[test]
fn a_kernel_that_took_the_order_and_shows_nothing_is_not_believed() {
    struct Deaf;
    impl Hand for Deaf {
        fn write(&self, _: &Path, _: &str, _: Option<(&str, &KeyFile)>) -> Result<(), Refusal> {
            Ok(())
        }
        fn loadable(&self) -> bool {
            false
        }
        fn load(&self) {}
    }
    let House { fake, reach, .. } = &house();
    let e = Krbd::new(&fake.sys, Box::new(Deaf)).map("try", reach).unwrap_err();
    assert!(e.why.contains("shows no map") && !fix_of(&e).is_empty(), "{e:?}");
}

#[test]
fn what_the_kernel_lacks_is_known_before_it_is_asked() {
    let House { fake, krbd, reach, .. } = &house();
    assert!(krbd.lacking("try").is_none());
    fs::write(fake.sys.join("bus/rbd/supported_features"), "0x5\n").unwrap();
    let e = krbd.map("try", reach).unwrap_err();
    assert!(e.why.contains("0x5") && fix_of(&e).contains("5.3"), "{e:?}");
    fs::remove_dir_all(fake.sys.join("bus")).unwrap();
    assert!(krbd.lacking("try").is_none(), "the module is there to be loaded");
    krbd.map("try", reach).unwrap();
    fs::remove_dir_all(fake.sys.join("bus")).unwrap();
    let without = Krbd::new(&fake.sys, Box::new(Fake { module: false, ..fake.clone() }));
    for e in [without.lacking("try").unwrap(), without.map("try", reach).unwrap_err()] {
        assert!(e.kind == Kind::Unavailable && e.why.contains("no rbd module"), "{e:?}");
        assert!(fix_of(&e).contains("modprobe rbd"), "{e:?}");
    }
}

#[test]
fn no_monitor_and_no_plain_name_is_no_order() {
    let House { fake, krbd, reach, .. } = &house();
    let e = krbd.map("try", &Reach { monitors: vec![], ..reach.clone() }).unwrap_err();
    assert!(e.why.contains("messenger v1") && fix_of(&e).contains("mon dump"), "{e:?}");
    for odd in ["a,secret=x", "a b", "a=b", "a\nb", "", "a/b", "a@b"] {
        let disk = Disk { image: odd.into(), ..reach.disk.clone() };
        assert_eq!(krbd.map("try", &Reach { disk, ..reach.clone() }).unwrap_err().kind, Kind::Invalid, "{odd:?}");
        let e = krbd.map("try", &Reach { user: odd.into(), ..reach.clone() }).unwrap_err();
        assert_eq!((e.kind, fix_of(&e).is_empty()), (Kind::Invalid, false), "{odd:?}");
    }
    assert_eq!(fake.lines(), []);
}

#[test]
fn a_key_is_found_as_ceph_writes_it_and_never_told() {
    let House { krbd, reach, .. } = &house();
    let file = Path::new(&reach.key.path);
    let whole = reach.key.read().unwrap();
    assert_eq!(
        (whole.len(), &whole[..2]),
        (28, &[1, 0][..]),
        "a key of kind 1, with its time, its length and 16 bytes"
    );
    fs::write(file, format!("{KEY}\n")).unwrap();
    assert_eq!(KeyFile { user: None, ..reach.key.clone() }.read().unwrap(), whole, "a file that is the key");
    let cases = [
        (format!("[client.other]\nkey = {KEY}\n"), "holds no key of bmi"),
        (format!("key = {KEY}\n[client.bmi]\n"), "holds no key of bmi"),
        ("[client.bmi]\nkey =\n".to_owned(), "holds no key of bmi"),
        (format!("[client.bmi]\nkey = {}!\n", &KEY[..30]), "is no key"),
        ("[client.bmi]\nkey = AQBG\n".to_owned(), "is no key"),
    ];
    for (text, why) in cases {
        fs::write(file, text).unwrap();
        let e = krbd.map("try", reach).unwrap_err();
        assert!(e.kind == Kind::Unavailable && e.why.contains(why), "{e:?}");
        assert!(fix_of(&e).contains("ceph auth get"), "{e:?}");
    }
    fs::remove_file(file).unwrap();
    let e = krbd.map("try", reach).unwrap_err();
    assert!(e.why.contains("cannot be read") && !fix_of(&e).is_empty(), "{e:?}");
}

#[test]
fn this_process_writes_a_line_whole_into_a_file_that_is_there() {
    let House { fake, reach, .. } = &house();
    let file = fake.sys.join("bus/rbd/remove");
    Direct.write(&file, "17", None).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "17");
    let gone = Direct.write(&fake.sys.join("bus/rbd/none"), "17", None).unwrap_err();
    assert!(matches!(&gone, Refusal::Closed(e) if e.kind() == io::ErrorKind::NotFound), "{gone:?}");
    // A kernel without Ceph's kind of key says so before anything is written; one that has it takes the key.
    let file = fake.sys.join("bus/rbd/add");
    match Direct.write(&file, "line", Some(("bmid.test", &reach.key))) {
        Ok(()) => assert_eq!(fs::read_to_string(&file).unwrap(), "line"),
        Err(Refusal::Key(NoKey::Refused(e))) => {
            assert!(e == Errno::ENODEV || e == Errno::ENOSYS || e == Errno::EPERM, "{e}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "");
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// A `systemctl` that does as the unit would, or as a host without it.
fn systemctl(folder: &Path, line: &str) -> PathBuf {
    let path = folder.join("systemctl");
    program(&path, &format!("#!/bin/sh\necho \"$1 $2\" >>{}/asked\n{line}\n", folder.display()));
    path
}

#[test]
fn a_unit_is_given_an_order_without_the_key_and_its_answer_is_told() {
    let House { _folder: folder, fake, reach, .. } = &house();
    let folder = folder.path();
    let cases = [
        (r#""Done""#, None),
        (r#"{"Refused":16}"#, Some("Said(EBUSY)")),
        (r#"{"Closed":30}"#, Some("Closed(Os { code: 30")),
        (r#"{"KeyRefused":2}"#, Some("Key(Refused(ENOENT))")),
        (r#"{"NoKey":"none there"}"#, Some("Key(Told(\"none there\"))")),
        ("nonsense", Some("NoUnit")),
    ];
    for (said, told) in cases {
        let keep = format!(
            "d={0}/rbd/${{2#bmid-rbd@}}; d=${{d%.service}}; cat $d/order >>{0}/orders; echo '{said}' >$d/said",
            folder.display()
        );
        let unit = Unit::with(folder, systemctl(folder, &keep));
        let answer = unit.write(&fake.sys.join("bus/rbd/add"), "line", Some(("bmid.1", &reach.key)));
        match told {
            None => answer.unwrap(),
            Some(told) => assert!(format!("{:?}", answer.as_ref().unwrap_err()).starts_with(told), "{answer:?}"),
        }
    }
    let orders = fs::read_to_string(folder.join("orders")).unwrap();
    assert!(orders.contains(r#""file":"add","line":"line""#) && orders.contains("keyring"), "{orders}");
    assert!(!orders.contains(&KEY[8..20]), "no key in {orders}");
    assert!(fs::read_to_string(folder.join("asked")).unwrap().starts_with("start bmid-rbd@"));
    assert_eq!(fs::read_dir(folder.join("rbd")).unwrap().count(), 0, "nothing stays");
    let none = Unit::with(folder, folder.join("no-systemctl")).write(Path::new("remove"), "0", None).unwrap_err();
    assert!(matches!(&none, Refusal::NoUnit(why) if why.starts_with("systemctl: ")), "{none:?}");
    let krbd = Krbd::new(&fake.sys, Box::new(Unit::with(folder, systemctl(folder, "exit 1"))));
    let e = krbd.map("try", reach).unwrap_err();
    assert!(e.why.contains("journalctl") && fix_of(&e).contains("bmid-rbd@.service"), "{e:?}");
}

#[test]
fn an_order_is_carried_out_in_the_kernels_files_alone() {
    let House { _folder: folder, fake, .. } = &house();
    let at = folder.path().join("order");
    fs::create_dir(&at).unwrap();
    let outside = fake.sys.join("bus/outside");
    fs::write(&outside, "").unwrap();
    let carried = |text: &str| {
        fs::write(at.join("order"), text).unwrap();
        let _ = fs::remove_file(at.join("said"));
        errand::carry_out(&at, &fake.sys).then(|| fs::read_to_string(at.join("said")).unwrap())
    };
    assert_eq!(carried(r#"{"file":"remove","line":"17","key":null}"#).as_deref(), Some(r#""Done""#));
    assert_eq!(fs::read_to_string(fake.sys.join("bus/rbd/remove")).unwrap(), "17");
    let no_key = r#"{"file":"add","line":"x","key":["n",{"path":"/nowhere/key","user":"bmi"}]}"#;
    assert!(carried(no_key).unwrap().contains("/nowhere/key cannot be read"));
    for bad in [
        r#"{"file":"../outside","line":"17","key":null}"#,
        r#"{"file":"supported_features","line":"17","key":null}"#,
        r#"{"file":"add","line":"a\nb","key":null}"#,
        "nonsense",
    ] {
        assert_eq!(carried(bad), None, "{bad}");
    }
    assert_eq!(fs::read_to_string(outside).unwrap(), "");
    fs::remove_file(at.join("order")).unwrap();
    assert!(!errand::carry_out(&at, &fake.sys));
}
