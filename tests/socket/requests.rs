//! Many requests on one connection, their numbers, their ends, raw calls.

use std::sync::atomic::Ordering;

use bmi::model::{Id, Kind};
use bmi::protocol::{Call, ClientFrame, Envelope, ServerFrame};

use super::client::{Client, ask, ask_with, call, fault};
use super::fake::{counted, house};

#[test]
fn requests_run_side_by_side_and_answers_are_told_apart() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "hold"));
    for id in 2..40 {
        client.send(&ask(id, &format!("n{id}")));
    }
    let mut texts = Vec::new();
    let mut ended = Vec::new();
    while ended.len() < 38 {
        match client.next() {
            Some(ServerFrame::Item { id, item }) => {
                assert_eq!(super::client::text(&item), format!("n{id}"));
                texts.push(super::client::text(&item).to_owned());
            }
            Some(ServerFrame::End { id, end }) => {
                assert!(end.is_ok());
                ended.push(id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(counted(texts).values().all(|n| *n == 1));
    assert!(!ended.contains(&1), "the first is still open");
    house.seen.release.cancel();
    assert!(client.answer(1).1.is_ok());
}

#[test]
fn the_callers_identity_is_the_sockets() {
    let house = house();
    Client::new(&house.path).get(1, "x").1.expect("done");
    let callers = house.seen.callers.lock().expect("lock").clone();
    assert_eq!(callers.len(), 1);
    assert_eq!((callers[0].uid, callers[0].admin), (Some(nix::unistd::getuid().as_raw()), true));
}

#[test]
fn a_number_is_free_again_after_its_end() {
    let house = house();
    let mut client = Client::new(&house.path);
    for n in 0..50 {
        assert_eq!(client.get(9, &format!("n{n}")).0, [format!("n{n}")]);
    }
}

#[test]
fn an_open_number_used_again_ends_the_connection() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(4, "hold"));
    client.send(&ask(4, "x"));
    let fault = client.closed();
    assert_eq!(fault.kind, Kind::Protocol);
    assert!(fault.why.contains('4'), "{fault}");
    assert_eq!(house.seen.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn number_zero_is_nobodys() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(0, "x"));
    assert_eq!(client.closed().kind, Kind::Protocol);
}

#[test]
fn cancel_ends_the_request_it_names_and_no_other() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "hold"));
    client.send(&ask(2, "hold"));
    client.send(&ClientFrame::Cancel(77));
    client.send(&ClientFrame::Cancel(2));
    assert_eq!(client.answer(2).1.map_err(|f| f.kind), Err(Kind::Cancelled));
    assert_eq!(client.get(3, "fine").0, ["fine"]);
    house.seen.release.cancel();
    assert!(client.answer(1).1.is_ok());
}

#[test]
fn progress_and_gaps_come_through() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&ask(1, "progress"));
    assert!(matches!(client.next(), Some(ServerFrame::Progress { id: 1, progress }) if progress.done == 1));
    assert!(matches!(client.next(), Some(ServerFrame::Gap { id: 1, missed: 3 })));
    assert!(client.answer(1).1.is_ok());
}

#[test]
fn an_item_larger_than_a_frame_ends_its_request_with_an_error() {
    let house = house();
    let mut client = Client::new(&house.path);
    assert_eq!(client.get(1, "large").1.map_err(|f| f.kind), Err(Kind::Limit));
    client.send(&call(2, "datastore.rm", r#"{"datastore":"large"}"#));
    assert_eq!(client.called(2).1.map(|f| f.kind), Some(Kind::Limit));
    assert_eq!(client.get(3, "fine").0, ["fine"]);
}

#[test]
fn an_answer_that_breaks_off_still_has_an_end() {
    let house = house();
    let mut client = Client::new(&house.path);
    assert_eq!(client.get(1, "break-off").1.map_err(|f| f.kind), Err(Kind::Internal));
}

#[test]
fn a_raw_call_answers_in_json_and_errors_in_json() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send(&call(1, "datastore.rm", r#"{"datastore":"refuse"}"#));
    match client.next() {
        Some(ServerFrame::CallEnd { id: 1, error: Some(error) }) => {
            let json: serde_json::Value = serde_json::from_str(&error).expect("JSON");
            assert_eq!(json["code"], 4);
            assert_eq!(json["data"]["kind"], "conflict");
            assert_eq!(json["message"], "cannot do it: because: underneath; do not");
            assert_eq!(fault(&error).fix, "do not");
        }
        other => panic!("{other:?}"),
    }
    client.send(&call(2, "progress", "{}"));
    assert_eq!(client.called(2).1.map(|f| f.kind), Some(Kind::NotFound));
    client.send(&call(3, "datastore.rm", r#"{"datastore":"x","context":{"is_admin":true}}"#));
    assert_eq!(client.called(3).1.map(|f| f.kind), Some(Kind::Invalid));
    client.send(&call(4, "datastore.rm", r#"{"datastore":"progress"}"#));
    assert_eq!(client.called(4), (vec![], None));
}

#[test]
fn the_operation_id_of_a_raw_call_is_handed_on() {
    let house = house();
    let mut client = Client::new(&house.path);
    let op_id = Some(Id([3; 16]));
    let envelope = Envelope { op_id, ..Envelope::default() };
    client.send(&ask_with(1, "x", envelope));
    assert_eq!(client.answer(1).1.map(|e| e.op_id), Ok(op_id));
    let params = r#"{"datastore":"x"}"#.to_owned();
    client.send(&ClientFrame::Call(Call { id: 2, method: "datastore.rm".into(), params, op_id }));
    assert_eq!(client.called(2).1, None);
}
