//! How an answer is printed: item by item, so that a long one needs no memory and a watch shows at once.

mod cell;
mod rows;
mod table;

use std::io::{self, Write};

use bmi::model::Fault;
use bmi::ops::{Shape, Sheet};

use crate::cli::{Format, Globals};
use crate::stop::Stop;
use crate::value::Value;

/// What decides how an answer looks.
pub struct Look<'a> {
    /// How.
    pub format: Format,
    /// Any number of items: an array, a table with a row each.
    pub many: bool,
    /// Text as it is, where a table is asked for.
    pub text: bool,
    /// Items come as they happen: each is shown at once.
    pub live: bool,
    /// A header line.
    pub header: bool,
    /// Sizes as exact numbers.
    pub bytes: bool,
    /// Colour.
    pub color: bool,
    /// Fields asked for.
    pub only: Option<&'a [String]>,
    /// Fields a table shows unless others are asked for.
    pub columns: &'a [&'a str],
}

impl<'a> Look<'a> {
    /// For an operation's answer.
    #[must_use]
    pub fn of(globals: &'a Globals, sheet: &Sheet, many: bool, color: bool) -> Look<'a> {
        Look {
            format: globals.format(),
            many,
            text: sheet.shape == Shape::Text,
            live: many && sheet.verb == "watch",
            header: !globals.no_header,
            bytes: globals.bytes,
            color,
            only: globals.columns.as_deref(),
            columns: sheet.columns,
        }
    }

    /// The columns of rows: those asked for, else the usual ones, else all of an item.
    fn names(&self, first: Option<&Value>) -> Vec<String> {
        match (self.only, first) {
            (Some(only), _) => only.to_vec(),
            (None, _) if !self.columns.is_empty() => self.columns.iter().map(|c| (*c).to_owned()).collect(),
            (None, Some(Value::Map(fields))) => fields.iter().map(|(k, _)| k.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Where the items of one answer go.
trait Sink {
    /// Shows one more.
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()>;
    /// There are no more.
    fn end(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// An answer being printed.
pub struct Show<'a> {
    out: Box<dyn Write + 'a>,
    sink: Box<dyn Sink + 'a>,
    only: Option<&'a [String]>,
    live: bool,
    items: u64,
}

impl<'a> Show<'a> {
    /// Begins an answer.
    #[must_use]
    pub fn new(out: Box<dyn Write + 'a>, look: Look<'a>) -> Show<'a> {
        let (only, live) = (look.only, look.live);
        let sink: Box<dyn Sink + 'a> = match look.format {
            Format::Table if look.text => Box::new(rows::Plain),
            Format::Table if look.many => Box::new(table::Table::new(look)),
            Format::Table => Box::new(table::Pairs::new(look)),
            Format::Json => Box::new(rows::Json { many: look.many, begun: false }),
            Format::Jsonl => Box::new(rows::Lines),
            Format::Yaml => Box::new(rows::Yaml { many: look.many, begun: false }),
            Format::Csv => Box::new(rows::Csv::new(look)),
        };
        Show { out, sink, only, live, items: 0 }
    }

    /// Refuses fields that the answer does not have, before anything is done.
    pub fn check(only: Option<&[String]>, known: &[&str]) -> Result<(), Fault> {
        match only.unwrap_or_default().iter().find(|o| !known.contains(&o.as_str())) {
            Some(unknown) => Err(Fault::invalid(format!("the answer has no field {unknown:?}"))
                .trying("choose columns")
                .fix(format!("it has {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// Shows one more item.
    pub fn item(&mut self, item: Value) -> Result<(), Stop> {
        self.items += 1;
        let item = match self.only {
            Some(only) => chosen(item, only),
            None => item,
        };
        self.sink.item(&mut self.out, item).map_err(|e| Stop::output(&e))?;
        if self.live { self.flush() } else { Ok(()) }
    }

    /// The answer is whole; how many items it had.
    pub fn end(mut self) -> Result<u64, Stop> {
        self.sink.end(&mut self.out).map_err(|e| Stop::output(&e))?;
        self.flush()?;
        Ok(self.items)
    }

    /// The answer breaks off: what was begun is closed, so that it still reads as what it is.
    pub fn broken_off(self) {
        if self.items > 0 {
            // The failure that led here is told; one of the output now would only hide it.
            let _ = self.end();
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.out.flush().map_err(|e| Stop::output(&e))
    }
}

fn chosen(item: Value, only: &[String]) -> Value {
    match item {
        Value::Map(fields) => {
            Value::Map(only.iter().filter_map(|name| fields.iter().find(|(k, _)| k == name).cloned()).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
