//! Imports: resumed, refused, converted.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bmi::step::Imported;
use sha2::{Digest, Sha256};

use super::*;
use crate::drivers::storage::stream::hex;

/// 5 MiB of bytes that differ everywhere.
fn noise() -> Vec<u8> {
    (0..5u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Applies an import that is cancelled once so many bytes have come.
fn cancelled_at(rig: &Rig<'_>, step: &Import, input: &fs::File, bytes: u64) -> DriverError {
    let came = AtomicU64::new(0);
    let progress = |n, _| came.store(n, Ordering::Relaxed);
    let cancelled = || came.load(Ordering::Relaxed) >= bytes;
    let cx = StepCx { input: Some(input), progress: &progress, cancelled: &cancelled };
    rig.driver.apply(&StorageStep::Import(step.clone()), &cx).unwrap_err()
}

#[test]
fn an_import_that_was_cut_off_goes_on_and_gives_the_same_image() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let bytes = noise();
    let step = rig.import(id(1), Some(Format::Raw));
    let e = cancelled_at(&rig, &step, &file(&bytes), 2 << 20);
    assert_eq!((e.kind, e.fix.is_empty()), (Kind::Cancelled, false));
    let staged = ground.path("store/staging").join(&step.staging).join("data");
    assert_eq!(fs::metadata(&staged).unwrap().len(), 2 << 20);
    assert!(rig.seen().iter().any(|s| s == &format!("staging {}", step.staging)));
    assert_eq!(rig.apply(step.clone()).unwrap_err().kind, Kind::Interrupted, "without the input it cannot go on");
    // The same file stays in use: what is there is compared, not written again.
    let before = fs::metadata(&staged).unwrap().ino();
    rig.with(step.clone(), Some(&file(&bytes))).unwrap();
    let image = Backing::image(id(1)).path(&rig.place);
    assert_eq!(fs::metadata(&image).unwrap().ino(), before);
    assert!(fs::read(image).unwrap() == bytes);
    assert!(!rig.seen().iter().any(|s| s.starts_with("staging")));
}

#[test]
fn a_pipe_resumes_when_its_sender_repeats_from_the_start() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let bytes = noise();
    let step = Import { size: Some(Bytes(bytes.len() as u64)), ..undeclared(&rig) };
    let send = |part: &[u8]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let part = part.to_vec();
        let sending = std::thread::spawn(move || writer.write_all(&part));
        let done = rig.with(step.clone(), Some(&fs::File::from(OwnedFd::from(reader))));
        (done, sending.join().unwrap())
    };
    let (cut, _) = send(&bytes[..3_000_000]);
    assert_eq!(cut.unwrap_err().kind, Kind::Interrupted);
    let staged = ground.path("store/staging").join(&step.staging).join("data");
    assert_eq!(fs::metadata(staged).unwrap().len(), 3_000_000);
    let done = send(&bytes).0.unwrap();
    assert_eq!(done.imported.unwrap().sha256, hex(&Sha256::digest(&bytes)));
    assert!(fs::read(Backing::image(id(7)).path(&rig.place)).unwrap() == bytes);
}

#[test]
fn a_staging_that_differs_from_the_source_gives_way_to_it() {
    let ground = Ground::new();
    let driver = driver();
    let bytes = noise();
    for (spoil_at, longer) in [(0, false), (1_500_000, false), (1_999_999, false), (0, true)] {
        let rig = made(&driver, ground.folder(&format!("store-{spoil_at}-{longer}")));
        let step = undeclared(&rig);
        cancelled_at(&rig, &step, &file(&bytes), 2_000_000);
        let path = rig.place.word();
        let staged = Path::new(&path).join("staging").join(&step.staging).join("data");
        let mut old = fs::read(&staged).unwrap();
        old[spoil_at] ^= 0xff;
        if longer {
            old = [&bytes[..], &old].concat();
        }
        fs::write(&staged, old).unwrap();
        let imported = rig.with(step, Some(&file(&bytes))).unwrap().imported.unwrap();
        assert_eq!(imported.raw_sha256, hex(&Sha256::digest(&bytes)));
        assert!(fs::read(Backing::image(id(7)).path(&rig.place)).unwrap() == bytes, "{spoil_at} {longer}");
    }
}

/// A converter that is not there yet.
struct Broken;

impl Convert for Broken {
    fn convert(&self, _: &Job<'_>, _: &StepCx<'_>) -> Result<(), DriverError> {
        Err(DriverError::new(Kind::Unavailable, "convert", "it is broken"))
    }
}

#[test]
fn an_import_whose_bytes_are_all_staged_needs_no_input_any_more() {
    let ground = Ground::new();
    let rig_of = |driver| Rig { driver, place: ground.folder("store"), datastore: id(100) };
    let broken = driver().with_converter(Box::new(Broken));
    let rig = rig_of(&broken);
    rig.apply(rig.make()).unwrap();
    let input = fs::File::open(qcow2(&ground, &noise())).unwrap();
    assert_eq!(rig.with(undeclared(&rig), Some(&input)).unwrap_err().kind, Kind::Unavailable);
    let whole = driver();
    let rig = rig_of(&whole);
    let done = rig.apply(undeclared(&rig)).unwrap();
    assert_eq!(done.imported.unwrap().raw_sha256, hex(&Sha256::digest(noise())));
}

/// The states in which a kill can leave an import, from its last bytes on.
#[test]
fn a_kill_between_the_last_steps_of_an_import_loses_nothing() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let step = rig.import(id(1), Some(Format::Raw));
    let done = rig.with(step.clone(), Some(&file(&noise()))).unwrap();
    let (image, meta) = (Backing::image(id(1)).path(&rig.place), ground.path("store/images"));
    let meta = meta.join(format!("{}.0.meta", id(1)));
    let staging = ground.path("store/staging").join(&step.staging);
    let again = |state: &str| {
        let repeat = rig.apply(step.clone()).unwrap();
        assert_eq!(repeat.imported, done.imported, "{state}");
        assert!(!staging.exists(), "{state}");
        assert!(fs::read(&image).unwrap() == noise(), "{state}");
    };
    // Named, staging not yet removed.
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("record"), "{}").unwrap();
    again("named");
    // Described, not named; then whole, not described.
    let sum = hex(&Sha256::digest(noise()));
    let md5 = done.imported.clone().map(|i: Imported| i.md5).unwrap();
    for described in [true, false] {
        fs::create_dir(&staging).unwrap();
        fs::rename(&image, staging.join("data")).unwrap();
        let record = serde_json::json!({"bytes": 5 << 20, "md5": md5, "sha256": sum, "disk_sha256": sum});
        fs::write(staging.join("record"), record.to_string()).unwrap();
        if !described {
            fs::remove_file(&meta).unwrap();
        }
        again(if described { "described" } else { "whole" });
    }
}

#[test]
fn every_format_becomes_the_same_disk() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let mut bytes = noise();
    bytes[1 << 20..3 << 20].fill(0);
    let raw = ground.path("raw");
    fs::write(&raw, &bytes).unwrap();
    let ways: [(&str, &str, Format); 7] = [
        ("qcow2", "compat=1.1", Format::Qcow2),
        ("qcow2", "compat=0.10", Format::Qcow2),
        ("vmdk", "subformat=streamOptimized", Format::Vmdk),
        ("vdi", "static=off", Format::Vdi),
        ("vhdx", "subformat=dynamic", Format::Vhdx),
        ("vpc", "subformat=dynamic,force_size=on", Format::Vhd),
        ("vpc", "subformat=fixed,force_size=on", Format::Vhd),
    ];
    for (format, options, expected) in ways {
        let out = ground.path("out");
        let (from, to) = (raw.to_str().unwrap(), out.to_str().unwrap());
        sh("qemu-img", &["convert", "-f", "raw", "-O", format, "-o", options, from, to]);
        let step = rig.import(id(1), Some(expected).filter(|_| options != "compat=0.10"));
        let imported = rig.with(step.clone(), Some(&fs::File::open(&out).unwrap())).unwrap().imported.unwrap();
        let given = hex(&Sha256::digest(fs::read(&out).unwrap()));
        assert_eq!((imported.source_format, imported.size_bytes), (expected, Bytes(5 << 20)), "{format} {options}");
        assert_eq!((imported.sha256, imported.raw_sha256), (given, hex(&Sha256::digest(&bytes))), "{format} {options}");
        let image = Backing::image(id(1)).path(&rig.place);
        assert!(fs::read(&image).unwrap() == bytes, "{format} {options}");
        assert!(blocks(&image) <= (3 << 20) + 65_536, "{format} {options}: holes are stored");
        assert_eq!(fs::metadata(&image).unwrap().mode() & 0o7777, 0o400);
        rig.apply(rig.remove(Backing::image(id(1)))).unwrap();
    }
}

/// Images that must not be taken, each with a word of the reason.
fn bad_images(ground: &Ground) -> Vec<(&'static str, Vec<u8>, Kind, &'static str)> {
    let good = fs::read(qcow2(ground, &noise())).unwrap();
    let dir = ground.0.path().to_str().unwrap();
    let make = |name: &str, args: &[&str]| {
        let path = format!("{dir}/{name}");
        sh("qemu-img", &[&["create", "-q", "-f", "qcow2"], args, &[&path, "1M"]].concat());
        fs::read(path).unwrap()
    };
    let base = format!("{dir}/out.qcow2");
    let data = format!("data_file={dir}/data.raw");
    let change = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    vec![
        ("truncated", good[..good.len() / 2].to_vec(), Kind::Corrupt, "truncated"),
        ("overlay", make("overlay", &["-b", &base, "-F", "qcow2"]), Kind::Invalid, "backing file"),
        ("split", make("split", &["-o", &data]), Kind::Invalid, "external data file"),
        // The method's field alone: making LUKS measures time, which fails on a busy machine.
        ("sealed", change(32, &2u32.to_be_bytes()), Kind::Invalid, "encrypted"),
        ("huge", change(24, &(1u64 << 50).to_be_bytes()), Kind::Limit, "at most"),
        ("table behind the end", change(40, &(1u64 << 40).to_be_bytes()), Kind::Corrupt, "truncated"),
        ("old", change(4, &1u32.to_be_bytes()), Kind::Invalid, "version 1"),
        ("future", change(72, &(1u64 << 40).to_be_bytes()), Kind::Invalid, "not known"),
    ]
}

#[test]
fn bad_images_are_refused_with_a_reason_and_leave_nothing() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let before = files(&ground.path("store"));
    for (name, bytes, kind, word) in bad_images(&ground) {
        for format in [None, Some(Format::Qcow2)] {
            let e = rig.with(rig.import(id(1), format), Some(&file(&bytes))).unwrap_err();
            assert_eq!(e.kind, kind, "{name}: {e}");
            assert!(e.why.contains(word) && !e.tried.is_empty() && !e.fix.is_empty(), "{name}: {e:?}");
            assert_eq!(files(&ground.path("store")), before, "{name}");
        }
    }
}

#[test]
fn the_converter_has_no_network_no_privileges_and_limits() {
    let limit = 1 << 20;
    let mut c = convert::confined(limit);
    let script = "cat /proc/self/status /proc/self/limits; cat /proc/net/dev; readlink /proc/self/ns/net";
    let out = c.args(["sh", "-c", script]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let has = |line: &str| text.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(line));
    for line in [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "CapEff: 0000000000000000",
        "CapPrm: 0000000000000000",
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "Max file size 1048576 1048576",
        "Max address space 2147483648 2147483648",
        "Max core file size 0 0",
        "Max cpu time 21600 21600",
    ] {
        assert!(has(line), "{line} is not so:\n{text}");
    }
    let groups = text.lines().find(|l| l.starts_with("Groups:")).unwrap();
    assert_eq!(groups.trim(), "Groups:");
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!has(ours.to_str().unwrap()), "the same network");
    let devices: Vec<&str> = text.lines().filter(|l| l.contains(':') && l.contains(" 0 ")).collect();
    assert!(devices.iter().filter(|l| !l.trim_start().starts_with("lo:")).all(|l| !l.contains("eth")), "{devices:?}");
}

#[test]
fn a_cancelled_conversion_keeps_what_came() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let input = fs::File::open(qcow2(&ground, &noise())).unwrap();
    let step = undeclared(&rig);
    let total = input.metadata().unwrap().len();
    let e = cancelled_at(&rig, &step, &input, total);
    assert_eq!(e.kind, Kind::Cancelled, "{e}");
    let done = rig.apply(step).unwrap();
    assert_eq!(done.imported.unwrap().raw_sha256, hex(&Sha256::digest(noise())));
}

#[test]
fn where_systemd_manages_bmid_conversion_is_a_unit_of_it() {
    let ground = Ground::new();
    let driver = places::systemd(&ground);
    let rig = made(&driver, ground.folder("store"));
    let input = fs::File::open(qcow2(&ground, &noise())).unwrap();
    let imported = rig.with(undeclared(&rig), Some(&input)).unwrap().imported.unwrap();
    assert_eq!(imported.raw_sha256, hex(&Sha256::digest(noise())));
    let log = fs::read_to_string(ground.path("log")).unwrap();
    let unit = format!("bmid-convert@{}.service", id(7));
    assert_eq!(log.lines().collect::<Vec<_>>(), [format!("stop {unit}"), format!("start {unit}")]);
    assert_eq!(files(&ground.path("run")), Vec::<String>::new());
    // A unit that fails gives its own words.
    let e =
        rig.with(Import { max_size: Bytes(5 << 20), ..rig.import(id(8), None) }, Some(&damaged(&ground))).unwrap_err();
    assert_eq!(e.kind, Kind::Corrupt, "{e}");
    assert!(e.why.contains("qemu-img"), "{e}");
}

/// A qcow2 whose headers and tables are right and whose compressed bytes are not: only the converter can find out.
fn damaged(ground: &Ground) -> fs::File {
    let text: Vec<u8> = (0..5u32 << 20).map(|i| b"abcdefgh"[(i / 3 % 8) as usize]).collect();
    let path = qcow2(ground, &text);
    let mut bytes = fs::read(&path).unwrap();
    let from = 5 * 65_536;
    let end = bytes.len();
    bytes[from.min(end - 2_000)..].fill(0xff);
    file(&bytes)
}

#[test]
fn staging_that_nobody_came_for_is_collected_and_the_rest_is_not() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let step = undeclared(&rig);
    cancelled_at(&rig, &step, &file(&noise()), 1 << 20);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let week = 7 * 24 * 3_600;
    assert_eq!(collect_staging(&rig.place, week, now), 0, "too young");
    let path = ground.path("store");
    let root = dir::Dir::at(&path).unwrap().unwrap();
    let held = staging::Staging::open(&root, &step.staging, false).unwrap().unwrap();
    assert_eq!(collect_staging(&rig.place, week, now + week + 60), 0, "in use");
    assert_eq!(rig.with(step.clone(), Some(&file(&noise()))).unwrap_err().kind, Kind::Busy);
    drop(held);
    fs::rename(path.join(".bmid-datastore"), path.join("hidden")).unwrap();
    assert_eq!(collect_staging(&rig.place, week, now + week + 60), 0, "not available");
    fs::rename(path.join("hidden"), path.join(".bmid-datastore")).unwrap();
    assert_eq!(collect_staging(&rig.place, week, now + week + 60), 1);
    assert!(!rig.seen().iter().any(|s| s.starts_with("staging")));
}

#[test]
fn a_staging_name_cannot_leave_its_folder() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    for staging in ["", "..", ".x", "a/b", "a\nb", &"x".repeat(256)] {
        let step = Import { staging: staging.to_owned(), ..undeclared(&rig) };
        assert_eq!(rig.with(step, Some(&file(&disk()))).unwrap_err().kind, Kind::Invalid, "{staging:?}");
    }
}

#[test]
fn what_cannot_be_read_as_bytes_is_refused() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    for path in ["/dev/zero", ground.0.path().to_str().unwrap()] {
        assert!(rig.with(undeclared(&rig), Some(&fs::File::open(path).unwrap())).is_err(), "{path}");
    }
}

#[test]
fn a_block_device_is_taken_in_whole() {
    let ground = Ground::new();
    let driver = driver();
    let rig = made(&driver, ground.folder("store"));
    let path = ground.path("device");
    fs::write(&path, noise()).unwrap();
    let device = sh("losetup", &["--find", "--show", path.to_str().unwrap()]);
    let input = fs::File::open(device.trim()).unwrap();
    let imported = rig.with(undeclared(&rig), Some(&input)).unwrap().imported.unwrap();
    assert_eq!(imported.sha256, hex(&Sha256::digest(noise())));
}

/// bmid as a service runs as root without the capabilities that override modes and owners.
#[test]
fn imports_need_no_right_to_override_modes() {
    let here = "drivers::storage::file::tests::imports::";
    let output = Command::new("setpriv")
        .args(["--bounding-set=-dac_override,-dac_read_search,-fowner,-chown", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact"])
        .args(
            [
                "a_kill_between_the_last_steps_of_an_import_loses_nothing",
                "a_cancelled_conversion_keeps_what_came",
                "an_import_whose_bytes_are_all_staged_needs_no_input_any_more",
                "a_repeat_with_its_input_after_a_failed_conversion_goes_through",
            ]
            .map(|t| format!("{here}{t}")),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("4 passed"), "{text}");
}

#[test]
fn a_repeat_with_its_input_after_a_failed_conversion_goes_through() {
    let ground = Ground::new();
    let broken = driver().with_converter(Box::new(OpenThenBroken));
    let rig = made(&broken, ground.folder("store"));
    let input = fs::File::open(qcow2(&ground, &noise())).unwrap();
    assert_eq!(rig.with(undeclared(&rig), Some(&input)).unwrap_err().kind, Kind::Unavailable);
    let whole = driver();
    let rig = Rig { driver: &whole, ..rig };
    let done = rig.with(undeclared(&rig), Some(&input)).unwrap();
    assert_eq!(done.imported.unwrap().raw_sha256, hex(&Sha256::digest(noise())));
}

/// A converter that breaks when the staged copy is read-only already.
struct OpenThenBroken;

impl Convert for OpenThenBroken {
    fn convert(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<(), DriverError> {
        job.from.1.set_permissions(fs::Permissions::from_mode(0o444)).unwrap();
        Broken.convert(job, cx)
    }
}
