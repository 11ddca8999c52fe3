//! A client of another release: typed requests are refused by name, raw calls work for ever.

use bmi::model::{Fault, Kind};
use bmi::protocol::{ClientFrame, Hello, PROTOCOL, ServerFrame};

use super::client::{Client, ask, call};
use super::fake::house;

fn of_protocol(path: &std::path::Path, protocol: u32) -> Client {
    let mut client = Client::silent(path);
    client.send(&ClientFrame::Hello(Hello { protocol, release: "9.8.7\n".into(), ..Hello::ours() }));
    assert_eq!(client.next(), Some(ServerFrame::Hello(Hello::ours())));
    client
}

fn refused(client: &mut Client, id: u64) -> Fault {
    client.send(&ask(id, "x"));
    let (items, end) = client.answer(id);
    assert!(items.is_empty());
    end.expect_err("another protocol")
}

#[test]
fn a_typed_request_of_another_protocol_is_refused_naming_both_and_what_to_restart() {
    let house = house();
    let fault = refused(&mut of_protocol(&house.path, PROTOCOL + 6), 5);
    assert_eq!(fault.kind, Kind::Protocol);
    for part in [format!("protocol {PROTOCOL}"), format!("protocol {}", PROTOCOL + 6), "9.8.7".into()] {
        assert!(fault.why.contains(&part), "{part}: {fault}");
    }
    assert!(fault.fix.contains("restart bmid"), "{fault}");
    let fault = refused(&mut of_protocol(&house.path, PROTOCOL - 1), 5);
    assert!(fault.fix.contains("bmictl"), "{fault}");
}

#[test]
fn frames_nobody_knows_yet_are_refused_too_and_the_connection_lives() {
    let house = house();
    let mut client = of_protocol(&house.path, PROTOCOL + 1);
    // Kind 77 of a later release, for its request 3.
    client.bytes(b"\0\0\0\x10\x4d\0\0\0\x03\0\0\0\0\0\0\0what");
    assert_eq!(client.answer(3).1.map_err(|f| f.kind), Err(Kind::Protocol));
    client.bytes(b"\0\0\0\x04\x4d\0\0\0");
    assert_eq!(client.answer(0).1.map_err(|f| f.kind), Err(Kind::Protocol));
    client.send(&call(4, "datastore.rm", r#"{"datastore":"old"}"#));
    assert_eq!(client.called(4), (vec![r#"{"id":null,"name":"old"}"#.to_owned()], None));
}
