//! Formats for machines, and text as it is.

use std::io::{self, Write};

use super::{Look, Sink};
use crate::value::Value;

/// One JSON value: the bare object, or an array that is whole even when nothing came.
pub(super) struct Json {
    pub(super) many: bool,
    pub(super) begun: bool,
}

impl Sink for Json {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        if self.many {
            out.write_all(if self.begun { b",\n" } else { b"[\n" })?;
            self.begun = true;
        }
        let text = serde_json::to_string_pretty(&item)?;
        if !self.many {
            return writeln!(out, "{text}");
        }
        for (i, line) in text.lines().enumerate() {
            write!(out, "{}  {line}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match (self.many, self.begun) {
            (false, _) => Ok(()),
            (true, true) => out.write_all(b"\n]\n"),
            (true, false) => out.write_all(b"[]\n"),
        }
    }
}

/// A JSON object a line.
pub(super) struct Lines;

impl Sink for Lines {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        writeln!(out, "{}", serde_json::to_string(&item)?)
    }

    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// YAML: a mapping, or a sequence of them.
pub(super) struct Yaml {
    pub(super) many: bool,
    pub(super) begun: bool,
}

impl Sink for Yaml {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        self.begun = true;
        let text = if self.many { serde_yaml_ng::to_string(&[item]) } else { serde_yaml_ng::to_string(&item) };
        out.write_all(text.map_err(io::Error::other)?.as_bytes())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.many && !self.begun { out.write_all(b"[]\n") } else { Ok(()) }
    }
}

/// Comma-separated values: the columns of the table, exact; what is nested stands there as JSON.
pub(super) struct Csv<'a> {
    look: Look<'a>,
    names: Option<Vec<String>>,
}

impl<'a> Csv<'a> {
    pub(super) fn new(look: Look<'a>) -> Csv<'a> {
        Csv { look, names: None }
    }

    fn begin(&mut self, out: &mut dyn Write, first: Option<&Value>) -> io::Result<Vec<String>> {
        if let Some(names) = &self.names {
            return Ok(names.clone());
        }
        let names = self.look.names(first);
        if self.look.header && !names.is_empty() {
            record(out, &names)?;
        }
        self.names = Some(names.clone());
        Ok(names)
    }
}

impl Sink for Csv<'_> {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        let names = self.begin(out, Some(&item))?;
        let fields: Vec<String> = names
            .iter()
            .map(|name| match item.get(name) {
                None | Some(Value::Null) => Ok(String::new()),
                Some(Value::Text(text)) => Ok(text.clone()),
                Some(other) => serde_json::to_string(other),
            })
            .collect::<Result<_, _>>()?;
        record(out, &fields)
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.look.many { self.begin(out, None).map(|_| ()) } else { Ok(()) }
    }
}

fn record(out: &mut dyn Write, fields: &[String]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(fields).map_err(io::Error::other)?;
    writer.flush()
}

/// The last field of each item, which is the text (a script), as it is.
pub(super) struct Plain;

impl Sink for Plain {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        let text = match &item {
            Value::Map(fields) => fields.last().and_then(|(_, v)| v.text()).unwrap_or_default(),
            other => other.text().unwrap_or_default(),
        };
        out.write_all(text.as_bytes())?;
        if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") }
    }

    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
