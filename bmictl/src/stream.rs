//! `call --stream`: JSON-RPC 2.0, a request a line in, an answer a line out, in order, over one connection.
//!
//! Each request is answered before the next is sent, so that every line sees what the lines before it have done.

use std::io::{self, BufRead, Write};

use bmi::model::{Fault, Id, Kind};
use serde::Serialize;

use crate::call::{self, Answer};
use crate::cli::Globals;
use crate::link::Link;
use crate::resolve::Files;
use crate::stop::Stop;
use crate::value::Value;
use crate::words::{ErrorObject, Words};

/// Longest request.
const MOST: usize = 1 << 20;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Answers requests until standard input ends.
pub(crate) fn run(globals: &Globals, _words: &Words) -> Result<u8, Stop> {
    let mut link = Link::open(&globals.socket)?;
    let mut input = io::stdin().lock();
    let mut out = io::stdout().lock();
    let mut number = 0;
    loop {
        let line = next_line(&mut input)
            .map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("read standard input"))?;
        let answer = match line {
            Line::End => return Ok(0),
            Line::Text(text) if text.trim_ascii().is_empty() => continue,
            Line::TooLong => Some(Reply::refused(Value::Null, INVALID_REQUEST, "a request is longer than 1 MiB")),
            Line::Text(text) => {
                number += 1;
                answer(&mut link, globals, number, &text)?
            }
        };
        if let Some(answer) = answer {
            let text = serde_json::to_string(&answer).map_err(|e| Fault::internal(e.to_string()))?;
            writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Stop::output(&e))?;
        }
    }
}

enum Line {
    Text(Vec<u8>),
    TooLong,
    End,
}

/// A line of at most [`MOST`] bytes. A longer one is read to its end and forgotten, so that the next is found.
fn next_line(input: &mut dyn BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut long = false;
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(if long {
                Line::TooLong
            } else if line.is_empty() {
                Line::End
            } else {
                Line::Text(line)
            });
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        let taken = end.unwrap_or(bytes.len());
        long |= line.len() + taken > MOST;
        if !long {
            line.extend_from_slice(&bytes[..taken]);
        }
        input.consume(end.map_or(taken, |e| e + 1));
        if end.is_some() {
            return Ok(if long { Line::TooLong } else { Line::Text(line) });
        }
    }
}

/// An answer.
#[derive(Debug, Serialize)]
struct Reply {
    jsonrpc: &'static str,
    id: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

impl Reply {
    fn refused(id: Value, code: i32, message: &str) -> Reply {
        let error = Value::Map(vec![
            ("code".to_owned(), Value::Number(code.into())),
            ("message".to_owned(), Value::Text(message.to_owned())),
        ]);
        Reply { jsonrpc: "2.0", id, result: None, error: Some(error) }
    }
}

/// A request, taken apart.
#[derive(Debug)]
struct Asked {
    /// None: a notification, which is carried out and not answered.
    id: Option<Value>,
    method: String,
    params: String,
    op_id: Option<Id>,
}

fn answer(link: &mut Link, globals: &Globals, number: u64, line: &[u8]) -> Result<Option<Reply>, Fault> {
    let asked = match take_apart(line) {
        Ok(asked) => asked,
        Err(refused) => return Ok(Some(*refused)),
    };
    let method = asked.method.clone();
    // Requests come on standard input and answers leave on standard output, so neither can be a file here.
    let files = Files::without_standard();
    let mut call = call::Asked { method: asked.method, params: asked.params, op_id: asked.op_id, files };
    let (answer, many) = match call.ready(globals) {
        Ok(many) => (call::one(link, globals, number, &mut call), many),
        Err(fault) => (Ok(Answer { items: Vec::new(), error: Some(Value::of(&ErrorObject::of(&fault))?) }), None),
    };
    let answer = match answer {
        Ok(answer) if answer.error.is_none() => match call.files.commit() {
            Ok(()) => answer,
            Err(fault) => Answer { items: Vec::new(), error: Some(Value::of(&ErrorObject::of(&fault))?) },
        },
        Ok(answer) => answer,
        // The connection is as it was: only this request does not fit.
        Err(fault) if fault.kind == Kind::Limit => {
            Answer { items: Vec::new(), error: Some(Value::of(&ErrorObject::of(&fault))?) }
        }
        Err(fault) => return Err(fault),
    };
    let Some(id) = asked.id else { return Ok(None) };
    Ok(Some(match answer.error {
        None => Reply { jsonrpc: "2.0", id, result: Some(call::whole(answer.items, many)), error: None },
        Some(error) => {
            let error = if link.same_release() && !call::known(&method) { not_found(error) } else { error };
            Reply { jsonrpc: "2.0", id, result: None, error: Some(error) }
        }
    }))
}

/// The daemon's words with the number JSON-RPC has for them.
fn not_found(error: Value) -> Value {
    match error {
        Value::Map(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(k, v)| if k == "code" { (k, Value::Number(METHOD_NOT_FOUND.into())) } else { (k, v) })
                .collect(),
        ),
        other => other,
    }
}

fn take_apart(line: &[u8]) -> Result<Asked, Box<Reply>> {
    let refused = |id: &Value, code, message: &str| Box::new(Reply::refused(id.clone(), code, message));
    let request: Value = serde_json::from_slice(line)
        .map_err(|e| refused(&Value::Null, PARSE_ERROR, &format!("this line is no JSON: {e}")))?;
    let Value::Map(members) = &request else {
        return Err(refused(&Value::Null, INVALID_REQUEST, "a request is a JSON object, one a line"));
    };
    let id = request.get("id").cloned();
    let told = match &id {
        None | Some(Value::Null | Value::Text(_) | Value::Number(_)) => id.clone().unwrap_or(Value::Null),
        Some(_) => return Err(refused(&Value::Null, INVALID_REQUEST, "an id is a text, a number or null")),
    };
    if let Some((name, _)) =
        members.iter().find(|(name, _)| !["jsonrpc", "id", "method", "params", "op_id"].contains(&name.as_str()))
    {
        return Err(refused(&told, INVALID_REQUEST, &format!("a request has no member {name:?}")));
    }
    if request.get("jsonrpc").and_then(Value::text) != Some("2.0") {
        return Err(refused(&told, INVALID_REQUEST, r#"a request has "jsonrpc": "2.0""#));
    }
    let Some(method) = request.get("method").and_then(Value::text) else {
        return Err(refused(&told, INVALID_REQUEST, "a request names its method"));
    };
    let params = match request.get("params") {
        None => "{}".to_owned(),
        Some(params @ Value::Map(_)) => {
            serde_json::to_string(params).map_err(|e| refused(&told, INVALID_PARAMS, &e.to_string()))?
        }
        Some(_) => return Err(refused(&told, INVALID_PARAMS, "params is an object: parameters go by name")),
    };
    let op_id = match request.get("op_id") {
        None | Some(Value::Null) => None,
        Some(given) => Some(
            given
                .text()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| refused(&told, INVALID_REQUEST, "op_id is an operation's id"))?,
        ),
    };
    Ok(Asked { id, method: method.to_owned(), params, op_id })
}

#[cfg(test)]
mod tests;
