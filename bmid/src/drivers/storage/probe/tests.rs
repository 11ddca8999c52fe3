//! What the probe must keep: real images of every format are known with their size, cut ones are refused wherever the cut
//! is, and no bytes at all make it panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const MAX: u64 = 1 << 40;

/// A disk of 5 MiB with data at both ends, in the given format, as qemu-img writes it.
fn image(dir: &Path, format: &str, options: &[&str]) -> Vec<u8> {
    let (raw, out) = (dir.join("raw"), dir.join("out"));
    let mut disk = vec![0u8; 5 << 20];
    for (i, b) in disk.iter_mut().enumerate().filter(|(i, _)| *i < 300_000 || *i > 5_000_000) {
        *b = (i * 7 + i / 251) as u8;
    }
    std::fs::write(&raw, disk).unwrap();
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", format]).args(options).args([&raw, &out]);
    assert!(convert.status().unwrap().success());
    std::fs::read(out).unwrap()
}

/// Whether the image still has the disk that `image` made.
fn same_disk(dir: &Path, format: &str, bytes: &[u8]) -> bool {
    std::fs::write(dir.join("cut"), bytes).unwrap();
    let mut compare = Command::new("qemu-img");
    compare.args(["compare", "-f", format, "-F", "raw", "cut", "raw"]).current_dir(dir);
    compare.output().unwrap().status.success()
}

fn refused(bytes: &[u8]) -> (Kind, String) {
    match probe(bytes, MAX) {
        Err(Bad::Refused(kind, why, fix)) => {
            assert!(!fix.is_empty(), "no advice: {why}");
            (kind, why)
        }
        other => panic!("not refused: {other:?}"),
    }
}

const WAYS: [(&str, &[&str], Format); 12] = [
    ("qcow2", &[], Format::Qcow2),
    ("qcow2", &["-c"], Format::Qcow2),
    ("qcow2", &["-o", "compat=0.10"], Format::Qcow2),
    ("qcow2", &["-o", "extended_l2=on,cluster_size=128k"], Format::Qcow2),
    ("qcow2", &["-o", "cluster_size=512"], Format::Qcow2),
    ("qcow2", &["-o", "preallocation=metadata"], Format::Qcow2),
    ("vmdk", &[], Format::Vmdk),
    ("vmdk", &["-o", "subformat=streamOptimized"], Format::Vmdk),
    ("vdi", &[], Format::Vdi),
    ("vhdx", &[], Format::Vhdx),
    ("vpc", &["-o", "force_size=on"], Format::Vhd),
    ("vpc", &["-o", "subformat=fixed,force_size=on"], Format::Vhd),
];

#[test]
fn every_format_that_qemu_img_writes_is_known_with_its_size() {
    let dir = tempfile::tempdir().unwrap();
    for (format, options, expected) in WAYS {
        let bytes = image(dir.path(), format, options);
        let probed = probe(&bytes[..], MAX).unwrap_or_else(|e| panic!("{format} {options:?}: {e}"));
        assert_eq!(probed, Probed { format: expected, size: 5 << 20 }, "{format} {options:?}");
    }
}

#[test]
fn an_image_cut_anywhere_is_refused_unless_its_disk_is_still_whole_or_raw() {
    let dir = tempfile::tempdir().unwrap();
    for (format, options, expected) in WAYS {
        let bytes = image(dir.path(), format, options);
        let cuts = (1..40).map(|n| bytes.len() * n / 40).chain([bytes.len() - 513, bytes.len() - 4_096]);
        for cut in cuts {
            match probe(&bytes[..cut], MAX) {
                Err(Bad::Refused(Kind::Corrupt, ..)) => {}
                // A fixed VHD without its end has no mark left at all.
                Ok(Probed { format: Format::Raw, .. }) if options.iter().any(|o| o.contains("fixed")) => {}
                // Some end with padding: then the disk must be the same.
                Ok(_) if same_disk(dir.path(), format, &bytes[..cut]) => {}
                other => panic!("{expected} {options:?} cut at {cut} of {}: {other:?}", bytes.len()),
            }
        }
    }
}

#[test]
fn a_raw_disk_is_what_has_no_mark() {
    assert_eq!(probe(&[7u8; 1_000][..], MAX).unwrap(), Probed { format: Format::Raw, size: 1_000 });
    assert_eq!(probe(&[7u8][..], MAX).unwrap().size, 1);
}

#[test]
fn an_empty_input_is_refused() {
    assert_eq!(refused(&[]).0, Kind::Invalid);
}

#[test]
fn a_disk_larger_than_allowed_is_refused_before_its_tables_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for (format, options, _) in WAYS {
        let bytes = image(dir.path(), format, options);
        assert!(matches!(probe(&bytes[..], (5 << 20) - 1), Err(Bad::Refused(Kind::Limit, ..))), "{format} {options:?}");
    }
    let mut lying = image(dir.path(), "qcow2", &[]);
    lying[24..32].copy_from_slice(&(1u64 << 60).to_be_bytes());
    assert_eq!(refused(&lying).0, Kind::Limit);
    lying[24..32].copy_from_slice(&(1u64 << 39).to_be_bytes());
    assert_eq!(refused(&lying).0, Kind::Corrupt, "its table is too small for such a disk");
}

#[test]
fn what_needs_other_files_or_a_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let qemu = |args: &[&str]| {
        let output = Command::new("qemu-img").args(args).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}");
    };
    image(dir.path(), "qcow2", &[]);
    qemu(&["create", "-f", "qcow2", "-b", "out", "-F", "qcow2", "overlay"]);
    qemu(&["create", "-f", "qcow2", "-o", "data_file=elsewhere", "split", "1M"]);
    // The method's field alone: making LUKS measures time, which fails on a busy machine.
    let mut sealed = image(dir.path(), "qcow2", &[]);
    sealed[32..36].copy_from_slice(&2u32.to_be_bytes());
    std::fs::write(at("sealed"), sealed).unwrap();
    qemu(&["create", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat", "1M"]);
    qemu(&["create", "-f", "vmdk", "base.vmdk", "1M"]);
    qemu(&["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk"]);
    for (file, word) in [
        ("overlay", "backing file"),
        ("split", "external data file"),
        ("sealed", "encrypted"),
        ("flat", "in other files"),
        ("child.vmdk", "parent file"),
    ] {
        let (kind, why) = refused(&std::fs::read(at(file)).unwrap());
        assert_eq!(kind, Kind::Invalid, "{file}: {why}");
        assert!(why.contains(word), "{file}: {why}");
    }
}

#[test]
fn tables_that_lie_in_a_circle_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = image(dir.path(), "qcow2", &["-o", "cluster_size=512"]);
    let l1 = usize::try_from(be64(&bytes, 40)).unwrap();
    let first: [u8; 8] = bytes[l1..l1 + 8].try_into().unwrap();
    bytes[l1 + 8..l1 + 16].copy_from_slice(&first);
    assert!(refused(&bytes).1.contains("the same"));
}

/// Headers with a magic and noise behind it: noise alone would hardly ever get past the first bytes.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let magic = prop::sample::select(vec![
        &b"QFI\xfb\0\0\0\x03"[..],
        b"QFI\xfb\0\0\0\x02",
        b"KDMV",
        b"vhdxfile",
        b"conectix",
        b"# Disk DescriptorFile",
        b"",
    ]);
    (magic, prop::collection::vec(any::<u8>(), 0..2_048)).prop_map(|(magic, mut tail)| {
        tail.splice(..magic.len().min(tail.len()), magic.iter().copied());
        tail
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_make_it_panic(bytes in noise()) {
        let _ = probe(&bytes[..], MAX);
    }

    #[test]
    fn no_change_of_a_real_image_makes_it_panic(
        which in 0usize..WAYS.len(),
        changes in prop::collection::vec((0usize..4_096, any::<u8>()), 1..20),
        table in prop::collection::vec((0usize..400_000, any::<u8>()), 0..20),
    ) {
        static REAL: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let real = REAL.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            WAYS.iter().map(|(format, options, _)| image(dir.path(), format, options)).collect()
        });
        let mut bytes = real[which].clone();
        for (at, b) in changes.into_iter().chain(table) {
            if let Some(place) = bytes.get_mut(at) {
                *place = b;
            }
        }
        let _ = probe(&bytes[..], MAX);
    }
}
