//! Packets that no initiator sends. They end nobody's tgtd, neither A's own nor B's.

use std::io::{Read, Write};
use std::time::Duration;

use super::bench::{A, attack, tgtd};
use super::floods::{portal, while_b_works};
use super::iscsi::{command, dial, log_in, packet};
use super::names::logs_in;
use super::wire::at;

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Packets whose kind is known and the rest is not.
fn rubbish(n: u32) -> Vec<u8> {
    let kind = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x40, 0x41, 0x42, 0x43, 0x44, 0x46, 0x3f, 0x20];
    let mut bytes = random::<600>().to_vec();
    bytes[0] = kind[n as usize % kind.len()];
    if !n.is_multiple_of(3) {
        // A length that is true, so that it is read to its end.
        (bytes[4], bytes[5], bytes[6], bytes[7]) = (0, 0, 2, 40);
    }
    bytes
}

#[test]
fn rubbish_before_and_after_login_ends_neither_its_own_networks_tgtd_nor_anothers() {
    let name = "isolation::garbage::rubbish_before_and_after_login_ends_neither_its_own_networks_tgtd_nor_anothers";
    attack(name, |bench| {
        let before = tgtd(bench, A);
        let sends = |login: bool, bytes: &[u8]| {
            let Ok(mut stream) = dial(portal(bench, A), None) else { return };
            if login && !matches!(log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 77), Ok(0)) {
                return;
            }
            let _ = stream.write_all(bytes);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
            let _ = stream.read(&mut [0; 64]);
        };
        while_b_works(bench, || at("a", || (0..200).for_each(|n| sends(false, &rubbish(n)))));
        logs_in(bench, "a2", A, A).expect("another machine of A logs in");
        assert_eq!(tgtd(bench, A), before, "who has not logged in ends nothing");

        // A read of nothing, which ends a tgtd without its guard on a pool's disk, and lengths that lie.
        let read = |blocks: u32| [&[0x88][..], &[0; 9], &blocks.to_be_bytes()].concat();
        for (expected, blocks) in [(0, 0), (512, 0), (0, 1), (512, 8), (512, u32::MAX)] {
            while_b_works(bench, || {
                at("a", || {
                    sends(true, &[command(0x81, 0, 1, &[]), command(0xc1, expected, 2, &read(blocks))].concat())
                });
            });
        }
        logs_in(bench, "a2", A, A).expect("another machine of A logs in");
        assert_eq!(tgtd(bench, A), before, "nor do reads");

        // Answers without room for them, blocks that were not sent: tgtd without its guard falls over each.
        let numbers_blocks = [&[0x93, 2][..], &[0; 11], &[4]].concat();
        let falls =
            [(0x81, 0, vec![0x1a]), (0xc1, 0, vec![0x5a]), (0xa1, 512, vec![0x1a]), (0xc1, 512, numbers_blocks)];
        for (flags, expected, cdb) in falls {
            while_b_works(bench, || {
                at("a", || sends(true, &[command(0x81, 0, 1, &[]), command(flags, expected, 2, &cdb)].concat()));
            });
            logs_in(bench, "a2", A, A).expect("another machine of A logs in");
            assert_eq!(tgtd(bench, A), before, "{cdb:02x?}");
        }
        while_b_works(bench, || {
            at("a", || (0..100).for_each(|n| sends(true, &rubbish(n))));
            at("a", || sends(true, &packet(0x40, 0x80, &[(16, &[255; 4])], &[])));
        });
        logs_in(bench, "a2", A, A).expect("another machine of A logs in");
        assert_eq!(tgtd(bench, A), before, "nor does rubbish");
        let events = bench.run("event ls").items;
        assert_eq!(events.iter().filter(|e| e["method"] == "worker.died").count(), 0, "{events:?}");
    });
}
