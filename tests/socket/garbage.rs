//! Bytes that are no frames, frames that never end, clients that say nothing.

use std::time::Duration;

use bmi::model::Kind;
use bmi::protocol::{ClientFrame, Hello, MAX_FRAME, ServerFrame};
use bmid::listen::Limits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::client::{Client, ask, call, framed};
use super::fake::{house, house_with};

/// Impatient in the middle of a frame.
fn impatient() -> Limits {
    Limits { frame: Duration::from_millis(200), ..Limits::default() }
}

/// The daemon's hello comes even to those who speak something else.
fn turned_away(mut client: Client) -> bmi::model::Fault {
    assert!(matches!(client.next(), Some(ServerFrame::Hello(_))));
    client.closed()
}

#[test]
fn another_protocol_is_told_so_and_turned_away() {
    let house = house();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x01\xff", b"\0\0\0\0", &[0xff; 64]] {
        let mut client = Client::silent(&house.path);
        client.bytes(bytes);
        assert_eq!(turned_away(client).kind, Kind::Protocol);
    }
    let mut wrong = Client::silent(&house.path);
    wrong.send(&ClientFrame::Hello(Hello { magic: *b"ssh\n", ..Hello::ours() }));
    assert_eq!(turned_away(wrong).kind, Kind::Protocol);
    let mut early = Client::silent(&house.path);
    early.send(&ask(1, "x"));
    assert!(turned_away(early).why.contains("no hello"));
    assert_eq!(Client::new(&house.path).get(1, "fine").0, ["fine"]);
}

#[test]
fn a_frame_over_the_limit_ends_the_connection_before_it_is_read() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.bytes(&u32::try_from(MAX_FRAME + 1).expect("fits").to_be_bytes());
    let fault = client.closed();
    assert_eq!(fault.kind, Kind::Protocol);
    assert!(fault.why.contains("1048576"), "{fault}");
}

#[test]
fn a_frame_of_just_the_limit_is_read() {
    let house = house();
    let mut client = Client::new(&house.path);
    let overhead = framed(&call(1, "datastore.rm", "")).len() - 4;
    let mut params = r#"{"datastore":"big"}"#.to_owned();
    params.push_str(&" ".repeat(MAX_FRAME - overhead - params.len()));
    client.send(&call(1, "datastore.rm", &params));
    assert_eq!(client.called(1), (vec![r#"{"id":null,"name":"big"}"#.to_owned()], None));
}

#[test]
fn garbage_in_a_frame_ends_the_connection_and_no_other() {
    let house = house();
    let mut other = Client::new(&house.path);
    let mut client = Client::new(&house.path);
    client.bytes(b"\0\0\0\x08garbage!");
    assert_eq!(client.closed().kind, Kind::Protocol);
    let mut longer = Client::new(&house.path);
    let mut bytes = framed(&ClientFrame::Cancel(1));
    bytes.push(0);
    bytes[3] += 1;
    longer.bytes(&bytes);
    assert_eq!(longer.closed().kind, Kind::Protocol);
    assert_eq!(other.get(1, "fine").0, ["fine"]);
}

#[test]
fn half_a_frame_and_then_silence_is_closed() {
    let house = house_with(impatient());
    for half in [1, 4, 9] {
        let mut client = Client::new(&house.path);
        client.bytes(&framed(&ask(1, "x"))[..half]);
        let fault = client.closed();
        assert_eq!(fault.kind, Kind::Timeout, "{half} bytes: {fault}");
    }
}

#[test]
fn half_a_frame_and_then_the_end_is_closed() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.bytes(&framed(&ask(1, "x"))[..9]);
    client.stream.shutdown(std::net::Shutdown::Write).expect("shut");
    assert_eq!(client.closed().kind, Kind::Protocol);
}

#[test]
fn silence_before_the_hello_is_closed() {
    let house = house_with(Limits { hello: Duration::from_millis(200), ..Limits::default() });
    assert!(turned_away(Client::silent(&house.path)).why.contains("no hello"));
}

#[test]
fn silence_after_the_hello_is_not() {
    let house = house_with(Limits { hello: Duration::from_secs(1), ..impatient() });
    let mut client = Client::new(&house.path);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(client.get(1, "fine").0, ["fine"]);
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let house = house();
    let mut client = Client::new(&house.path);
    for byte in framed(&ask(7, "slowly")) {
        client.bytes(&[byte]);
    }
    assert_eq!(client.answer(7).0, ["slowly"]);
}

#[test]
fn a_second_hello_ends_the_connection() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ClientFrame::Hello(Hello::ours()));
    assert_eq!(client.closed().kind, Kind::Protocol);
}

#[test]
fn any_bytes_leave_the_daemon_serving() {
    let house = house_with(impatient());
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let frames = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5);
    let run = runner.run(&(any::<bool>(), frames), |(greeted, frames)| {
        let mut client = if greeted { Client::new(&house.path) } else { Client::silent(&house.path) };
        for body in frames {
            client.bytes(&u32::try_from(body.len()).expect("short").to_be_bytes());
            client.bytes(&body);
        }
        drop(client);
        Ok(())
    });
    run.expect("no case fails");
    assert_eq!(Client::new(&house.path).get(1, "fine").0, ["fine"]);
}
