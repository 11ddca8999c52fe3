//! Who is let in, by the rules alone.

use std::cell::Cell;

use super::*;

fn of(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn host() -> [(IpAddr, IpAddr); 4] {
    [
        ("127.0.0.1", "255.0.0.0"),
        ("10.100.0.1", "255.255.255.0"),
        ("10.200.0.1", "255.255.0.0"),
        ("fd97::1", "ffff:ffff:ffff:ffff::"),
    ]
    .map(|(a, m)| (of(a), of(m)))
}

#[test]
fn a_peer_is_near_in_the_subnet_of_the_address_it_came_to_and_nowhere_else() {
    let near = |local, peer| near(of(local), of(peer), &host());
    assert!(near("10.100.0.1", "10.100.0.50") && near("10.200.0.1", "10.200.77.1"));
    assert!(near("10.100.0.1", "10.100.0.1"), "the engine itself");
    assert!(near("127.97.3.4", "127.0.0.1") && near("127.97.3.4", "127.97.3.4") && near("::1", "::1"));
    assert!(!near("127.97.3.4", "10.100.0.50") && near("fd97::1", "fd97::7"));
    assert!(near("::ffff:10.100.0.1", "::ffff:10.100.0.9"));
    assert!(!near("10.100.0.1", "10.200.0.50"), "of another network");
    assert!(!near("10.100.0.1", "10.100.1.50") && !near("10.100.0.1", "127.0.0.1"));
    assert!(!near("10.100.0.9", "10.100.0.50"), "an address that is gone");
    assert!(!near("fd97::1", "fd98::7") && !near("fd97::1", "10.100.0.50"));
}

#[test]
fn addresses_are_listed_once_a_moment_and_again_for_one_that_is_new() {
    let (mut known, start, listed) = (Addresses::default(), Instant::now(), Cell::new(0));
    let mut ask = |local: &str, after: u64, all: Option<&[(IpAddr, IpAddr)]>| {
        known.near((of(local), of("10.100.0.50")), start + Duration::from_millis(after), || {
            listed.set(listed.get() + 1);
            all.map(<[_]>::to_vec)
        })
    };
    let all = host();
    for ms in 0..900 {
        assert_eq!(ask("10.100.0.1", ms, Some(&all)), Some(true));
        assert_eq!(ask("10.200.0.1", ms, Some(&all)), Some(false), "a flood of them lists nothing");
    }
    assert_eq!(listed.get(), 1);
    assert_eq!(ask("10.100.0.1", 1_000, Some(&all[..1])), Some(false), "the address is gone");
    assert_eq!((ask("10.100.0.1", 1_001, Some(&all)), listed.get()), (Some(true), 3), "and is back at once");
    assert_eq!(ask("10.100.0.1", 2_100, None), None, "cannot be listed");
    assert_eq!(ask("127.0.0.1", 2_200, None), Some(false), "needs no list");
}

#[test]
fn one_machine_has_a_few_connections_and_all_have_no_more_than_fit() {
    let (mut crowd, now) = (Crowd::default(), Instant::now());
    let peer = |last: u8, port: u16| SocketAddr::new(IpAddr::from([10, 0, 0, last]), port);
    for n in 0..64 {
        assert!(crowd.admits((n, peer(1, 1_000 + n as u16)), 100, now, |_, _| true));
    }
    assert!(!crowd.admits((64, peer(1, 2_000)), 100, now, |_, _| true), "one machine's are bounded");
    assert!(crowd.admits((64, peer(2, 2_000)), 100, now, |_, _| true), "another one's are its own");
    assert!(crowd.admits((65, peer(1, 2_001)), 100, now, |fd, _| fd != 7), "one of them has ended");
    assert!(!crowd.admits((66, peer(1, 2_002)), 100, now, |_, _| true));
    assert!(crowd.admits((9, peer(1, 2_003)), 100, now, |_, _| true), "its descriptor went to this one");
    for n in 70..105 {
        crowd.admits((n, peer(3, n as u16)), 100, now, |_, _| true);
    }
    assert_eq!(crowd.count(), 100);
    assert!(!crowd.admits((110, peer(4, 1)), 100, now, |_, _| true), "all are bounded");
    assert!(!crowd.admits((110, peer(4, 1)), 100, now, |_, _| false), "looked at once a moment");
    assert!(crowd.admits((110, peer(4, 1)), 100, now + MOMENT, |_, _| false));
    assert_eq!(crowd.count(), 1, "what had ended is forgotten");
}

#[test]
fn refusals_are_told_once_a_moment_and_only_when_there_are_new_ones() {
    let (mut told, now) = (Told::default(), Instant::now());
    assert_eq!(told.text(now), None);
    told.add(Refused::Elsewhere);
    assert_eq!(told.text(now).unwrap(), "elsewhere 1\nmany 0\nblind 0\nbuffers 0\n");
    told.add(Refused::TooMany);
    assert_eq!(told.text(now), None, "a flood of them writes nothing");
    assert!(told.text(now + MOMENT).is_some_and(|t| t.contains("many 1")));
    assert_eq!(told.text(now + 9 * MOMENT), None, "nothing new");
}

#[test]
fn buffers_are_bounded_each_and_together() {
    assert!(has_room(1 << 20, || 0, 8 << 30) && has_room(BUFFER, || 1 << 30, 8 << 30));
    assert!(!has_room(BUFFER + 1, || 0, 8 << 30), "4 GiB may be asked for");
    assert!(!has_room(BUFFER, || 2 << 30, 8 << 30), "a quarter of the host");
    assert!(has_room(BUFFER, || 150 << 20, 1 << 29) && !has_room(BUFFER, || 200 << 20, 1 << 29));
}
