//! What is asked and whose turn it is, without tgtd.

use super::*;

fn head(flags: u8, length: u32, cdb: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    (head[0], head[1]) = (0x41, 0x80 | flags);
    head[20..24].copy_from_slice(&length.to_be_bytes());
    head[32..32 + cdb.len()].copy_from_slice(cdb);
    head
}

const READS: u8 = 0x40;
const WRITES: u8 = 0x20;
const SAME_10: [u8; 10] = [0x41, 0, 0, 0, 1, 2, 0, 0, 9, 0];
const SAME_16: [u8; 16] = [0x93, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0];

#[test]
fn a_header_is_whole_with_its_last_byte_and_what_lies_elsewhere_is_none() {
    let mut heads = Heads::default();
    assert_eq!(heads.whole(5, 1_000, 48, 48), None, "of nobody who was let in");
    heads.begun(5);
    assert_eq!(heads.whole(5, 1_000, 48, 48), Some(1_000));
    assert_eq!(heads.whole(5, 9_000, 48, 48), None, "48 bytes of data");
    assert_eq!(heads.whole(5, 1_000, 48, 20), None);
    assert_eq!(heads.whole(5, 1_020, 28, 27), None);
    assert_eq!(heads.whole(5, 1_047, 1, 1), Some(1_000), "in three parts");
    assert_eq!(heads.whole(5, 1_048, 4, 4), None, "a digest behind it");
    assert_eq!(heads.whole(5, 1_040, 16, 16), None, "over its end");
    heads.begun(5);
    assert_eq!(heads.whole(5, 7_000, 48, 48), Some(7_000), "another connection of that number");
    heads.begun(6);
    assert_eq!(heads.whole(6, 3_000, 120, 48), None, "bmid's own request");
    assert_eq!(heads.whole(6, 3_000, 48, 48), None, "and nothing of that number from then on");
}

#[test]
fn of_a_header_the_run_is_known_that_it_asks_for_and_of_no_other() {
    let same = |cdb: &[u8]| looked(&mut head(WRITES, 512, cdb));
    assert_eq!(same(&SAME_10), Some(Run { first: 258, blocks: 9 }));
    assert_eq!(same(&SAME_16), Some(Run { first: (1 << 32) + 7, blocks: 65_536 }));
    let with = |at: usize, byte: u8| {
        let mut cdb = SAME_10;
        cdb[at] = byte;
        same(&cdb)
    };
    assert_eq!((with(8, 1), with(8, 0)), (None, None), "one block; up to the end");
    assert_eq!((with(1, 8), with(1, 2), with(1, 4)), (None, None, None), "gives back; numbers its blocks");
    assert_eq!(with(0, 0x2a), None, "WRITE");
    let mut data = head(WRITES, 512, &SAME_10);
    data[0] = 0x05;
    assert_eq!(looked(&mut data), None, "data, no command");
    assert_eq!(looked(&mut head(READS | WRITES, 512, &SAME_10)), None, "both ways");
    let mut fine = head(WRITES, 512, &SAME_16);
    looked(&mut fine);
    assert_eq!(fine, head(WRITES, 512, &SAME_16), "nothing of it is changed");
}

#[test]
fn what_tgtd_falls_over_becomes_what_it_stands() {
    let becomes = |flags, length, cdb: &[u8]| {
        let mut head = head(flags, length, cdb);
        looked(&mut head);
        head[32..].to_vec()
    };
    let (six, ten) = ([0x1a, 0, 0x3f, 0, 0, 0], [0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 0, 0]);
    for (flags, length) in [(0, 0), (READS, 0), (WRITES, 512), (0, 512), (READS | WRITES, 512)] {
        assert_eq!(becomes(flags, length, &six), [0; 16], "{flags:#x} {length}");
        assert_eq!(becomes(flags, length, &ten), [0; 16]);
    }
    assert_eq!(becomes(READS, 4, &six)[..6], six, "there is room");
    let wants = [0x1a, 0, 0x3f, 0, 4, 0];
    assert_eq!(becomes(0, 0, &wants)[..6], wants, "tgtd itself refuses more than there is room for");
    assert_eq!(becomes(0, 0, &SAME_10)[1], 0xe0, "a block that was not sent");
    assert_eq!(becomes(READS, 512, &SAME_16)[1], 0xe0);
    let gives_back = [0x93, 8];
    assert_eq!(becomes(0, 0, &gives_back)[..2], gives_back, "needs none");
}

fn begun(blocks: u64) -> Runs {
    let mut runs = Runs::default();
    runs.given(4_096, Some(Run { first: 10, blocks }));
    runs
}

const DISK: Disk = Disk::Image(1);

#[test]
fn the_first_block_stands_for_all_and_the_others_are_answered_as_it_was() {
    for (how, answer) in [(Ok(()), Turn::Done), (Err(-5), Turn::Failed(-5))] {
        let mut runs = begun(4);
        assert_eq!(runs.turn(4_096, DISK, 512, 5_120), Turn::First(2_048));
        runs.went(4_096, Some(how));
        for at in [5_632, 6_144, 6_656] {
            assert_eq!(runs.turn(4_096, DISK, 512, at), answer);
        }
        assert_eq!((runs.turn(4_096, DISK, 512, 7_168), runs.count()), (Turn::Alone, 0), "behind its end");
    }
    let mut runs = begun(4);
    runs.turn(4_096, DISK, 512, 5_120);
    runs.went(4_096, None);
    assert_eq!(runs.turn(4_096, DISK, 512, 5_632), Turn::Alone, "it could not be joined");
}

#[test]
fn what_does_not_fit_exactly_is_written_alone_and_ends_the_run() {
    for (disk, len, offset) in [(DISK, 512, 5_632), (DISK, 1_024, 5_120), (DISK, 5_120, 5_120), (DISK, 0, 0)] {
        let mut runs = begun(4);
        assert_eq!(runs.turn(4_096, disk, len, offset), Turn::Alone, "as a first: {len} at {offset}");
        assert_eq!(runs.count(), 0);
    }
    for (disk, len, offset) in [(Disk::Image(2), 512, 5_632), (Disk::File(1), 512, 5_632), (DISK, 1_024, 5_632)] {
        let mut runs = begun(4);
        runs.turn(4_096, DISK, 512, 5_120);
        assert_eq!(runs.turn(4_096, disk, len, offset), Turn::Alone, "as a second: {disk:?} {len}");
        assert_eq!(runs.turn(4_096, DISK, 512, 5_632), Turn::Alone);
    }
    let mut runs = begun(4);
    assert_eq!(runs.turn(8_192, DISK, 512, 5_120), Turn::Alone, "another command's block");
    assert_eq!(runs.turn(4_096, DISK, 512, 5_120), Turn::First(2_048));
    runs.given(4_096, None);
    assert_eq!(runs.turn(4_096, DISK, 512, 5_632), Turn::Alone, "the buffer is another command's now");
    let all = |blocks| begun(blocks).turn(4_096, DISK, 512, 5_120);
    assert_eq!(all((1 << 23) - 1), Turn::First((1 << 32) - 512));
    assert_eq!((all(1 << 23), all(u64::MAX)), (Turn::Alone, Turn::Alone), "tgtd counts in 32 bits");
}

#[test]
fn a_flood_of_runs_that_are_never_written_takes_no_more_than_a_measure() {
    let mut runs = begun(2);
    runs.turn(4_096, DISK, 512, 5_120);
    for n in 2..10_000 {
        runs.given(n << 12, Some(Run { first: 1, blocks: 2 }));
        assert!(runs.count() <= MOST);
    }
    assert_eq!(runs.turn(4_096, DISK, 512, 5_632), Turn::Done, "what has begun is kept");
}

#[test]
fn only_a_reads_buffer_is_full_when_it_is_sent() {
    for code in [0x08, 0x28, 0xa8, 0x88] {
        assert!(!answers_less(&head(READS, 512, &[code])));
    }
    for cdb in [[0x12], [0x00], [0xa0], [0x5e]] {
        assert!(answers_less(&head(READS, 512, &cdb)) && !answers_less(&head(WRITES, 512, &cdb)));
    }
}
