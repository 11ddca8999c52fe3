//! Raw calls: JSON in, JSON out, for any operation the daemon knows by name.
//!
//! A raw call needs no equal protocol number, so it also reaches a daemon of another release.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use bmi::model::{Fault, Id, Kind};
use bmi::ops::{OPS, Request, Resolve};
use bmi::protocol::{self, ClientFrame, ServerFrame};

use crate::cli::{self, Format, Globals};
use crate::link::{Got, Link};
use crate::resolve::Files;
use crate::show::{Look, Show};
use crate::stop::Stop;
use crate::stream;
use crate::value::Value;
use crate::words::{Words, colored};

/// The answer to a raw call.
pub(crate) struct Answer {
    /// Its items.
    pub(crate) items: Vec<Value>,
    /// The daemon's `{"code", "message", "data"}`, if it failed.
    pub(crate) error: Option<Value>,
}

/// Carries `bmictl call` out.
pub(crate) fn run(globals: &Globals, words: &Words, call: cli::Call) -> Result<u8, Stop> {
    if let Some(option) = unfit(globals) {
        return Err(Fault::invalid(format!("{option} does not go with a raw call"))
            .trying("call")
            .fix("use the command itself: `bmictl --help` lists them")
            .into());
    }
    let Some(method) = call.method else { return stream::run(globals, words) };
    let params = match call.params.as_deref() {
        None => "{}".to_owned(),
        Some("-") => from_stdin()?,
        Some(text) => text.to_owned(),
    };
    let parsed: Value = serde_json::from_str(&params)
        .map_err(|e| Fault::invalid(format!("the parameters are no JSON: {e}")).trying(format!("call {method}")))?;
    if !matches!(parsed, Value::Map(_)) {
        return Err(Fault::invalid("the parameters are no JSON object")
            .trying(format!("call {method}"))
            .fix(r#"write them like '{"node": "web1"}'"#)
            .into());
    }
    let mut asked = Asked { method: method.clone(), params, op_id: globals.op_id, files: Files::default() };
    let many = asked.ready(globals)?;
    let mut link = Link::open(&globals.socket)?;
    let answer = one(&mut link, globals, 1, &mut asked)?;
    if let Some(error) = answer.error {
        return Err(Stop::Quiet(failed(words, &method, &error)));
    }
    asked.files.commit()?;
    if !asked.files.to_stdout {
        print(globals, answer.items, many)?;
    }
    Ok(0)
}

/// A raw call.
pub(crate) struct Asked {
    /// The operation.
    pub(crate) method: String,
    /// A JSON object.
    pub(crate) params: String,
    /// The client's operation id.
    pub(crate) op_id: Option<Id>,
    /// The files that go with it.
    pub(crate) files: Files,
}

impl Asked {
    /// Opens the files it names and puts the project in; whether the answer is an array, if that is known. What this release
    /// does not know goes as it is: the daemon says what is wrong with it.
    pub(crate) fn ready(&mut self, globals: &Globals) -> Result<Option<bool>, Fault> {
        let Ok(Value::Map(mut members)) = serde_json::from_str(&self.params) else { return Ok(None) };
        let mut context = members.iter().position(|(k, _)| k == "context").map(|at| members.remove(at).1);
        if let Some(project) = &globals.project {
            if context.is_some() {
                return Err(Fault::invalid("both --project (or BMI_PROJECT) and `context` name a project")
                    .trying(format!("call {}", self.method))
                    .fix("leave one of them out"));
            }
            context = Some(Value::Map(vec![
                ("owner".to_owned(), Value::of(project)?),
                ("is_admin".to_owned(), Value::Bool(true)),
            ]));
        }
        let mut many = None;
        let text = |value: &Value| serde_json::to_string(value).map_err(|e| Fault::internal(e.to_string()));
        let json = text(&Value::Map(members.clone()))?;
        let mut as_it_is = globals.project.is_none();
        if let Some(Ok(request)) = Request::from_call(&self.method, &mut serde_json::Deserializer::from_str(&json)) {
            many = Some(request.many());
            let mut resolved = request.clone();
            resolved.resolve(&mut self.files)?;
            if resolved != request
                && let Value::Map(variant) = Value::of(&resolved)?
                && let Some((_, Value::Map(fields))) = variant.into_iter().next()
            {
                members = fields;
                as_it_is = false;
            }
        }
        members.extend(context.map(|c| ("context".to_owned(), c)));
        if !as_it_is {
            self.params = text(&Value::Map(members))?;
        }
        Ok(many)
    }
}

/// Options that only an envelope could carry.
fn unfit(globals: &Globals) -> Option<&'static str> {
    [(globals.check, "--check"), (globals.no_wait && !globals.wait, "--no-wait")]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
}

fn from_stdin() -> Result<String, Fault> {
    let lines = Files::default().lines("-")?;
    Ok(lines.join("\n"))
}

/// Whether this release has an operation of that name.
pub(crate) fn known(method: &str) -> bool {
    OPS.iter().any(|e| e.sheet.method() == method)
}

/// Items as one value.
pub(crate) fn whole(mut items: Vec<Value>, many: Option<bool>) -> Value {
    match many {
        Some(true) => Value::List(items),
        None if items.len() > 1 => Value::List(items),
        _ => items.pop().unwrap_or(Value::Null),
    }
}

/// Sends one call and waits for its end.
pub(crate) fn one(link: &mut Link, globals: &Globals, id: u64, asked: &mut Asked) -> Result<Answer, Fault> {
    let (method, params, op_id) = (asked.method.clone(), std::mem::take(&mut asked.params), asked.op_id);
    let doing = || format!("call {method}");
    let frame = ClientFrame::Call(protocol::Call { id, method: method.clone(), params, op_id });
    link.send(&frame, &asked.files.descriptors).map_err(|f| f.trying(doing()))?;
    // The daemon has them now; a pipe ends for its writer only when nobody holds it open any more.
    asked.files.descriptors.clear();
    let until = globals.timeout.map(|t: Duration| Instant::now() + t);
    let mut items = Vec::new();
    let read = |text: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|e| Fault::new(Kind::Protocol, format!("bmid's answer is no JSON: {e}")).trying(doing()))
    };
    loop {
        let frame = match link.next(until, None)? {
            Got::Frame(frame) => *frame,
            Got::Closed | Got::Rung => {
                return Err(Fault::new(Kind::Unavailable, "bmid closed the connection before the answer was whole")
                    .trying(doing())
                    .fix("see whether bmid runs: `systemctl status bmid`, `journalctl -u bmid -n 50`"));
            }
            Got::Late => {
                return Err(Fault::new(Kind::Timeout, "there is no answer within --timeout")
                    .trying(doing())
                    .fix("a change goes on: `bmictl op ls` shows it"));
            }
        };
        match frame {
            ServerFrame::Json { id: of, text } if of == id => items.push(read(&text)?),
            ServerFrame::CallEnd { id: of, error } if of == id => {
                return Ok(Answer { items, error: error.as_deref().map(read).transpose()? });
            }
            _ => return Err(Fault::new(Kind::Protocol, "the answer belongs to another request").trying(doing())),
        }
    }
}

/// Tells the daemon's error and says which exit code it means.
fn failed(words: &Words, method: &str, error: &Value) -> u8 {
    let message = error.get("message").and_then(Value::text).unwrap_or("it failed without saying why");
    // Faults of bmid say what was tried. What does not gets it said here.
    let told = match message.starts_with("cannot ") {
        true => message.to_owned(),
        false => format!("cannot call {method}: {message}"),
    };
    words.raw_error(&told, error);
    let class = error.get("data").and_then(|d| d.get("class")).and_then(Value::text);
    class_code(class.unwrap_or("failed"))
}

/// The exit code of a class by name.
fn class_code(class: &str) -> u8 {
    use bmi::model::Class::{Conflict, Denied, Failed, NoDaemon, NotFound, Quota, Timeout, Usage};
    [Failed, Usage, NotFound, Conflict, Denied, Quota, Timeout, NoDaemon]
        .into_iter()
        .find(|c| c.as_str() == class)
        .unwrap_or(Failed)
        .exit_code()
}

fn print(globals: &Globals, items: Vec<Value>, many: Option<bool>) -> Result<(), Stop> {
    let stdout = io::stdout();
    let look = Look {
        format: globals.format.unwrap_or(Format::Json),
        many: many.unwrap_or(items.len() != 1),
        text: false,
        live: false,
        header: !globals.no_header,
        bytes: globals.bytes,
        color: colored(globals.color, stdout.is_terminal()),
        only: globals.columns.as_deref(),
        columns: &[],
    };
    let mut show = Show::new(Box::new(BufWriter::new(stdout)) as Box<dyn Write>, look);
    for item in items {
        show.item(item)?;
    }
    show.end().map(|_| ())
}
