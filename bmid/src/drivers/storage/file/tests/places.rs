//! Roots: whose they are, when they may be believed, and the XFS file beside them.

use super::*;

#[test]
fn a_folder_with_foreign_content_is_refused_by_the_name_of_it() {
    let ground = Ground::new();
    let driver = driver();
    fs::create_dir(ground.path("store")).unwrap();
    fs::write(ground.path("store/thesis.tex"), "precious").unwrap();
    let rig = Rig { driver: &driver, place: ground.folder("store"), datastore: id(100) };
    let e = rig.apply(rig.make()).unwrap_err();
    assert_eq!(e.kind, Kind::Conflict);
    assert!(e.why.contains("thesis.tex"), "{e}");
    assert!(!rig.apply(rig.unmake()).unwrap().changed);
    assert_eq!(files(&ground.path("store")), ["thesis.tex"]);
}

#[test]
fn what_is_foreign_stays_when_a_datastore_goes() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    fs::write(ground.path("store/volumes/notes"), "mine").unwrap();
    fs::write(ground.path("store/readme"), "mine").unwrap();
    rig.apply(rig.unmake()).unwrap();
    assert_eq!(files(&ground.path("store")), ["readme", "volumes/notes"]);
    let own = Ground::new();
    fs::create_dir(own.path("store")).unwrap();
    let rig = made(&driver, own.folder("store"));
    rig.apply(rig.unmake()).unwrap();
    assert!(own.path("store").exists(), "a folder that was there before stays");
}

#[test]
fn odd_roots_are_refused() {
    let ground = Ground::new();
    let driver = driver();
    let rig = |place| Rig { driver: &driver, place, datastore: id(100) };
    let at = |path: &str| Place::Folder { path: path.to_owned(), loop_size: None, thin: false };
    for path in ["", "/", "relative", "/srv/../etc", "/srv/a\nb"] {
        let rig = rig(at(path));
        assert_eq!(rig.apply(rig.make()).unwrap_err().kind, Kind::Invalid, "{path:?}");
    }
    fs::write(ground.path("file"), "").unwrap();
    std::os::unix::fs::symlink(ground.0.path(), ground.path("link")).unwrap();
    fs::create_dir(ground.path("open")).unwrap();
    fs::set_permissions(ground.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["file", "link", "open", "file/below"] {
        let rig = rig(ground.folder(name));
        let e = rig.apply(rig.make()).unwrap_err();
        assert!(!e.why.is_empty() && matches!(e.kind, Kind::Outside | Kind::Conflict), "{name}: {e}");
    }
    assert_eq!(files(ground.0.path()), ["file", "link"]);
}

#[test]
fn a_link_inside_a_root_is_never_followed() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let secret = ground.path("secret");
    fs::write(&secret, vec![1; 4_096]).unwrap();
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    std::os::unix::fs::symlink(&secret, image.path(&rig.place)).unwrap();
    assert!(rig.apply(rig.clone(image, volume)).is_err());
    assert!(rig.with(rig.export(image, Format::Raw), Some(&file(b""))).is_err());
    rig.apply(rig.remove(image)).unwrap();
    fs::remove_dir(ground.path("store/staging")).unwrap();
    std::os::unix::fs::symlink(ground.0.path(), ground.path("store/staging")).unwrap();
    assert!(rig.with(undeclared(&rig), Some(&file(&disk()))).is_err());
    assert_eq!(fs::read(&secret).unwrap(), vec![1; 4_096]);
    assert!(!ground.path("data").exists());
}

#[test]
fn a_root_whose_disk_is_not_mounted_is_unavailable_and_nothing_is_written_under_it() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.looped("store", 300 << 20));
    let (image, volume) = (Backing::image(id(1)), Backing::volume(id(2), 0));
    rig.with(rig.import(id(1), None), Some(&file(&disk()))).unwrap();
    let seen = rig.seen();
    unmount(&ground.path("store"));
    assert_eq!(rig.seen(), Vec::<String>::new());
    for step in [rig.clone(image, volume).into(), rig.remove(image).into(), bmi::step::Step::from(undeclared(&rig))] {
        assert_eq!(rig.with(step, Some(&file(&disk()))).unwrap_err().kind, Kind::Unavailable);
    }
    let facts = facts(&rig);
    assert!(!facts.available && facts.problem.is_some());
    assert_eq!(files(&ground.path("store")), Vec::<String>::new());
    assert!(rig.apply(rig.open()).unwrap().changed, "opened again");
    assert!(!rig.apply(rig.open()).unwrap().changed);
    assert_eq!(rig.seen(), seen);
    // The disk with the file itself away: nothing is made in its place.
    unmount(&ground.path("store"));
    for (device, _) in loops(ground.0.path().to_str().unwrap()) {
        sh("losetup", &["--detach", &device]);
    }
    fs::rename(ground.path("store.xfs"), ground.path("elsewhere")).unwrap();
    assert_eq!(rig.apply(rig.open()).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(files(ground.0.path()), ["elsewhere"]);
}

#[test]
fn a_loop_file_is_attached_and_mounted_once_however_often_it_is_asked_for() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.looped("store", 300 << 20));
    let here = ground.0.path().to_str().unwrap().to_owned();
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mounts").unwrap();
        all.lines().filter(|l| l.contains(&here)).count()
    };
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| rig.apply(rig.open()).unwrap());
        }
    });
    assert_eq!((loops(&here).len(), mounts()), (1, 1));
    // Attached, not mounted: as after a kill between the two.
    let (device, backing) = loops(&here).remove(0);
    unmount(&ground.path("store"));
    if loops(&here).is_empty() {
        sh("losetup", &[&device, &backing]);
    }
    assert!(rig.apply(rig.make()).is_ok());
    assert_eq!((loops(&here).len(), mounts()), (1, 1));
    rig.apply(rig.unmake()).unwrap();
    assert_eq!(mounts(), 0);
    no_loops(&here);
}

#[test]
fn a_loop_file_is_allocated_in_full_unless_it_is_to_be_thin() {
    let ground = Ground::new();
    let driver = driver();
    let thick = match ground.looped("thick", 300 << 20) {
        Place::Folder { path, loop_size, .. } => Place::Folder { path, loop_size, thin: false },
        other => other,
    };
    made(&driver, thick);
    made(&driver, ground.looped("thin", 300 << 20));
    let stored = |name: &str| fs::metadata(ground.path(name)).unwrap().blocks() * 512;
    assert!(stored("thick.xfs") >= 300 << 20, "{}", stored("thick.xfs"));
    assert!(stored("thin.xfs") < 100 << 20, "{}", stored("thin.xfs"));
}

#[test]
fn a_loop_that_cannot_be_leaves_nothing_behind() {
    let ground = Ground::new();
    let driver = driver();
    let small = Rig { driver: &driver, place: ground.looped("store", (300 << 20) - 1), datastore: id(100) };
    let e = small.apply(small.make()).unwrap_err();
    assert_eq!(e.kind, Kind::Invalid);
    assert!(e.why.contains("300 MiB"), "{e}");
    ground.file_system("ext4", 100 << 20);
    let place = match ground.looped("ext4/store", 300 << 20) {
        Place::Folder { path, loop_size, .. } => Place::Folder { path, loop_size, thin: false },
        other => other,
    };
    let large = Rig { driver: &driver, place, datastore: id(100) };
    assert_eq!(large.apply(large.make()).unwrap_err().kind, Kind::Full);
    assert!(!ground.path("store").exists());
    assert_eq!(files(&ground.path("ext4")), Vec::<String>::new());
}

#[test]
fn a_loop_file_of_another_datastore_is_refused_and_not_kept_mounted() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.looped("store", 300 << 20));
    let at = ground.path("store");
    unmount(&at);
    let other = Rig { driver: &driver, place: rig.place.clone(), datastore: id(99) };
    assert_eq!(other.apply(other.make()).unwrap_err().kind, Kind::Conflict);
    assert_eq!(files(&at), Vec::<String>::new(), "still mounted");
    assert!(!other.apply(other.unmake()).unwrap().changed, "what was refused is unwound without a person");
    assert_eq!(files(&at), Vec::<String>::new(), "mounted by the unwinding");
    assert!(ground.path("store.xfs").exists());
    assert!(rig.apply(rig.make()).is_ok());
}

#[test]
fn a_folder_of_another_datastore_and_what_is_no_folder_are_refused_and_left_as_they_are() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let before = files(ground.0.path());
    fs::write(ground.path("file"), "mine").unwrap();
    for name in ["store", "file"] {
        let other = Rig { driver: &driver, place: ground.folder(name), datastore: id(99) };
        let e = other.apply(other.make()).unwrap_err();
        assert!(e.kind == Kind::Conflict && e.fix.contains("folder"), "{name}: {e}");
        assert!(!other.apply(other.unmake()).unwrap().changed, "{name}");
    }
    fs::remove_file(ground.path("file")).unwrap();
    assert_eq!(files(ground.0.path()), before);
    assert!(rig.apply(rig.make()).is_ok());
}

/// A systemctl that does what systemd would do with our units, by the interface that they are written for.
pub(super) fn systemd(ground: &Ground) -> FileStore {
    let (units, run, ctl) = (ground.path("units"), ground.path("run"), ground.path("systemctl"));
    let script = format!(
        r#"#!/bin/sh
set -e
echo "$*" >> {log}
case "$1 $2" in
"start "*.mount) sed -n 's/^What=//p' {units}/"$2" > {log}.w; sed -n 's/^Where=//p' {units}/"$2" > {log}.a
    mount -t xfs -o "$(sed -n 's/^Options=//p' {units}/"$2")" "$(cat {log}.w)" "$(cat {log}.a)" ;;
"stop "*.mount) umount "$(sed -n 's/^Where=//p' {units}/"$2")" ;;
"start bmid-convert@"*) i=${{2#*@}}; d={run}/convert/${{i%.service}}; . $d/env
    prlimit --as=2147483648 -- setpriv --reuid 65534 --regid 65534 --clear-groups -- \
        qemu-img convert -n --target-is-zero -f $FORMAT -O raw /dev/stdin /dev/stdout < $d/in 1<> $d/out 2> {log}.err ;;
esac
"#,
        log = ground.path("log").display(),
        units = units.display(),
        run = run.display(),
    );
    let journalctl = ground.path("journalctl");
    program(&ctl, &script);
    program(&journalctl, &format!("#!/bin/sh\ncat {}.err\n", ground.path("log").display()));
    FileStore::new(Manager::Systemd(Systemd { units, run, systemctl: ctl, journalctl }))
}

#[test]
fn where_systemd_manages_bmid_it_mounts_and_unmounts_by_a_unit() {
    let ground = Ground::new();
    let driver = systemd(&ground);
    let rig = made(&driver, ground.looped("store", 300 << 20));
    let unit = loopfile::unit_name(&ground.path("store"));
    assert!(ground.path("units").join(&unit).exists());
    assert!(!rig.apply(rig.open()).unwrap().changed);
    unmount(&ground.path("store"));
    assert!(rig.apply(rig.open()).unwrap().changed);
    rig.apply(rig.unmake()).unwrap();
    let log = fs::read_to_string(ground.path("log")).unwrap();
    let start = format!("start {unit}");
    let expected = ["daemon-reload", &start, &start, &format!("stop {unit}"), "daemon-reload"];
    // A stop that found it busy for a moment is tried again.
    let mut lines: Vec<&str> = log.lines().collect();
    lines.dedup_by(|a, b| a == b && a.starts_with("stop"));
    assert_eq!(lines, expected);
    assert!(!ground.path("units").join(&unit).exists() && !ground.path("store.xfs").exists());
    no_loops(ground.0.path().to_str().unwrap());
}
