//! Many connections, slow readers, clients that die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bmi::model::Kind;
use bmi::protocol::{ClientFrame, Envelope, ServerFrame};
use bmid::listen::Limits;

use super::client::{Client, ask, ask_with};
use super::fake::{house, house_with};

fn room_for(descriptors: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("asked");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(descriptors.max(65_536)), hard).expect("set");
    assert!(hard >= descriptors, "this test needs {descriptors} descriptors");
}

#[test]
fn a_thousand_idle_connections_leave_the_next_one_served() {
    room_for(8192);
    let house = house();
    let mut idle: Vec<Client> = (0..1000).map(|_| Client::new(&house.path)).collect();
    assert_eq!(Client::new(&house.path).get(1, "fine").0, ["fine"]);
    assert_eq!(idle[0].get(1, "first").0, ["first"]);
    assert_eq!(idle[999].get(1, "last").0, ["last"]);
}

#[test]
fn a_connection_too_many_is_told_so() {
    let house = house_with(Limits { connections: 3, per_user: 2, ..Limits::default() });
    let (one, _two) = (Client::new(&house.path), Client::new(&house.path));
    let mut third = Client::silent(&house.path);
    assert!(matches!(third.next(), Some(ServerFrame::Hello(_))));
    let fault = third.closed();
    assert_eq!(fault.kind, Kind::Limit);
    assert!(fault.why.contains("2 connections"), "{fault}");
    drop(one);
    for _ in 0..200 {
        let mut again = Client::silent(&house.path);
        again.bytes(&super::client::framed(&ClientFrame::Hello(bmi::protocol::Hello::ours())));
        again.bytes(&super::client::framed(&ask(1, "fine")));
        assert!(matches!(again.next(), Some(ServerFrame::Hello(_))));
        match again.next() {
            Some(ServerFrame::Item { .. }) => return,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("a place that was left is never given again");
}

#[test]
fn a_request_too_many_waits_and_is_not_lost() {
    let house = house_with(Limits { in_flight: 4, ..Limits::default() });
    let mut client = Client::new(&house.path);
    for id in 1..=10 {
        client.send(&ask(id, "hold"));
    }
    house.wait("four are taken in", |s| s.begun.load(Ordering::SeqCst) == 4);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(house.seen.begun.load(Ordering::SeqCst), 4);
    house.seen.release.cancel();
    let mut ended: Vec<u64> = (0..10)
        .map(|_| match client.next() {
            Some(ServerFrame::End { id, end: Ok(_) }) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, (1..=10).collect::<Vec<u64>>());
}

#[test]
fn a_full_connection_whose_client_left_is_noticed() {
    let house = house_with(Limits { in_flight: 2, ..Limits::default() });
    let mut client = Client::new(&house.path);
    for id in 1..=3 {
        client.send(&ask_with(id, "hold", Envelope { cancel_on_close: true, ..Envelope::default() }));
    }
    house.wait("two are taken in", |s| s.begun.load(Ordering::SeqCst) == 2);
    drop(client);
    house.wait("both are cancelled", |s| s.cancelled.load(Ordering::SeqCst) == 2);
}

#[test]
fn a_client_that_leaves_ends_only_what_asked_for_it() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "hold"));
    client.send(&ask_with(2, "hold", Envelope { cancel_on_close: true, ..Envelope::default() }));
    house.wait("both are taken in", |s| s.begun.load(Ordering::SeqCst) == 2);
    drop(client);
    house.wait("the one that asked is cancelled", |s| s.cancelled.load(Ordering::SeqCst) == 1);
    assert_eq!(house.seen.ended.load(Ordering::SeqCst), 0);
    house.seen.release.cancel();
    house.wait("the other comes to its end", |s| s.ended.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_client_killed_in_the_middle_of_an_answer_ends_the_answer() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "flood"));
    assert!(matches!(client.next(), Some(ServerFrame::Item { id: 1, .. })));
    drop(client);
    house.wait("the service learns that nobody listens", |s| s.ended.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_slow_reader_is_held_up_and_holds_nobody_else_up() {
    let house = house();
    let mut slow = Client::new(&house.path);
    slow.send(&ask(1, "flood"));
    let mut before = usize::MAX;
    // It comes to a standstill by itself: nothing is kept for a client without bound.
    for _ in 0..100 {
        let now = house.seen.items.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(before, house.seen.items.load(Ordering::SeqCst), "still growing");
    assert!(before < 1000, "{before} items of 10 kB are kept for one client");
    assert_eq!(Client::new(&house.path).get(1, "fine").0, ["fine"]);
    // It still gets everything, and can end it.
    slow.send(&ClientFrame::Cancel(1));
    let (items, end) = slow.answer(1);
    assert!(items.len() >= before);
    assert_eq!(end.map_err(|f| f.kind), Err(Kind::Cancelled));
}

#[test]
fn a_reader_that_stopped_loses_its_connection() {
    let house = house_with(Limits { write: Duration::from_millis(300), ..Limits::default() });
    let mut stopped = Client::new(&house.path);
    stopped.send(&ask_with(1, "flood", Envelope { cancel_on_close: true, ..Envelope::default() }));
    house
        .wait("the connection is closed", |s| s.cancelled.load(Ordering::SeqCst) + s.ended.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_stop_lets_open_requests_end_and_takes_no_new_ones() {
    let mut house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "hold"));
    house.wait("it is taken in", |s| s.begun.load(Ordering::SeqCst) == 1);
    house.stop.cancel();
    client.send(&ask(2, "late"));
    house.seen.release.cancel();
    assert!(client.answer(1).1.is_ok());
    assert_eq!(client.next(), None);
    house.close();
    assert_eq!(house.seen.begun.load(Ordering::SeqCst), 1);
    assert!(!house.path.exists(), "the socket goes with the daemon");
}
