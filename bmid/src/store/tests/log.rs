//! The log: its bytes never change their meaning, a cut anywhere leaves a prefix of the commits with all that were durable,
//! damage is told from a torn end, and sled gets everything exactly as it was.

use std::fs;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;
use sled::IVec;

use super::super::log::{self, Files, Space, Writing};
use super::*;

const SMALL: u64 = 16 << 10;

fn changes(pairs: &[(&str, Option<&str>)]) -> Changes {
    pairs.iter().map(|(k, v)| (IVec::from(k.as_bytes()), v.map(|v| IVec::from(v.as_bytes())))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A log in a folder of its own, with frames of so many commits each, and what they sum up to after each commit.
struct Written {
    dir: tempfile::TempDir,
    states: Vec<Changes>,
    /// Where each frame ends, and the number of its last commit.
    ends: Vec<(usize, u64)>,
}

fn write(frames: &[Vec<Changes>], first: u64) -> Written {
    let dir = tempfile::tempdir().unwrap();
    log::create(dir.path(), SMALL).unwrap();
    let Ok(files) = Files::open(dir.path(), SMALL) else { panic!("the log does not open") };
    let (mut writing, mut space) = (Writing::new(files.clone()), Space::new(files).unwrap());
    let (mut number, mut states, mut ends, mut end) = (first, vec![Changes::new()], Vec::new(), log::BLOCK);
    for frame in frames {
        for commit in frame {
            space.take(log::room_for(commit)).unwrap();
            let mut state = states.last().unwrap().clone();
            state.extend(commit.clone());
            states.push(state);
        }
        writing.append(number, frame.iter().map(log::encode).collect()).unwrap();
        number += frame.len() as u64;
        end += log::padded(log::FRAME_HEAD + frame.iter().map(log::length).sum::<usize>());
        ends.push((end, number - 1));
        assert!(end as u64 <= space.filled(), "a frame takes more than was spoken for");
    }
    Written { dir, states, ends }
}

fn read(dir: &Path, reached: u64) -> Result<(Changes, u64), BadLog> {
    log::replay(dir, reached).map_err(|e| match e {
        log::NoLog::Bad(e) => e,
        log::NoLog::Io(e) => panic!("{e}"),
    })
}

fn damaged(found: Result<(Changes, u64), BadLog>) -> String {
    match found {
        Err(BadLog::Damaged(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_logs_bytes_are_the_golden_ones() {
    let dir = tempfile::tempdir().unwrap();
    let head = log::head(&[7; 16]);
    assert_eq!(
        (head.len(), hex(&head[..32])),
        (512, "626d69646c6f670a01000000070707070707070707070707070707074e028e1f".to_owned())
    );
    let commits = [changes(&[("a", Some("1")), ("b", None)]), changes(&[("c", Some(""))])];
    let frame = log::seal(&[7; 16], 258, commits.iter().map(log::encode).collect());
    let wanted =
        "66726d311e0000000201000000000000020000005452930e020000000100610200000031010062000000000100000001006301000000";
    assert_eq!((frame.len(), hex(&frame[..54])), (512, wanted.to_owned()));
    assert!(frame[54..].iter().all(|b| *b == 0));
    // And they are read as what they mean.
    for name in ["log.0", "log.1"] {
        fs::write(dir.path().join(name), [&head[..], &frame[..]].concat()).unwrap();
    }
    fs::write(dir.path().join("log.1"), &head).unwrap();
    let all = changes(&[("a", Some("1")), ("b", None), ("c", Some(""))]);
    assert_eq!(read(dir.path(), 257), Ok((all, 259)));
    assert_eq!(read(dir.path(), 258), Ok((changes(&[("c", Some(""))]), 259)));
    assert_eq!(read(dir.path(), 259), Ok((Changes::new(), 259)));
    let why = damaged(read(dir.path(), 200));
    assert!(why.contains("commit 258 follows commit 200"), "{why}");
}

fn some_changes() -> impl Strategy<Value = Changes> {
    prop::collection::btree_map(0u8..20, prop::option::of(prop::collection::vec(any::<u8>(), 0..700)), 1..5)
        .prop_map(|m| m.into_iter().map(|(k, v)| (IVec::from(&[k]), v.map(IVec::from))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_cut_anywhere_gives_a_prefix_with_everything_that_was_durable(
        frames in prop::collection::vec(prop::collection::vec(some_changes(), 1..4), 1..6),
        older in prop::collection::vec(prop::collection::vec(some_changes(), 1..4), 0..6),
        cut in any::<prop::sample::Index>(),
        reached in any::<prop::sample::Index>(),
    ) {
        // The file was used before: what the cut write had not reached yet is of that round.
        let before = write(&older, 1);
        let first = before.ends.last().map_or(1, |(_, last)| last + 1);
        let path = before.dir.path().join("log.0");
        let mut old = fs::read(&path).unwrap();
        let Ok(files) = Files::open(before.dir.path(), SMALL) else { panic!("the log does not open") };
        let mut writing = Writing::new(files);
        let (mut ends, mut number) = (vec![(log::BLOCK, first - 1)], first);
        let mut states = vec![Changes::new()];
        for frame in &frames {
            writing.append(number, frame.iter().map(log::encode).collect()).unwrap();
            number += frame.len() as u64;
            for commit in frame {
                let mut state = states.last().unwrap().clone();
                state.extend(commit.clone());
                states.push(state);
            }
            let length = log::padded(log::FRAME_HEAD + frame.iter().map(log::length).sum::<usize>());
            ends.push((ends.last().unwrap().0 + length, number - 1));
        }
        let new = fs::read(&path).unwrap();
        let end = ends.last().unwrap().0;
        let cut = log::BLOCK + cut.index(end - log::BLOCK + 1);
        old.resize(new.len().max(old.len()), 0);
        old[..cut].copy_from_slice(&new[..cut]);
        fs::write(&path, &old).unwrap();
        let durable = ends.iter().filter(|(end, _)| *end <= cut).map(|(_, last)| *last).max().unwrap();
        // sled has what was durable before, or some of this round too.
        let (found, last) = read(before.dir.path(), first - 1).unwrap();
        // The last frame's padding may be missing.
        prop_assert!(last >= durable && last < number, "{durable} were durable, {last} came back");
        prop_assert_eq!(&found, &states[usize::try_from(last + 1 - first).unwrap()]);
        let reached = first - 1 + reached.index(usize::try_from(last + 2 - first).unwrap()) as u64;
        let (rest, again) = read(before.dir.path(), reached).unwrap();
        prop_assert_eq!(again, last);
        let mut whole = states[usize::try_from(reached + 1 - first).unwrap()].clone();
        whole.extend(rest);
        prop_assert_eq!(whole, found);
    }
}

fn three_frames() -> Written {
    let commit = |n: u8| changes(&[("key", Some(&"x".repeat(usize::from(n) * 100)))]);
    write(&[vec![commit(1)], vec![commit(9), commit(2)], vec![commit(3)]], 1)
}

fn flip(dir: &Path, at: usize) {
    let file = fs::File::options().read(true).write(true).open(dir.join("log.0")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

#[test]
fn a_bad_frame_before_good_ones_is_damage_and_at_the_end_a_torn_write() {
    let w = three_frames();
    flip(w.dir.path(), w.ends[1].0 + 30);
    assert_eq!(read(w.dir.path(), 0), Ok((w.states[3].clone(), 3)));
    // sled has that one already: nothing is missing, and the file says so by being at an end.
    assert_eq!(read(w.dir.path(), 4), Ok((Changes::new(), 4)));
    let w = three_frames();
    flip(w.dir.path(), w.ends[0].0 + 30);
    let why = damaged(read(w.dir.path(), 0));
    assert!(why.contains("log.0") && why.contains("nothing follows commit 1") && why.contains("commit 4"), "{why}");
    // What sled has need not hold any more.
    assert_eq!(read(w.dir.path(), 4), Ok((Changes::new(), 4)));
    let w = three_frames();
    flip(w.dir.path(), 20);
    assert!(damaged(read(w.dir.path(), 0)).contains("checksum of its head"));
}

#[test]
fn a_file_that_is_missing_between_two_others_is_damage() {
    let (a, b) = (three_frames(), write(&[vec![changes(&[("k", Some("v"))])]], 6));
    fs::copy(b.dir.path().join("log.0"), a.dir.path().join("log.1")).unwrap();
    assert!(damaged(read(a.dir.path(), 0)).contains("commit 6 follows commit 4"));
    let b = write(&[vec![changes(&[("k", Some("v"))])]], 5);
    fs::copy(b.dir.path().join("log.0"), a.dir.path().join("log.1")).unwrap();
    assert_eq!(read(a.dir.path(), 0).unwrap().1, 5);
    // Whichever file is the older one.
    fs::rename(a.dir.path().join("log.0"), a.dir.path().join("x")).unwrap();
    fs::rename(a.dir.path().join("log.1"), a.dir.path().join("log.0")).unwrap();
    fs::rename(a.dir.path().join("x"), a.dir.path().join("log.1")).unwrap();
    assert_eq!(read(a.dir.path(), 0).unwrap().1, 5);
}

#[test]
fn bytes_of_a_row_do_not_pass_for_a_frame() {
    // A frame sealed under another nonce, as a row that somebody made up, right where frames begin.
    let forged = log::seal(&[0; 16], 99, vec![log::encode(&changes(&[("k", Some("v"))]))]);
    let padding = log::BLOCK - log::FRAME_HEAD - 4 - 6 - 3;
    let value = [&vec![0; padding][..], &forged].concat();
    let row: Changes = [(IVec::from(b"key"), Some(IVec::from(value)))].into();
    let w = write(&[vec![row]], 1);
    let bytes = fs::read(w.dir.path().join("log.0")).unwrap();
    assert_eq!(bytes[2 * log::BLOCK..][..4], *b"frm1");
    flip(w.dir.path(), log::BLOCK + 30);
    assert_eq!(read(w.dir.path(), 0), Ok((Changes::new(), 0)));
}
