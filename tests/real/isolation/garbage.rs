//! Packets that no initiator sends. They end nobody's tgtd, neither A's own nor B's.

use std::io::{Read, Write};
use std::time::Duration;

use super::bench::{A, Bench, attack, tgtd};
use super::floods::{portal, while_b_works};
use super::iscsi::{command, dial, log_in, packet};
use super::names::logs_in;
use super::wire::at;
use crate::dice::{self, Dice};

/// Whoever runs the tests may give the seed, to see again what it did.
fn seed() -> u64 {
    dice::given().unwrap_or_else(|| getrandom::u64().unwrap())
}

/// Packets whose kind is known and the rest is not.
fn rubbish(seed: u64, n: u32) -> Vec<u8> {
    let kind = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x40, 0x41, 0x42, 0x43, 0x44, 0x46, 0x3f, 0x20];
    let mut dice = Dice(seed ^ u64::from(n) << 32);
    let mut bytes: Vec<u8> = (0..75).flat_map(|_| dice.next().to_be_bytes()).collect();
    bytes[0] = kind[n as usize % kind.len()];
    if !n.is_multiple_of(3) {
        // A length that is true, so that it is read to its end.
        (bytes[4], bytes[5], bytes[6], bytes[7]) = (0, 0, 2, 40);
    }
    if n.is_multiple_of(2) {
        // The number that a command must have after a login.
        bytes[24..28].copy_from_slice(&[0, 0, 0, 1]);
    }
    bytes
}

/// Sends something to A's tgtd, which lets it in.
fn sends(bench: &Bench, login: bool, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = dial(portal(bench, A), None)?;
    if login {
        let told = log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 77)?;
        assert_eq!(told, 0, "a login's status");
    }
    let _ = stream.write_all(bytes);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}

#[test]
fn rubbish_before_and_after_login_ends_neither_its_own_networks_tgtd_nor_anothers() {
    let name = "isolation::garbage::rubbish_before_and_after_login_ends_neither_its_own_networks_tgtd_nor_anothers";
    attack(name, |bench| {
        let (before, seed) = (tgtd(bench, A), seed());
        let stands = |what: &str| {
            let serves = logs_in(bench, "a2", A, A).map(drop);
            let same = tgtd(bench, A) == before;
            assert!(
                serves.is_ok() && same,
                "A's tgtd does not stand {what}: {serves:?}. BMI_SEED={seed} does this again"
            );
        };
        let sends = |login, bytes: &[u8]| sends(bench, login, bytes);
        // Where one fails, what was sent before it has ended the tgtd.
        let all = |login, numbers: std::ops::Range<u32>| {
            for n in numbers {
                if let Err(e) = sends(login, &rubbish(seed, n)) {
                    let last = n.checked_sub(1).map(|n| rubbish(seed, n));
                    panic!("BMI_SEED={seed}: {e} after packet {n} (login: {login}): {last:02x?}");
                }
            }
        };
        while_b_works(bench, || at("a", || all(false, 0..200)));
        stands("rubbish before login");

        // A read of nothing, which ends a tgtd without its guard on a pool's disk, and lengths that lie.
        let read = |blocks: u32| [&[0x88][..], &[0; 9], &blocks.to_be_bytes()].concat();
        let after_one = |flags, expected, cdb: &[u8]| {
            let packets = [command(0x81, 0, 1, &[]), command(flags, expected, 2, cdb)].concat();
            while_b_works(bench, || at("a", || sends(true, &packets).expect("a login")));
        };
        for (expected, blocks) in [(0, 0), (512, 0), (0, 1), (512, 8), (512, u32::MAX)] {
            after_one(0xc1, expected, &read(blocks));
        }
        stands("reads");

        // Answers without room for them, blocks that were not sent: tgtd without its guard falls over each.
        let numbers_blocks = [&[0x93, 2][..], &[0; 11], &[4]].concat();
        let falls =
            [(0x81, 0, vec![0x1a]), (0xc1, 0, vec![0x5a]), (0xa1, 512, vec![0x1a]), (0xc1, 512, numbers_blocks)];
        for (flags, expected, cdb) in falls {
            after_one(flags, expected, &cdb);
            stands(&format!("{cdb:02x?}"));
        }
        while_b_works(bench, || {
            at("a", || all(true, 0..100));
            at("a", || sends(true, &packet(0x40, 0x80, &[(16, &[255; 4])], &[])).expect("a login"));
        });
        stands("rubbish");
        let events = bench.run("event ls").items;
        assert_eq!(events.iter().filter(|e| e["method"] == "worker.died").count(), 0, "{events:?}");
    });
}
