//! What goes through and what does not, a header at a time, without tgtd.

use super::*;

const WRITE: u8 = FINAL | WRITES | SIMPLE;

fn header(kind: u8, flags: u8, length: u32, fields: &[(usize, u32)]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    (head[0], head[1]) = (kind, flags);
    head[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
    for (at, word) in fields {
        head[*at..*at + 4].copy_from_slice(&word.to_be_bytes());
    }
    head
}

/// A command with a tag, of so many bytes, some of which are sent with it. Numbers count themselves.
fn command(talk: &Talk, flags: u8, tag: u32, all: u32, length: u32) -> [u8; HEAD] {
    header(op::COMMAND, flags, length, &[(16, tag), (20, all), (24, talk.next)])
}

fn data(tag: u32, by: u32, at: u32, length: u32, ends: bool) -> [u8; HEAD] {
    header(op::DATA, if ends { FINAL } else { 0 }, length, &[(16, tag), (20, by), (40, at)])
}

fn answer(kind: u8, flags: u8, tag: u32) -> [u8; HEAD] {
    header(kind, flags, 0, &[(16, tag)])
}

trait Says {
    fn goes(&mut self, head: [u8; HEAD]) -> bool;
    fn asks(&mut self, tag: u32, by: u32, at: u32, length: u32);
}

impl Says for Talk {
    fn goes(&mut self, mut head: [u8; HEAD]) -> bool {
        self.says(&mut head, Load::default(), Instant::now)
    }

    fn asks(&mut self, tag: u32, by: u32, at: u32, length: u32) {
        self.heard(&header(op::READY, FINAL, 0, &[(16, tag), (20, by), (40, at), (44, length)]));
        self.said();
    }
}

fn logged_in() -> Talk {
    let mut talk = Talk::default();
    assert!(talk.goes(header(0x43, 0x87, 300, &[(24, 7)])));
    talk.heard(&header(op::LOGGED_IN, 0x87, 0, &[]));
    talk
}

/// Logged in, and a write has begun.
fn writing(flags: u8, all: u32, length: u32) -> Talk {
    let mut talk = logged_in();
    assert!(talk.goes(command(&talk, flags, 5, all, length)));
    talk
}

const NO_TAG: u32 = u32::MAX;

#[test]
fn who_has_not_logged_in_can_do_that_and_nothing_else() {
    for kind in (0..=0x7f).filter(|kind| *kind != 0x43) {
        assert!(!Talk::default().goes(header(kind, FINAL, 0, &[])), "{kind:#x}");
    }
    let mut talk = Talk::default();
    let mut head = header(0x43, 0x81, 0, &[(12, 0x0102_0304)]);
    assert!(talk.says(&mut head, Load::default(), Instant::now));
    assert_eq!(head[12..16], [1, 2, 0, 0], "a session of its own");
    for (flags, class) in [(0x81, 0), (0x04, 0), (0x87, 2)] {
        let mut answer = header(op::LOGGED_IN, flags, 0, &[]);
        answer[36] = class;
        talk.heard(&answer);
        assert!(!talk.goes(header(op::PING | IMMEDIATE, FINAL, 0, &[])), "{flags:#x} {class}");
    }
    let mut more = header(0x43, 0x87, 0, &[]);
    more[4] = 1;
    assert!(!talk.goes(more));
}

#[test]
fn commands_come_one_after_the_other_and_none_early() {
    let mut talk = logged_in();
    for n in 7..10 {
        assert!(talk.goes(header(op::COMMAND, FINAL, 0, &[(24, n), (16, n)])));
    }
    assert!(talk.goes(header(op::PING | IMMEDIATE, FINAL, 0, &[(24, 10)])), "does not count");
    assert!(talk.goes(header(op::PING, FINAL, 0, &[(24, 10)])));
    for n in [10, 12, 0, NO_TAG] {
        assert!(!talk.goes(header(op::MANAGE, FINAL, 0, &[(24, n)])), "{n}");
    }
    let mut last = Talk { next: u32::MAX, ..logged_in() };
    assert!(last.goes(header(op::COMMAND, FINAL, 0, &[(24, u32::MAX)])));
    assert!(last.goes(header(op::COMMAND, FINAL, 0, &[(24, 0)])));
    assert!(talk.goes(header(op::TEXT, FINAL, 16, &[(24, 40)])), "as discovery asks; tgtd takes its number");
    assert!(talk.goes(header(op::LOGOUT, FINAL, 0, &[(24, 41)])));
    for kind in [0x07, 0x10, 0x1f, 0x20, 0x3f] {
        assert!(!logged_in().goes(header(kind | IMMEDIATE, FINAL, 0, &[])), "{kind:#x} is nothing");
    }
}

#[test]
fn a_length_that_tgtd_has_no_room_for_ends_a_connection() {
    let goes = |flags, all, length| {
        let mut talk = logged_in();
        talk.goes(command(&talk, flags, 5, all, length))
    };
    assert!(goes(WRITE, 512, 512) && goes(WRITE, DATA, 0) && goes(FINAL | 0x40, DATA, 0) && goes(FINAL, 0, 0));
    assert!(!goes(WRITE, 512, 513) && !goes(WRITE, 0, 1), "more than was announced");
    assert!(!goes(FINAL | 0x40, 512, 4) && !goes(FINAL, 0, 4), "with what is no write");
    assert!(!goes(WRITE, DATA + 1, 0) && !goes(FINAL | 0x40, 1 << 31, 0) && !goes(WRITE, u32::MAX, 0));
    for kind in [op::MANAGE, op::LOGOUT] {
        assert!(logged_in().goes(header(kind | IMMEDIATE, FINAL, 0, &[])));
        assert!(!logged_in().goes(header(kind | IMMEDIATE, FINAL, 1, &[])), "{kind}");
    }
    for kind in [op::PING, op::MANAGE, op::LOGIN, op::TEXT, op::DATA, op::LOGOUT] {
        let mut more = header(kind | IMMEDIATE, FINAL, 0, &[]);
        more[4] = 2;
        assert!(!logged_in().goes(more), "{kind} with more of a header");
    }
}

#[test]
fn what_follows_a_commands_header_is_known_to_its_last_byte() {
    let mut talk = logged_in();
    let mut head = command(&talk, WRITE, 5, 512, 512);
    head[4] = 3;
    assert!(talk.goes(head));
    assert_eq!((talk.follows(5), talk.follows(100), talk.follows(48)), (5, 7, 0));
}

#[test]
fn data_comes_unasked_where_it_was_announced_and_once() {
    let all = || writing(WRITES | SIMPLE, 4_096, 512);
    let mut talk = all();
    assert!(talk.goes(data(5, NO_TAG, 512, 1_536, false)) && talk.goes(data(5, NO_TAG, 2_048, 2_048, true)));
    assert!(!talk.goes(data(5, NO_TAG, 0, 0, true)), "all is there");
    for (at, length) in [(4_096, 4), (1, 4_096), (NO_TAG, 4), (NO_TAG - 255, 256), (0, 3_585), (1 << 31, 4)] {
        assert!(!all().goes(data(5, NO_TAG, at, length, true)), "{length} at {at}");
    }
    assert!(!all().goes(data(6, NO_TAG, 512, 4, true)), "another's");
    assert!(!all().goes(data(5, 77, 512, 4, true)), "as if it were asked");
    assert!(!all().goes(data(5, NO_TAG, 512, 3_584, false)), "all of it, and more to come");
    let mut part = all();
    assert!(part.goes(data(5, NO_TAG, 512, 512, true)));
    assert!(!part.goes(data(5, NO_TAG, 1_024, 512, true)), "now it must be asked");
    assert!(!writing(WRITE, 4_096, 512).goes(data(5, NO_TAG, 512, 512, true)), "it said that no more comes");
    assert!(!writing(FINAL | 0x40, 4_096, 0).goes(data(5, NO_TAG, 0, 512, true)), "a read");
    let mut odd = writing(WRITES | SIMPLE, 24, 0);
    assert!(!odd.goes(data(5, NO_TAG, 23, 1, true)), "its padding goes over the end");
}

#[test]
fn data_comes_asked_within_what_was_asked_and_once() {
    let asked = || {
        let mut talk = writing(WRITE, 1 << 20, 0);
        talk.asks(5, 99, 0, 262_144);
        talk
    };
    let mut talk = asked();
    for at in [0, 65_536, 131_072] {
        assert!(talk.goes(data(5, 99, at, 65_536, false)));
    }
    assert!(talk.goes(data(5, 99, 196_608, 65_536, true)));
    assert!(!talk.goes(data(5, 99, 262_144, 4, true)), "before it is asked again");
    for from in (262_144..1 << 20).step_by(262_144) {
        talk.asks(5, 99, from, 262_144);
        assert!(talk.goes(data(5, 99, from, 262_144, true)));
    }
    assert!(!talk.goes(data(5, 99, 0, 0, true)), "all is there");
    for (by, at, length) in [(98, 0, 4), (NO_TAG, 0, 4), (99, 262_144, 4), (99, 262_140, 8)] {
        assert!(!asked().goes(data(5, by, at, length, true)), "{length} at {at}");
    }
    let mut again = asked();
    assert!((0..3).all(|_| again.goes(data(5, 99, 0, 262_144, false))));
    assert!(again.goes(data(5, 99, 4, 262_136, false)));
    assert!(!again.goes(data(5, 99, 0, 12, false)), "more than was announced");
    let mut early = writing(WRITE, 4_096, 0);
    assert!(!early.goes(data(5, 99, 0, 4, true)), "nobody asked");
    early.heard(&header(op::READY, FINAL, 0, &[(16, 5), (20, 99), (44, 4_096)]));
    assert!(!early.goes(data(5, 99, 0, 4, true)), "not all of the question is said");
}

#[test]
fn a_tag_whose_data_is_coming_is_nobody_elses() {
    for flags in [WRITE, FINAL | 0x40] {
        let mut talk = writing(WRITE, 4_096, 0);
        assert!(!talk.goes(command(&talk, flags, 5, 512, 0)));
    }
    let mut talk = writing(WRITE, 4_096, 4_096);
    assert!(talk.goes(command(&talk, WRITE, 5, 512, 0)), "it has all");
}

#[test]
fn what_tgtd_loses_track_of_is_said_otherwise() {
    let said = |flags: u8, cdb: &[u8]| {
        let mut talk = logged_in();
        let mut head = command(&talk, flags, 5, 24, 24);
        head[32..32 + cdb.len()].copy_from_slice(cdb);
        assert!(talk.says(&mut head, Load::default(), Instant::now));
        (head[1], head[33])
    };
    assert_eq!(said(WRITES | SIMPLE, &[]).0, WRITE, "all is there, whatever it says");
    for (order, is) in [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1), (7, 1)] {
        assert_eq!(said(FINAL | WRITES | order, &[]).0, FINAL | WRITES | is);
    }
    let reserves = |action| said(WRITE, &[0x5f, action]).1;
    assert!((0..7).all(|action| reserves(action) == action));
    assert_eq!(reserves(7), 0x1f, "moves one");
}

#[test]
fn commands_without_an_answer_are_bounded_and_answers_make_room() {
    let mut talk = logged_in();
    let ping = |n: u32| header(op::PING | IMMEDIATE, FINAL, 0, &[(16, n)]);
    assert!((0..UNANSWERED).all(|n| talk.goes(ping(n))));
    let last = command(&talk, FINAL, 9, 0, 0);
    for kind in [op::PINGED, op::DONE, op::MANAGED, op::LOGGED_OUT, op::READ] {
        talk.heard(&answer(kind, FINAL | 1, 3));
        assert!(talk.goes(ping(3)), "{kind:#x}");
    }
    talk.heard(&answer(op::PINGED, FINAL, NO_TAG));
    talk.heard(&answer(op::READ, FINAL, 3));
    talk.heard(&answer(op::READY, FINAL, 3));
    assert!(!talk.goes(last), "none of these was an answer");
    let full = Load { unanswered: ALL_UNANSWERED, ..Load::default() };
    let mut few = logged_in();
    for n in 0..FEW {
        assert!(few.says(&mut ping(n), full, Instant::now), "some for everybody");
    }
    assert!(!few.says(&mut ping(0), full, Instant::now));
}

#[test]
fn pings_that_want_no_answer_may_come_for_ever_but_not_at_once() {
    let (mut talk, begun) = (logged_in(), Instant::now());
    let mut ping = header(op::PING | IMMEDIATE, FINAL, 0, &[(16, NO_TAG), (20, 3)]);
    let mut at = |ms: u64| talk.says(&mut ping, Load::default(), || begun + Duration::from_millis(ms));
    assert!((0..2_000).all(|n| at(n * 100)));
    assert!((0..PINGS).all(|_| at(200_000)));
    assert!(!at(200_050) && at(200_100) && !at(200_101));
}

#[test]
fn where_holes_are_is_not_asked_of_what_is_no_disk() {
    assert!(no_disk(0, libc::SEEK_HOLE) && no_disk(0, libc::SEEK_DATA));
    assert!(!no_disk(0, libc::SEEK_SET) && !no_disk(5, libc::SEEK_HOLE));
}

#[test]
fn behind_each_ping_that_wants_no_answer_there_may_be_more_to_say() {
    let mut talk = logged_in();
    let ping = |length| header(op::PING | IMMEDIATE, FINAL, length, &[(16, NO_TAG), (20, 3)]);
    assert!(!talk.has_more_to_say());
    assert!(talk.goes(ping(0)) && talk.goes(ping(4)) && talk.goes(ping(0)));
    assert!(talk.goes(header(op::PING | IMMEDIATE, FINAL, 0, &[(16, 3)])));
    assert!(talk.has_more_to_say() && talk.has_more_to_say() && !talk.has_more_to_say());
}

/// A persistent reservation's action and kind, by a tag: what tgtd gets.
fn reserves(talk: &mut Talk, (action, of): (u8, u8), tag: u32, others: Load) -> u8 {
    let mut head = command(talk, WRITE, tag, 24, 24);
    (head[9], head[32], head[33], head[34]) = (1, 0x5f, action, of);
    assert!(talk.says(&mut head, others, Instant::now));
    head[33]
}

fn done(status: u8, tag: u32) -> [u8; HEAD] {
    let mut head = answer(op::DONE, FINAL, tag);
    head[3] = status;
    head
}

#[test]
fn nobody_takes_a_reservation_while_all_may_have_one() {
    let none = Load::default();
    let mut talk = logged_in();
    assert_eq!(reserves(&mut talk, (PREEMPT, 5), 1, none), PREEMPT);
    assert_eq!(reserves(&mut talk, (PREEMPT, 7), 2, none), 0x1f);
    assert_eq!(reserves(&mut talk, (RESERVE, 8), 3, none), RESERVE);
    let held = talk.load();
    assert_eq!((held.of_all, held.lasts().of_all, held.lasts().unanswered), (1, 1, 0));
    assert_eq!(reserves(&mut logged_in(), (PREEMPT, 5), 1, held), 0x1f, "of another connection");
    (1..4).for_each(|tag| talk.heard(&done(0, tag)));
    let release = |talk: &mut Talk, status, tag| {
        reserves(talk, (RELEASE, 8), 4, none);
        talk.heard(&done(status, tag));
        talk.heard(&done(0, 4));
        talk.load().of_all
    };
    assert_eq!((release(&mut talk, 0x18, 4), release(&mut talk, 0, 5)), (1, 1), "not so, or another's answer");
    assert_eq!(reserves(&mut talk, (RELEASE, 8), 6, none), RELEASE);
    assert!(talk.goes(header(op::PING | IMMEDIATE, FINAL, 0, &[(16, 9)])));
    talk.heard(&done(0, 6));
    assert_eq!(talk.load().of_all, 1, "not alone");
    talk.heard(&answer(op::PINGED, FINAL, 9));
    assert_eq!(release(&mut talk, 0, 4), 0);
    assert_eq!(reserves(&mut talk, (PREEMPT, 5), 7, none), PREEMPT);
}

#[test]
fn one_at_a_time_waits_for_commands_to_be_given_up() {
    let manage = |talk: &mut Talk, what: u8, tag: u32, others: Load| {
        let mut head = header(op::MANAGE | IMMEDIATE, FINAL | what, 0, &[(16, tag)]);
        assert!(talk.says(&mut head, others, Instant::now));
        head[1] & !FINAL
    };
    let (none, mut talk) = (Load::default(), logged_in());
    assert_eq!(manage(&mut talk, 1, 1, none), 1);
    let waits = talk.load();
    assert_eq!(
        (manage(&mut talk, 1, 2, none), manage(&mut talk, 5, 1, none), manage(&mut talk, 6, 1, none)),
        (8, 8, 6)
    );
    let mut refused = answer(op::MANAGED, FINAL, 1);
    refused[2] = 5;
    talk.heard(&refused);
    assert_eq!(manage(&mut talk, 2, 3, none), 8, "that was none of its answer");
    assert_eq!((manage(&mut logged_in(), 1, 1, waits), manage(&mut logged_in(), 5, 1, waits)), (1, 8), "elsewhere");
    talk.heard(&answer(op::MANAGED, FINAL, 1));
    assert_eq!(manage(&mut talk, 5, 4, none), 5);
    assert_eq!(manage(&mut logged_in(), 1, 1, talk.load()), 8, "one that reaches all");
    assert_eq!(none.and(talk.load()).without(talk.load()), none);
}
