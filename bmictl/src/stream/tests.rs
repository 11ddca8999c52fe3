//! JSON-RPC requests, taken apart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

fn refused(line: &str) -> (Value, i64) {
    let reply = take_apart(line.as_bytes()).unwrap_err();
    let Some(Value::Number(code)) = reply.error.as_ref().unwrap().get("code").cloned() else { panic!("{reply:?}") };
    (reply.id, code.as_i64().unwrap())
}

#[test]
fn a_request_gives_its_id_method_and_parameters() {
    let asked = take_apart(br#"{"jsonrpc":"2.0","id":"a","method":"node.show","params":{"node":"web1"}}"#).unwrap();
    assert_eq!((asked.method.as_str(), asked.params.as_str()), ("node.show", r#"{"node":"web1"}"#));
    assert_eq!(asked.id, Some(Value::Text("a".to_owned())));
    let note = take_apart(br#"{"jsonrpc":"2.0","method":"status"}"#).unwrap();
    assert_eq!((note.id, note.params.as_str()), (None, "{}"));
    let null = take_apart(br#"{"jsonrpc":"2.0","id":null,"method":"status"}"#).unwrap();
    assert_eq!(null.id, Some(Value::Null));
}

#[test]
fn what_is_no_request_gets_the_number_json_rpc_has_for_it() {
    for line in ["", "{", "nonsense", "\u{0}", r#"{"jsonrpc":"2.0""#] {
        assert_eq!(refused(line), (Value::Null, -32700), "{line}");
    }
    for line in ["[]", "1", r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#] {
        assert_eq!(refused(line), (Value::Null, -32600), "{line}");
    }
    let seven = Value::Number(7.into());
    for line in [
        r#"{"id":7,"method":"status"}"#,
        r#"{"jsonrpc":"1.0","id":7,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":7}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":5}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"status","extra":1}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"status","op_id":"x"}"#,
    ] {
        assert_eq!(refused(line), (seven.clone(), -32600), "{line}");
    }
    assert_eq!(refused(r#"{"jsonrpc":"2.0","id":7,"method":"status","params":[1]}"#), (seven, -32602));
}

#[test]
fn deeply_nested_json_is_refused_and_does_not_overflow_the_stack() {
    let deep = "[".repeat(500_000);
    assert_eq!(refused(&deep).1, -32700);
}

#[test]
fn a_line_longer_than_the_limit_is_skipped_whole_and_the_next_is_found() {
    let mut input = vec![b'x'; MOST + 1];
    input.extend(b"\nnext\nlast");
    let mut reader = io::BufReader::with_capacity(1000, &input[..]);
    assert!(matches!(next_line(&mut reader).unwrap(), Line::TooLong));
    assert!(matches!(next_line(&mut reader).unwrap(), Line::Text(t) if t == b"next"));
    assert!(matches!(next_line(&mut reader).unwrap(), Line::Text(t) if t == b"last"));
    assert!(matches!(next_line(&mut reader).unwrap(), Line::End));
    let exact = [vec![b'x'; MOST], b"\n".to_vec()].concat();
    assert!(matches!(next_line(&mut &exact[..]).unwrap(), Line::Text(t) if t.len() == MOST));
}
