//! A machine that lies about its data: how long it is, where it belongs, whose it is, and what comes next. tgtd takes its word, and without its
//! guard each of these has ended it. One of them needs no login.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::bench::{A, Bench, attack, tgtd};
use super::floods::{portal, while_b_works};
use super::iscsi::{PATIENCE, command, dial, log_in, log_in_for, packet};
use super::names::logs_in;
use super::wire::at;

const READ: u8 = 0xc1;
const WRITE: u8 = 0xa1;
/// More of its data comes unasked.
const WRITE_AND_MORE: u8 = 0x21;
const NO_TAG: u32 = u32::MAX;

/// Reads or writes so many blocks from the first on.
fn blocks(code: u8, count: u32) -> Vec<u8> {
    [&[code][..], &[0; 9], &count.to_be_bytes(), &[0; 2]].concat()
}

/// A command with data, and with more of a header.
fn with(command: &[u8], more: &[u8], data: &[u8]) -> Vec<u8> {
    let mut head = command.to_vec();
    head[4] = (more.len() / 4) as u8;
    head[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    [&head, more, data].concat()
}

fn data(tag: u32, by: u32, at: u32, bytes: &[u8], ends: bool) -> Vec<u8> {
    let fields: [(usize, &[u8]); 3] = [(16, &tag.to_be_bytes()), (20, &by.to_be_bytes()), (40, &at.to_be_bytes())];
    packet(5, if ends { 0x80 } else { 0 }, &fields, bytes)
}

/// The end of all that the disk has to do.
fn reset(n: u32) -> Vec<u8> {
    let fields: [(usize, &[u8]); 4] = [(9, &[1]), (16, &99u32.to_be_bytes()), (20, &[255; 4]), (24, &n.to_be_bytes())];
    packet(0x42, 0x85, &fields, &[])
}

type Lie = (&'static str, Vec<Vec<u8>>);

fn reads() -> impl Iterator<Item = Vec<u8>> {
    (1..20).map(|n| command(READ, 1 << 20, n, &blocks(0x88, 2_048)))
}

fn written(flags: u8, all: u32) -> Vec<u8> {
    command(flags, all, 1, &blocks(0x8a, all.div_ceil(512)))
}

/// Of what length and where, said after a login, at once.
fn lies_of_place() -> Vec<Lie> {
    let (big, block) = (vec![255; 200_000], vec![255; 512]);
    let inquiry = [0x12, 0, 0, 0, 255, 0];
    vec![
        ("behind the end of its buffer", vec![written(WRITE_AND_MORE, 64), data(1, NO_TAG, 64, &big[..60_000], true)]),
        (
            "data of a command without any",
            vec![
                with(&command(0x81, 0, 1, &[]), &[], &big[..60_000]),
                with(&command(0x81, 0, 2, &[]), &[], &big[..60_000]),
            ],
        ),
        ("data of a logout", vec![packet(0x46, 0x80, &[], &big)]),
        (
            "more of a ping's header",
            [reads().take(1).collect(), vec![with(&packet(0x40, 0x80, &[], &[]), &[255; 1_020], &[]); 3]].concat(),
        ),
        (
            "more of data's header",
            vec![
                with(&command(READ, 512, 1, &blocks(0x88, 1)), &[0; 8], &[]),
                command(WRITE_AND_MORE, 512, 2, &blocks(0x8a, 1)),
                with(&data(2, NO_TAG, 0, &[], true), &[255; 1_020], &block),
            ],
        ),
        ("two gigabytes of an answer", vec![command(READ, 1 << 31, 1, &inquiry), command(READ, 1 << 31, 2, &inquiry)]),
    ]
}

/// Whose and when.
fn lies_of_turn() -> Vec<Lie> {
    let block = vec![255; 512];
    let early = |n, flags, all| command(flags, all, n, &blocks(0x8a, all / 512));
    vec![
        ("data for reads", reads().chain((1..20).map(|n| data(n, NO_TAG, 0, &[], true))).collect()),
        ("all of it twice", [vec![written(WRITE_AND_MORE, 8_192)], vec![data(1, NO_TAG, 0, &block, true); 3]].concat()),
        (
            "all of it, and then that it was all",
            [vec![with(&written(WRITE_AND_MORE, 512), &[], &block)], vec![data(1, NO_TAG, 0, &[], true); 3]].concat(),
        ),
        ("data that is not asked for", [vec![written(WRITE, 1 << 20)], vec![data(1, 1, 0, &block, true); 6]].concat()),
        (
            "an end of what waits for others",
            (1..20).map(|n| command(0xc2, 1 << 20, n, &blocks(0x88, 2_048))).chain([reset(20)]).collect(),
        ),
        (
            "a command that comes early, and half of its data",
            vec![early(5, WRITE_AND_MORE, 4_096), data(5, NO_TAG, 0, &[255; 4_096], true)[..148].to_vec()],
        ),
        (
            "a command that comes early, and its data twice",
            [
                vec![early(2, WRITE_AND_MORE, 512), data(2, NO_TAG, 0, &block, false), command(0x81, 0, 1, &[])],
                vec![data(2, NO_TAG, 0, &[], true); 3],
            ]
            .concat(),
        ),
        (
            "a read by the tag of a write",
            [
                vec![written(WRITE_AND_MORE, 4_096)],
                vec![with(&command(READ, 1 << 20, 2, &blocks(0x88, 2_048)), &[], &[])]
                    .into_iter()
                    .map(|mut read| {
                        read[16..20].copy_from_slice(&1u32.to_be_bytes());
                        read
                    })
                    .collect(),
                vec![data(1, NO_TAG, 0, &[], true); 3],
            ]
            .concat(),
        ),
    ]
}

/// All that comes until the other end has closed it; what has not been closed is.
fn to_its_end(stream: &mut TcpStream) {
    // Its answer comes when what was said before has been heard.
    let _ = stream.write_all(&packet(0x46, 0x80, &[(16, &[7; 4]), (24, &[0, 0, 0, 21])], &[]));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A header that tgtd has sent.
fn answer(stream: &mut TcpStream) -> [u8; 48] {
    let mut head = [0; 48];
    stream.read_exact(&mut head).expect("an answer");
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    stream.read_exact(&mut vec![0; length.next_multiple_of(4)]).unwrap();
    head
}

/// A reservation that nobody has is moved: `key` registers first, once the disk has told that it is new.
fn moves_a_reservation(stream: &mut TcpStream) {
    let key = *b"a key 01";
    let reserves = |n, action, data: &[u8]| {
        let mut cdb = [0x5f, action, 0, 0, 0, 0, 0, 0, 0, 0];
        cdb[8] = data.len() as u8;
        with(&command(WRITE, data.len() as u32, n, &cdb), &[], data)
    };
    for n in 1..4 {
        let _ = stream.write_all(&reserves(n, 6, &[&[0; 8][..], &key, &[0; 8]].concat()));
        answer(stream);
    }
    let to = [&key[..], &key, &[0, 0, 0, 0], &24u32.to_be_bytes(), &[0; 24]].concat();
    let _ = stream.write_all(&reserves(4, 7, &to));
}

/// More than was announced: tgtd, which has counted below nothing, asks for what it has no room for.
fn is_asked_for_more(stream: &mut TcpStream) {
    for n in 1..4 {
        let _ = stream.write_all(&with(&command(WRITE, 4, n, &blocks(0x8a, 1)), &[], &[255; 4_096]));
        let mut head = [0; 48];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        if head[0] == 0x31 {
            let by = u32::from_be_bytes([head[20], head[21], head[22], head[23]]);
            let _ = stream.write_all(&data(n, by, 4_096, &[255; 258_048], true));
            return;
        }
    }
}

/// Does something to A's tgtd, which must be the one it was.
fn stands(bench: &Bench, name: &str, login: bool, lie: impl FnOnce(&mut TcpStream) + Send) {
    let before = tgtd(bench, A);
    at("a", || {
        let mut stream = dial(portal(bench, A), None).unwrap();
        if login {
            assert_eq!(log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 77).unwrap(), 0);
        }
        lie(&mut stream);
        to_its_end(&mut stream);
    });
    let serves = logs_in(bench, "a2", A, A).map(drop);
    assert!(serves.is_ok() && tgtd(bench, A) == before, "A's tgtd does not stand {name}: {serves:?}");
}

#[test]
fn lies_about_data_end_no_tgtd() {
    attack("isolation::lies::lies_about_data_end_no_tgtd", |bench| {
        while_b_works(bench, || {
            let asks = packet(0x44, 0x80, &[(16, &[0, 0, 0, 1]), (20, &[255; 4])], b"SendTargets=All\0");
            stands(bench, "a question before login", false, |s| drop(s.write_all(&asks)));
            stands(bench, "a reservation that nobody has and that is moved", true, moves_a_reservation);
            stands(bench, "what it asks for below nothing", true, is_asked_for_more);
            for (name, packets) in lies_of_place().into_iter().chain(lies_of_turn()) {
                stands(bench, name, true, |s| drop(s.write_all(&packets.concat())));
            }
        });
    });
}

#[test]
fn a_machine_that_takes_none_of_what_it_asked_for_keeps_no_other_of_its_network_waiting() {
    let name = "isolation::lies::a_machine_that_takes_none_of_what_it_asked_for_keeps_no_other_of_its_network_waiting";
    attack(name, |bench| {
        let before = tgtd(bench, A);
        // More in one packet than any kernel keeps for a connection.
        let (length, all) = (8 << 20, 2);
        let mut stream = at("a", || {
            let mut stream = dial(portal(bench, A), None).unwrap();
            let told = log_in_for(length - 4, &mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 78);
            assert_eq!(told.unwrap(), 0);
            let reads = (2..2 + all).map(|n| command(READ, length, n, &blocks(0x88, length / 512)));
            let asks: Vec<u8> = std::iter::once(command(0x81, 0, 1, &[])).chain(reads).flatten().collect();
            stream.write_all(&asks).unwrap();
            // The first answer, and some of the next: that one is on its way.
            answer(&mut stream);
            stream.read_exact(&mut [0; 4_096]).unwrap();
            stream
        });
        let mut other = logs_in(bench, "a2", A, A).expect("another machine logs in");
        other.write(16, &[7; 512]).expect("and works");
        assert_eq!(other.read(16, 1).unwrap(), [7; 512]);
        // Nothing of it is lost: each read has a packet of nearly all, and one of the rest.
        let left = all as usize * (length as usize + 2 * 48) - 4_096;
        assert_eq!(std::io::copy(&mut (&mut stream).take(left as u64), &mut std::io::sink()).unwrap(), left as u64);
        stream
            .write_all(&packet(0x40, 0x80, &[(16, &[3; 4]), (20, &[255; 4]), (24, &[0, 0, 0, 9])], b"there"))
            .unwrap();
        assert_eq!(answer(&mut stream)[0], 0x20, "its session goes on");
        assert_eq!(tgtd(bench, A), before);
    });
}

#[test]
fn an_answer_behind_a_ping_that_wants_none_comes_by_itself() {
    attack("isolation::lies::an_answer_behind_a_ping_that_wants_none_comes_by_itself", |bench| {
        at("a", || {
            let mut stream = dial(portal(bench, A), None).unwrap();
            assert_eq!(log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 79).unwrap(), 0);
            // tgtd itself asks every 20 s whether a machine is there, and remembers with that what it has forgotten: before
            // the first of these or 20 s later.
            stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            for n in 1..8 {
                let here = packet(0x40, 0x80, &[(16, &[255; 4]), (20, &[0, 0, 0, 9])], &[]);
                stream.write_all(&[here, command(0x81, 0, n, &[])].concat()).unwrap();
                while answer(&mut stream)[0] != 0x21 {}
            }
        });
    });
}

#[test]
fn what_is_given_up_twice_keeps_no_connection() {
    attack("isolation::lies::what_is_given_up_twice_keeps_no_connection", |bench| {
        let files = || std::fs::read_dir(format!("/proc/{}/fd", tgtd(bench, A))).unwrap().count();
        let before = files();
        at("a", || {
            for session in 0..3 {
                let mut stream = dial(portal(bench, A), None).unwrap();
                let told = log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 80 + session);
                assert_eq!(told.unwrap(), 0);
                let said: Vec<u8> = reads().chain([reset(20), reset(20)]).flatten().collect();
                stream.write_all(&said).unwrap();
                // Until the first of these is answered.
                while answer(&mut stream)[0] != 0x22 {}
            }
        });
        let end = Instant::now() + PATIENCE;
        while files() > before {
            assert!(Instant::now() < end, "{} files, {before} before", files());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}
