//! A value in few characters, for people.

use bmi::model::Bytes;

use crate::value::Value;
use crate::words::clean;

/// How many of a list are named.
const NAMED: usize = 6;

/// One line, without control characters.
pub(super) fn short(name: &str, value: &Value, bytes: bool) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(n) => match n.as_u64() {
            Some(size) if !bytes && is_size(name) => Bytes(size).to_string(),
            _ => n.to_string(),
        },
        Value::Text(text) if text.is_empty() => "-".to_owned(),
        Value::Text(text) => clean(&seconds(text)),
        Value::List(all) => list(all, bytes),
        Value::Map(fields) => map(fields, bytes),
    }
}

/// Lines: a list of objects has one for each, so that nothing of it is hidden.
pub(super) fn long(name: &str, value: &Value, bytes: bool) -> Vec<String> {
    match value {
        Value::List(all) if all.iter().any(|v| matches!(v, Value::Map(_))) => all
            .iter()
            .map(|v| if let Value::Map(fields) = v { pairs(fields, bytes) } else { short(name, v, bytes) })
            .collect(),
        Value::List(all) if all.len() > 1 && all.iter().any(|v| v.text().is_some_and(|t| t.contains(' '))) => {
            all.iter().map(|v| short(name, v, bytes)).collect()
        }
        other => vec![short(name, other, bytes)],
    }
}

/// Fields that count bytes.
fn is_size(name: &str) -> bool {
    name.ends_with("_bytes") || name.ends_with("_size") || matches!(name, "free" | "total")
}

/// `2026-11-22T10:20:30.123456Z` without its microseconds.
fn seconds(text: &str) -> String {
    if text.len() == 27 && text.ends_with('Z') && text.parse::<bmi::model::Time>().is_ok() {
        return format!("{}Z", &text[..19]);
    }
    text.to_owned()
}

fn list(all: &[Value], bytes: bool) -> String {
    let names: Vec<String> = all
        .iter()
        .map_while(|v| match v {
            Value::Map(_) => v.get("name").map(|n| short("", n, bytes)),
            Value::List(_) => None,
            other => Some(short("", other, bytes)),
        })
        .collect();
    if all.is_empty() || names.len() < all.len() {
        // Objects without names (sessions): how many says most.
        return if all.iter().any(|v| matches!(v, Value::Map(_) | Value::List(_))) {
            all.len().to_string()
        } else {
            "-".to_owned()
        };
    }
    if names.len() > NAMED {
        return format!("{}, … ({})", names[..NAMED].join(", "), names.len());
    }
    names.join(", ")
}

fn map(fields: &[(String, Value)], bytes: bool) -> String {
    // A fault within a record reads as a sentence.
    let text = |key: &str| fields.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.text());
    if let (Some(tried), Some(why)) = (text("tried"), text("why")) {
        return if tried.is_empty() { clean(why) } else { clean(&format!("cannot {tried}: {why}")) };
    }
    if fields.is_empty() { "-".to_owned() } else { pairs(fields, bytes) }
}

fn pairs(fields: &[(String, Value)], bytes: bool) -> String {
    let known = fields.iter().filter(|(_, v)| !matches!(v, Value::Null));
    known.map(|(k, v)| format!("{}={}", clean(k), short(k, v, bytes))).collect::<Vec<_>>().join(" ")
}
