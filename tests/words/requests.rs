//! The bytes of every operation's examples: what people type, as it crosses the wire.

use std::fmt::Write as _;

use bmi::model::Fault;
use bmi::ops::args::{Direction, HostPath};
use bmi::ops::{OPS, Request, Resolve, Source};
use bmi::protocol::{ClientFrame, Envelope, PROTOCOL, Submit, decode, encode};

use crate::kept;

const GOLDEN: &str = "tests/words/requests.txt";

/// A client whose files are all there.
struct Client;

impl Resolve for Client {
    fn open(&mut self, source: &mut Source, _direction: Direction) -> Result<(), Fault> {
        source.descriptor = Some(0);
        Ok(())
    }

    fn absolute(&mut self, path: &mut HostPath) -> Result<(), Fault> {
        if !path.0.starts_with('/') {
            path.0 = format!("/home/user/{}", path.0);
        }
        Ok(())
    }

    fn lines(&mut self, _path: &str) -> Result<Vec<String>, Fault> {
        Ok(vec!["# machines".to_owned(), "web2,52:54:00:00:00:02".to_owned(), "web3 52:54:00:00:00:03 eno1".to_owned()])
    }

    fn warn(&mut self, _text: &str) {}
}

/// The words of an example up to where the shell takes over, without the options of every command.
fn words(example: &str) -> Vec<&str> {
    let mut words: Vec<&str> = example.split_whitespace().take_while(|w| !matches!(*w, "|" | "<" | ">")).collect();
    words.retain(|w| !matches!(*w, "--yes" | "--check" | "--no-wait"));
    while let Some(at) = words.iter().position(|w| *w == "-f") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words
}

/// The request that an example means.
fn request(entry: &bmi::ops::table::Entry, example: &str) -> Request {
    let words = words(example);
    let given = entry.sheet.command().split(' ').count() - 1;
    let matches = (entry.augment)(clap::Command::new("bmictl"))
        .try_get_matches_from(&words[given..])
        .unwrap_or_else(|e| panic!("the example {example:?} does not parse: {e}"));
    let mut request = (entry.parse)(&matches).unwrap_or_else(|e| panic!("the example {example:?}: {e}"));
    request.resolve(&mut Client).unwrap_or_else(|f| panic!("the example {example:?}: {f}"));
    request
}

fn examples() -> impl Iterator<Item = (&'static str, Request)> {
    OPS.iter().flat_map(|entry| entry.sheet.examples.iter().map(move |e| (*e, request(entry, e))))
}

#[test]
fn examples_have_their_golden_bytes() {
    let mut text =
        format!("# The bytes of every example, as requests. Written by a test (see main.rs).\n# protocol {PROTOCOL}\n");
    for (example, request) in examples() {
        let bytes = encode(&request).expect("fits a frame");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(text, "{hex} {example}");
    }
    kept::must_be(GOLDEN, &text, "What people type has other bytes now; see wire.txt for what that means.");
}

#[test]
fn examples_stand_at_their_numbers() {
    for (at, entry) in OPS.iter().enumerate() {
        for example in entry.sheet.examples {
            let bytes = encode(&request(entry, example)).expect("fits a frame");
            let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            assert_eq!(number as usize, at, "{example}");
        }
    }
}

/// bincode writes every field and reads every field: a request that ends early is an error, never one with defaults.
#[test]
fn a_request_cut_off_anywhere_is_refused() {
    for (example, request) in examples() {
        let frame = ClientFrame::Submit(Submit { id: 1, envelope: Envelope::default(), request });
        let bytes = encode(&frame).expect("fits a frame");
        assert_eq!(decode::<ClientFrame>(&bytes).as_ref(), Ok(&frame), "{example}");
        for end in 0..bytes.len() {
            assert!(decode::<ClientFrame>(&bytes[..end]).is_err(), "{example}: {end} of {} bytes decode", bytes.len());
        }
    }
}

/// A raw call that gives only what must be given means what the same command line means.
#[test]
fn defaults_of_raw_calls_are_those_of_the_command_line() {
    let mut problems = Vec::new();
    for (example, request) in examples() {
        let json = as_json(&request);
        if json.to_string().contains("\"descriptor\"") {
            // A raw call brings no file along.
            continue;
        }
        let method = request.sheet().method();
        let whole = Request::from_call(&method, &json).expect("a method").unwrap_or_else(|e| panic!("{example}: {e}"));
        assert_eq!(whole, request, "{example}");
        let Some(members) = json.as_object() else { panic!("{example} is no object") };
        for member in members.keys() {
            let mut less = members.clone();
            less.remove(member);
            let typed = was_typed(example, member, &json[member]);
            let less = serde_json::Value::Object(less);
            match Request::from_call(&method, &less).expect("a method") {
                Ok(other) => {
                    let meant = &as_json(&other)[member];
                    if !typed && *meant != json[member] {
                        problems.push(format!("{example}: without {member} it means {meant}"));
                    }
                }
                Err(_) if typed => {}
                Err(e) => problems.push(format!("{example}: nobody types {member}, and JSON must have it: {e}")),
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether the value stands in the example because somebody typed it.
fn was_typed(example: &str, member: &str, value: &serde_json::Value) -> bool {
    let flag = format!("--{}", member.replace('_', "-"));
    let typed_flag = example.split_whitespace().any(|w| w == flag || w.starts_with(&format!("{flag}=")));
    let typed_value = value.as_str().is_some_and(|v| words(example).contains(&v));
    // Lists of machines come from a file; who asks for a machine by name types it without a flag.
    typed_flag || typed_value || value.is_array() || value.is_object()
}

/// A request's own JSON: what a raw call would send.
fn as_json(request: &Request) -> serde_json::Value {
    match serde_json::to_value(request).expect("requests are JSON") {
        serde_json::Value::Object(outer) => outer.into_iter().next().expect("one variant").1,
        other => panic!("a request is an externally tagged enum: {other}"),
    }
}
