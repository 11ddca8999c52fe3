//! libiscsi's own conformance suite on a disk in a pool, by both ways that one is exported: whatever a file of tgtd's stands, the
//! disk stands, and tgtd lives. `make test` runs it with what takes minutes left out, `make conformance` runs all of it. Must never
//! ask less of a disk than a file of the same tgtd is found to pass.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Instant;

use super::client::On;
use super::pools::{House, made, mapped};
use super::*;
use crate::drivers::storage::rbd::tests::ceph::{ceph, guard, own_kernel};
use crate::drivers::target::conformance::INITIATOR;

/// Whether all of it is wanted, however long it takes, on a disk that is set up as bmid does it and not for speed.
fn whole() -> bool {
    std::env::var_os("BMID_CONFORMANCE").is_some_and(|v| v == "whole")
}

/// Under a kernel of its own, what is left out of `make test`. Tests or whole suites: those that take longest (up to a disk's end
/// tgtd writes a block at a time), and those of which another has the same done by an opcode of another length.
const SLOW: [&str; 16] = [
    "WriteSame10.Simple",
    "WriteSame10.Check",
    "WriteSame10.ZeroBlocks",
    "WriteSame16.Simple",
    "WriteSame16.Check",
    "WriteSame16.ZeroBlocks",
    "OrWrite.Verify",
    "Read10",
    "Read12",
    "Verify10",
    "Verify12",
    "Verify16.BeyondEol",
    "Write10",
    "Write12",
    "WriteVerify10",
    "WriteVerify12",
];

/// Bytes of a disk: two objects of a pool. Some tests write all of it, a block at a time.
const SIZE: u64 = 8 << 20;

/// What `iscsi-test-cu` has for one LUN, as `SUITE.TEST`.
fn all() -> Vec<String> {
    let said = text(&Command::new("iscsi-test-cu").arg("--list").output().unwrap());
    let tests = said.lines().filter_map(|l| l.trim().strip_prefix("SCSI.")).filter(|l| l.contains('.'));
    tests.map(str::to_owned).collect()
}

fn suite_of(test: &str) -> &str {
    test.split_once('.').map_or(test, |(suite, _)| suite)
}

/// The fewest runs of the program that have these tests: suites of which all are wanted, and single tests. Each suite runs in a
/// process of its own: where a disk is thin, `CompareAndWrite` leaves behind that all later commands of 16 bytes get one of them
/// changed.
fn runs(wanted: &[String]) -> Vec<String> {
    let all = all();
    let mut runs = Vec::new();
    for suite in all.iter().map(|t| suite_of(t)).collect::<BTreeSet<_>>() {
        let of_suite = |list: &[String]| -> Vec<String> {
            list.iter().filter(|t| suite_of(t) == suite).map(|t| format!("SCSI.{t}")).collect()
        };
        let wanted = of_suite(wanted);
        if wanted.len() == of_suite(&all).len() { runs.push(format!("SCSI.{suite}")) } else { runs.extend(wanted) }
    }
    runs
}

/// The tests that passed. What the program left out has not, though it says so.
fn passed(run: &dyn Fn(&[&str]) -> String, wanted: &[String]) -> Vec<String> {
    let mut passed = Vec::new();
    for test in runs(wanted) {
        let begun = Instant::now();
        let said = run(&["--dataloss", &format!("--test={test}")]);
        eprintln!("suite: {test} {:.1} s", begun.elapsed().as_secs_f32());
        let (mut suite, mut test, mut skipped) = ("", None, false);
        for line in said.lines() {
            suite = line.trim().strip_prefix("Suite: ").unwrap_or(suite);
            if let Some((name, _)) = line.trim().strip_prefix("Test: ").and_then(|t| t.split_once(" ...")) {
                (test, skipped) = (Some(format!("{suite}.{name}")), false);
            }
            skipped |= line.contains("[SKIPPED]");
            // What a test says for itself stands between its name and its end.
            match line {
                _ if line.ends_with("passed") => passed.extend(test.take().filter(|_| !skipped)),
                _ if line.ends_with("FAILED") => test = None,
                _ => {}
            }
        }
    }
    passed
}

/// What tgtd's plain file passes, and what one passes that takes blocks back, as a disk of a pool does that tgtd itself opens.
fn of_files() -> &'static [Vec<String>; 2] {
    static OF_FILES: OnceLock<[Vec<String>; 2]> = OnceLock::new();
    OF_FILES.get_or_init(|| {
        let tgtd = Tgtd::start();
        let client = tgtd.client();
        File::create(tgtd.dir.path().join("file")).unwrap().set_len(SIZE).unwrap();
        [1, 2].map(|tid| {
            let iqn = format!("iqn.2026-11.test:{tid}");
            client.target_new(tid, &iqn).unwrap();
            client.lun_new(tid, 1, &tgtd.disk("file")).unwrap();
            if tid == 2 {
                client.lun_mark(tid, 1, "BMI-suite", "bmi-suite", On::Module).unwrap();
            }
            client.acl_bind(tid, INITIATOR).unwrap();
            let found = passed(&|more| text(&tgtd.iscsi("iscsi-test-cu", INITIATOR, None, &iqn, more)), &all());
            assert!(found.len() > 50 && found.iter().any(|t| t == "Read16.ZeroBlocks"), "{found:?}");
            found
        })
    })
}

/// Where a test under a kernel of its own is told what to run.
const WANTED: &str = "wanted";

#[test]
fn what_a_file_stands_a_disk_in_a_pool_stands_and_an_empty_read_ends_nobody() {
    let house = House::of("guard", SIZE);
    if !own_kernel() && !whole() {
        // Else the blocks that are written one by one, up to the disk's end, are as many questions to Ceph, which takes minutes.
        ceph().tool(&["rbd", "config", "image", "set", &house.image(0), "rbd_cache", "true"]);
    }
    assert!(house.apply(house.target(2, house.lun(0))).unwrap());
    let wanted: Vec<String> = if own_kernel() {
        fs::read_to_string(ceph().path(WANTED)).unwrap().lines().map(str::to_owned).collect()
    } else {
        let [file, thin] = of_files();
        for gives_back in ["Unmap.Simple", "Unmap.VPD", "WriteSame10.Unmap", "WriteSame16.UnmapUnaligned"] {
            assert!(thin.iter().any(|t| t == gives_back), "{gives_back}: {thin:?}");
        }
        file.iter().chain(thin).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    // Before the first flush librbd writes each block through.
    house.session(2).flush().unwrap();
    let of_pool = passed(&|more| house.iscsi("iscsi-test-cu", 2, more), &wanted);
    let lacks: Vec<&String> = wanted.iter().filter(|t| !of_pool.contains(t)).collect();
    if let Some(first) = lacks.first() {
        let said = house.iscsi("iscsi-test-cu", 2, &["--dataloss", &format!("--test=SCSI.{first}")]);
        panic!("a file passes them, the pool's disk does not: {lacks:?}; again: {said}; {}", house.tgtd.log());
    }
    assert!(house.tgtd.client().portals().is_ok(), "tgtd lives: {}", house.tgtd.log());
    assert!(house.writes(2));
    eprintln!("suite: {} of {} passed", wanted.len(), all().len());
}

/// The tests of disks in a pool that hold for disks that the kernel has mapped, too; there they are run by a kernel that can.
#[test]
fn the_kernel_serves_the_disks_of_a_pool_as_tgtd_itself_does() {
    let all = [
        ("lun", "pools::a_disk_in_a_pool_is_a_lun_like_any_other"),
        ("bare", "pools::a_tgtd_without_the_guard_gets_no_disk_of_a_pool"),
        ("lock", "pools::the_lock_of_a_tgtd_that_died_is_broken_before_its_disk_is_opened_again"),
        ("same", "same::a_block_that_is_written_many_times_is_few_questions_and_reaches_its_blocks_alone"),
        ("none", "same::a_block_that_cannot_be_written_many_times_fails_its_command_and_nothing_else"),
        ("guard", "suite::what_a_file_stands_a_disk_in_a_pool_stands_and_an_empty_read_ends_nobody"),
    ];
    guard();
    for (pool, _) in all {
        made(mapped(pool));
    }
    let slow = |t: &String| !whole() && SLOW.iter().any(|s| s == t || *s == suite_of(t));
    let wanted: Vec<&str> = of_files()[0].iter().filter(|t| !slow(t)).map(String::as_str).collect();
    fs::write(ceph().path(WANTED), wanted.join("\n")).unwrap();
    let all = all.map(|(_, test)| format!("drivers::target::tgt::tests::{test}"));
    let said = ceph().with_own_kernel(&all.each_ref().map(String::as_str));
    said.lines().filter(|l| l.starts_with("suite:")).for_each(|l| eprintln!("mapped {l}"));
}
