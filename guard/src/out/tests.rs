//! What is kept, and what tgtd hears, without a kernel.

use super::*;

const IN: u32 = libc::EPOLLIN as u32;
const GONE: u32 = libc::EPOLLHUP as u32;
const MOST: usize = 1_000;

/// A connection on which tgtd waits for anything, and some bytes that there was no room for.
fn kept(bytes: &[u8]) -> Lines {
    let mut lines = Lines::default();
    lines.begun(5);
    assert_eq!(lines.waits(5, IN | OUT, 99), IN | OUT);
    assert_eq!(lines.keeps(5), Some(false));
    assert!(lines.keep(5, bytes, MOST));
    assert_eq!(lines.keeps(5), Some(true));
    lines
}

#[test]
fn what_is_kept_is_sent_in_its_order_and_tgtd_hears_of_room_after_it() {
    let mut lines = kept(b"abc");
    assert!(lines.keep(5, b"def", MOST));
    assert_eq!(lines.event(OUT, 99, |_, _| Sent::None), (0, None));
    let mut sent = Vec::new();
    let mut room = 4;
    let heard = lines.event(IN | OUT, 99, |fd, bytes| {
        assert_eq!(fd, 5);
        let n = bytes.len().min(std::mem::take(&mut room));
        sent.extend_from_slice(&bytes[..n]);
        if n == 0 { Sent::None } else { Sent::Some(n) }
    });
    assert_eq!((heard, sent.as_slice(), lines.kept), ((IN, None), &b"abcd"[..], 2));
    let heard = lines.event(OUT, 99, |_, bytes| {
        sent.extend_from_slice(bytes);
        Sent::Some(bytes.len())
    });
    assert_eq!((heard, sent.as_slice(), lines.kept), ((OUT, Some((5, IN | OUT))), &b"abcdef"[..], 0));
    assert_eq!(lines.event(OUT, 99, |_, _| panic!("nothing is kept")), (OUT, None));
    assert!(lines.keep(5, b"g", MOST));
    assert_eq!(lines.event(OUT, 99, |_, bytes| Sent::Some(bytes.len())).0, OUT);
}

#[test]
fn room_is_waited_for_while_something_is_kept_whatever_tgtd_waits_for() {
    let mut lines = kept(b"abc");
    assert_eq!(lines.waits(5, IN, 99), IN | OUT);
    let heard = lines.event(IN | OUT, 99, |_, _| Sent::Some(3));
    assert_eq!(heard, (IN, Some((5, IN))), "tgtd has no more to send");
    assert_eq!(lines.waits(5, IN, 99), IN);
    assert_eq!(lines.waits(8, IN, 77), IN, "no machine's");
    assert_eq!(lines.event(IN | OUT, 77, |_, _| panic!()), (IN | OUT, None));
    assert_eq!(lines.keeps(8), None);
}

#[test]
fn a_machine_that_is_gone_is_heard_of_and_nothing_is_kept_for_it() {
    let mut lines = kept(b"abc");
    assert_eq!(lines.event(OUT | GONE, 99, |_, _| Sent::Failed), (OUT | GONE, Some((5, IN | OUT))));
    assert_eq!((lines.kept, lines.keeps(5)), (0, Some(false)));
    let mut lines = kept(b"abc");
    assert_eq!(lines.ended(5).map(|l| l.left()), Some(3));
    assert_eq!((lines.kept, lines.by.len(), lines.keeps(5)), (0, 0, None));
    let mut lines = kept(b"abc");
    lines.begun(5);
    assert_eq!((lines.kept, lines.by.len(), lines.keeps(5)), (0, 0, Some(false)), "another of that number");
}

#[test]
fn no_more_is_kept_than_a_measure_of_all_connections() {
    let mut lines = kept(&[0; 600]);
    lines.begun(6);
    assert!(!lines.keep(6, &[0; 401], MOST) && lines.keep(6, &[0; 400], MOST) && !lines.keep(5, &[0], MOST));
    lines.ended(5);
    assert!(lines.keep(6, &[0; 600], MOST));
    assert!(!lines.keep(7, &[0], MOST), "nobody's");
    assert_eq!((most(0), most(64 << 30)), (KEPT, 4 << 30));
}
