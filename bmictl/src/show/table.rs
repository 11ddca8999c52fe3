//! Tables for people: columns for many items, a list of names and values for one.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, Width};

use super::{Look, Sink, cell};
use crate::value::Value;
use crate::words::clean;

/// A row an item. A watch prints each row as it comes, in columns that only grow.
pub(super) struct Table<'a> {
    look: Look<'a>,
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    widths: Vec<u16>,
    /// Which columns have a value in some row.
    valued: Vec<bool>,
    header_due: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(look: Look<'a>) -> Table<'a> {
        let header_due = look.header;
        Table { look, names: Vec::new(), rows: Vec::new(), widths: Vec::new(), valued: Vec::new(), header_due }
    }

    /// Takes out the usual columns in which no row has a value.
    fn leave_out(&mut self) {
        if self.look.only.is_some() || self.look.columns.is_empty() || self.rows.is_empty() {
            return;
        }
        for at in (0..self.names.len()).rev() {
            if !self.valued.get(at).copied().unwrap_or(true) {
                self.names.remove(at);
                self.rows.iter_mut().for_each(|row| drop(row.remove(at)));
            }
        }
    }

    fn print(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        let header = std::mem::take(&mut self.header_due);
        if header {
            table.set_header(self.names.iter().map(|n| clean(n).to_uppercase()));
        }
        table.add_rows(std::mem::take(&mut self.rows));
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if let Some(width) = self.widths.get(i).filter(|w| **w > 0) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
            }
        }
        self.widths = table
            .column_max_content_widths()
            .iter()
            .zip(self.widths.iter().chain(std::iter::repeat(&0)))
            .map(|(now, before)| (*now + 2).max(*before))
            .collect();
        for (i, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let bold = header && i == 0 && self.look.color;
            writeln!(out, "{}{line}{}", if bold { "\x1b[1m" } else { "" }, if bold { "\x1b[0m" } else { "" })?;
        }
        Ok(())
    }
}

impl Sink for Table<'_> {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        if self.names.is_empty() {
            self.names = self.look.names(Some(&item));
            self.valued = vec![false; self.names.len()];
        }
        for (name, valued) in self.names.iter().zip(&mut self.valued) {
            *valued |= !matches!(item.get(name), None | Some(Value::Null));
        }
        let shown = |name: &String| cell::short(name, item.get(name).unwrap_or(&Value::Null), self.look.bytes);
        self.rows.push(self.names.iter().map(shown).collect());
        if self.look.live { self.print(out) } else { Ok(()) }
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.names.is_empty() {
            self.names = self.look.names(None);
        }
        if self.names.is_empty() || self.look.live && self.rows.is_empty() {
            return Ok(());
        }
        if !self.look.live {
            self.leave_out();
        }
        self.print(out)
    }
}

/// A line a field: its name and its value.
pub(super) struct Pairs<'a> {
    look: Look<'a>,
    begun: bool,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(look: Look<'a>) -> Pairs<'a> {
        Pairs { look, begun: false }
    }
}

impl Sink for Pairs<'_> {
    fn item(&mut self, out: &mut dyn Write, item: Value) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            writeln!(out)?;
        }
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        let Value::Map(fields) = &item else { return writeln!(out, "{}", cell::short("", &item, self.look.bytes)) };
        let all = self.look.only.is_some() || self.look.columns.is_empty();
        let usual =
            |name: &str, value: &Value| all || self.look.columns.contains(&name) && !matches!(value, Value::Null);
        for (name, value) in fields.iter().filter(|(name, value)| usual(name, value)) {
            let lines = cell::long(name, value, self.look.bytes);
            table.add_row([clean(name), if lines.is_empty() { "-".to_owned() } else { lines.join("\n") }]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
