//! Raw calls and the JSON-RPC stream.

use std::io::Write;
use std::process::Stdio;

use bmi::protocol::{Call, ClientFrame, Hello, PROTOCOL, ServerFrame};
use serde_json::{Value, json};

use super::fake::{Fake, OP, Peer, Ran, bmictl, last_json};

fn call(peer: &mut Peer) -> Call {
    match peer.next() {
        Some((ClientFrame::Call(call), _)) => call,
        other => panic!("not a call: {other:?}"),
    }
}

fn answer(peer: &mut Peer, id: u64, items: &[&str], error: Option<&str>) {
    for text in items {
        peer.send(&ServerFrame::Json { id, text: (*text).to_owned() });
    }
    peer.send(&ServerFrame::CallEnd { id, error: error.map(str::to_owned) });
}

#[test]
fn a_call_sends_its_parameters_as_they_are_and_prints_the_bare_answer() {
    for (method, items, expected) in [
        ("node.show", &[r#"{"name":"web1","a":1}"#][..], json!({"name": "web1", "a": 1})),
        ("node.ls", &[r#"{"name":"web1"}"#], json!([{"name": "web1"}])),
        ("node.ls", &[], json!([])),
        ("subject_get_all", &["1", "2"], json!([1, 2])),
        ("subject_get", &["{}"], json!({})),
    ] {
        let params = if method == "node.show" { r#"{"node": "web1"}"# } else { "{}" };
        let fake = Fake::new(move |mut peer| {
            peer.hello();
            let asked = call(&mut peer);
            assert_eq!((asked.method.as_str(), asked.params.as_str(), asked.op_id), (method, params, Some(OP)));
            answer(&mut peer, asked.id, items, None);
        });
        let id = OP.to_string();
        let ran = fake.run(&["call", method, params, "--op-id", &id]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), expected, "{method}");
    }
}

#[test]
fn what_was_tried_is_told_once() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        let asked = call(&mut peer);
        let error = json!({"code": 3, "message": "cannot show node web1: there is no node web1", "data": {}});
        answer(&mut peer, asked.id, &[], Some(&error.to_string()));
    });
    let ran = fake.run(&["call", "node.show", r#"{"node":"web1"}"#]);
    assert_eq!(ran.err, "bmictl: cannot show node web1: there is no node web1\n");
}

#[test]
fn a_failed_call_ends_with_the_exit_code_of_its_class() {
    for (class, code) in [("not_found", 3), ("quota", 6), ("unheard_of", 1)] {
        let fake = Fake::new(move |mut peer| {
            peer.hello();
            let asked = call(&mut peer);
            let error = json!({"code": 404, "message": "no such node", "data": {"kind": "x", "class": class}});
            answer(&mut peer, asked.id, &[], Some(&error.to_string()));
        });
        let ran = fake.run(&["call", "node.show", r#"{"node":"web1"}"#, "-f", "json"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""));
        assert!(ran.err.starts_with("bmictl: cannot call node.show: no such node\n"), "{}", ran.err);
        assert_eq!(last_json(&ran.err)["code"], 404);
    }
}

#[test]
fn a_call_reaches_a_daemon_of_another_protocol() {
    let fake = Fake::new(|mut peer| {
        peer.next().unwrap();
        peer.send(&ServerFrame::Hello(Hello { protocol: PROTOCOL + 1, ..Hello::ours() }));
        let asked = call(&mut peer);
        answer(&mut peer, asked.id, &["{}"], None);
    });
    assert_eq!(fake.run(&["call", "status"]).out, "{}\n");
}

#[test]
fn parameters_come_from_standard_input_too_and_must_be_an_object() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        let asked = call(&mut peer);
        assert_eq!(serde_json::from_str::<Value>(&asked.params).unwrap(), json!({"node": "web1"}));
        answer(&mut peer, asked.id, &["{}"], None);
    });
    let mut child = fake.command(&["call", "node.show", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\n  \"node\": \"web1\"\n}\n").unwrap();
    assert_eq!(fake.finish(child).code, Some(0));
    for bad in ["[]", "1", "{", ""] {
        let ran = Ran::of(bmictl(&["call", "node.show", bad, "--socket", "/nonexistent"]).output().unwrap());
        assert_eq!(ran.code, Some(2), "{bad}");
    }
    let ran = Ran::of(bmictl(&["call", "node.show", "{}", "--check", "--socket", "/nonexistent"]).output().unwrap());
    assert_eq!(ran.code, Some(2), "an envelope's option is not quietly forgotten");
}

fn stream(fake: Fake, input: &[u8]) -> (Ran, Vec<Value>) {
    let mut child = fake.command(&["call", "--stream"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ran = fake.finish(child);
    writer.join().unwrap().unwrap();
    let answers = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    (ran, answers)
}

#[test]
fn a_stream_answers_each_line_in_order_over_one_connection() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        for expected in ["node.show", "node.ls", "tag.create"] {
            let asked = call(&mut peer);
            assert_eq!(asked.method, expected);
            assert_eq!(asked.op_id.is_some(), expected == "tag.create");
            answer(&mut peer, asked.id, &[r#"{"name":"web1"}"#], None);
        }
        assert!(peer.next().is_none());
    });
    let op = OP.to_string();
    let input = format!(
        "{}\n\n{}\n{}",
        json!({"jsonrpc": "2.0", "id": 1, "method": "node.show", "params": {"node": "web1"}}),
        json!({"jsonrpc": "2.0", "id": "two", "method": "node.ls"}),
        json!({"jsonrpc": "2.0", "id": null, "method": "tag.create", "params": {"node": "web1", "tag": "t"}, "op_id": op}),
    );
    let (ran, answers) = stream(fake, input.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let one = json!({"name": "web1"});
    assert_eq!(
        answers,
        [
            json!({"jsonrpc": "2.0", "id": 1, "result": one}),
            json!({"jsonrpc": "2.0", "id": "two", "result": [one]}),
            json!({"jsonrpc": "2.0", "id": null, "result": one}),
        ]
    );
}

#[test]
fn a_stream_goes_on_after_wrong_lines_and_refused_requests() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        let first = call(&mut peer);
        let error = r#"{"code":3,"message":"gone","data":{"kind":"not_found","class":"not_found"}}"#;
        answer(&mut peer, first.id, &[], Some(error));
        let unknown = call(&mut peer);
        assert_eq!(unknown.method, "node.explode");
        answer(&mut peer, unknown.id, &[], Some(error));
        let last = call(&mut peer);
        answer(&mut peer, last.id, &["{}"], None);
    });
    let long = "x".repeat((1 << 20) + 1);
    let show =
        |id: u64, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"node": "web1"}});
    let input = format!(
        "nonsense\n[]\n{long}\n{}\n{}\n{}\n",
        show(4, "node.show"),
        show(5, "node.explode"),
        show(6, "node.show")
    );
    let (ran, answers) = stream(fake, input.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let codes: Vec<&Value> = answers.iter().map(|a| &a["error"]["code"]).collect();
    assert_eq!(codes, [&json!(-32700), &json!(-32600), &json!(-32600), &json!(3), &json!(-32601), &Value::Null]);
    assert_eq!(answers[3]["error"]["data"]["kind"], "not_found");
    assert_eq!(answers[4]["error"]["data"]["kind"], "not_found");
    assert_eq!(answers[5], json!({"jsonrpc": "2.0", "id": 6, "result": {}}));
}

#[test]
fn a_notification_is_carried_out_and_not_answered() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        let first = call(&mut peer);
        answer(&mut peer, first.id, &["{}"], None);
        let second = call(&mut peer);
        assert_ne!(first.id, second.id);
        answer(&mut peer, second.id, &["{}"], None);
    });
    let input = format!(
        "{}\n{}\n",
        json!({"jsonrpc": "2.0", "method": "status"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "status"})
    );
    let (_, answers) = stream(fake, input.as_bytes());
    assert_eq!(answers, [json!({"jsonrpc": "2.0", "id": 1, "result": {}})]);
}

#[test]
fn a_request_too_large_for_a_frame_is_refused_and_the_stream_goes_on() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        let only = call(&mut peer);
        answer(&mut peer, only.id, &["{}"], None);
    });
    // Below a line's limit, and above a frame's: numbers are written out.
    let numbers = vec!["1e15"; 200_000].join(",");
    let big = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":[{numbers}]}}}}"#);
    assert!(big.len() < 1 << 20);
    let input = format!("{big}\n{}\n", json!({"jsonrpc": "2.0", "id": 2, "method": "status"}));
    let (_, answers) = stream(fake, input.as_bytes());
    assert_eq!(answers[0]["error"]["data"]["kind"], "limit", "{answers:?}");
    assert_eq!(answers[1]["result"], json!({}));
}

#[test]
fn a_stream_whose_daemon_goes_away_ends_with_1() {
    let fake = Fake::new(|mut peer| {
        peer.hello();
        call(&mut peer);
    });
    let input = json!({"jsonrpc": "2.0", "id": 1, "method": "status"}).to_string();
    let (ran, answers) = stream(fake, input.as_bytes());
    assert_eq!((ran.code, answers.len()), (Some(1), 0));
    assert!(ran.err.contains("closed the connection"), "{}", ran.err);
}
