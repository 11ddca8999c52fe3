//! The readable dump: one JSON object a line, `{"table", "version", "row"}`, the store's own record first and a count last.
//!
//! It holds everything that cannot be derived: indexes and usage are built anew by a restore. Secrets stay sealed. A slow
//! reader of a dump must never hold up the writer, so the lines are written after the look is over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use bmi::model::journal::{Before, Standing, Subject};
use bmi::model::{Answer, Change, Event, Fault, Id, Intent, Kind, Part, Row, Table, Time};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sled::IVec;

use super::ahead::Span;
use super::codec::{Stored, StoredPart};
use super::raw::{self, Live};
use super::{Store, codec, migrations, open, tables};

/// A dump leaves so much free: with less than half of it left the store refuses to write.
const SPARED: u64 = 16 << 20;

/// A line as it is read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) table: String,
    pub(super) version: u8,
    pub(super) row: Value,
}

/// The last line's row: a dump that was cut off is not restored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) lines: u64,
}

struct Lines<'a> {
    out: &'a mut dyn Write,
    count: u64,
    /// After this moment nobody waits for it any more.
    until: Option<Instant>,
}

impl Lines<'_> {
    fn line<T: Serialize>(&mut self, table: &str, version: u8, row: &T) -> Result<(), Fault> {
        #[derive(Serialize)]
        struct Out<'a, T> {
            table: &'a str,
            version: u8,
            row: &'a T,
        }
        let text = serde_json::to_string(&Out { table, version, row })
            .map_err(|e| Fault::internal(format!("a {table} row cannot be written as JSON: {e}")))?;
        if self.until.is_some_and(|until| Instant::now() > until) {
            return Err(Fault::new(Kind::Timeout, "it was not done in the time there was"));
        }
        self.count += 1;
        writeln!(self.out, "{text}").map_err(|e| raw::outside("write the dump", &e.into()))
    }

    fn stored<T: Stored>(&mut self, row: &T) -> Result<(), Fault> {
        self.line(T::WHAT, T::VERSION, row)
    }

    /// The entry of a table that dumps hold; others are derived.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let Some(&table) = key.first() else { return Ok(()) };
        match table {
            tables::INTENT => self.stored::<Intent>(&codec::decode(value)?),
            tables::PART => {
                let part = codec::decode::<StoredPart>(value)?.open()?;
                self.stored(&DumpedPart::new(&part)?)
            }
            tables::ANSWER => self.stored::<Answer>(&codec::decode(value)?),
            tables::EVENT => self.stored::<Event>(&codec::decode(value)?),
            _ => match Table::ALL.into_iter().find(|t| *t as u8 == table) {
                Some(t) => {
                    let line = Line::of(&codec::decode_row(t, value)?)?;
                    self.line(&line.table, line.version, &line.row)
                }
                None => Ok(()),
            },
        }
    }
}

impl Store {
    /// Writes everything, one JSON object a line; gives the number of lines.
    pub fn dump(&self, out: &mut dyn Write) -> Result<u64, Fault> {
        self.dump_lines(&mut Lines { out, count: 0, until: None })
    }

    fn dump_lines(&self, lines: &mut Lines<'_>) -> Result<u64, Fault> {
        let meta = self.meta();
        let (entries, last_event) = self.look(|raw| Ok((entries(raw)?, last_event(raw)?)))?;
        lines.stored(&*meta)?;
        for (key, value) in entries {
            lines.entry(&key, &value)?;
        }
        // The trail is long and only grows at its end: it is read without holding up the writer.
        if let Some(last) = last_event {
            self.trail(Bound::Included(last), |key, value| lines.entry(key, value))?;
        }
        let end = End { lines: lines.count };
        lines.line("end", 1, &end)?;
        lines.out.flush().map_err(|e| raw::outside("write the dump", &e.into()))?;
        Ok(lines.count)
    }

    /// Writes a dump to `folder/bmid-<now>.jsonl`, whole or not at all, and removes what [`surplus`] names.
    pub fn dump_to(&self, folder: &Path, keep: usize, now: Time) -> Result<PathBuf, Fault> {
        self.dump_until(folder, keep, now, None)
    }

    /// The same, given up without a trace when it is not done by `until`.
    pub fn dump_until(&self, folder: &Path, keep: usize, now: Time, until: Option<Instant>) -> Result<PathBuf, Fault> {
        let tried = || format!("write a dump into {}", folder.display());
        let failed = |e: io::Error| raw::outside(&tried(), &e.into());
        fs::create_dir_all(folder).map_err(failed)?;
        leave_room(folder).map_err(|f| f.trying(tried()))?;
        let path = folder.join(format!("bmid-{}.jsonl", open::stamp(now)));
        let temp = folder.join("new.tmp");
        let written = self.dump_file(&temp, until).and_then(|()| fs::rename(&temp, &path).map_err(failed));
        if let Err(fault) = written {
            let _ = fs::remove_file(&temp);
            return Err(fault.trying(tried()));
        }
        File::open(folder).and_then(|d| d.sync_all()).map_err(failed)?;
        for old in surplus(open::dumps(folder), keep) {
            fs::remove_file(old).map_err(failed)?;
        }
        Ok(path)
    }

    fn dump_file(&self, path: &Path, until: Option<Instant>) -> Result<(), Fault> {
        let failed = |e: io::Error| raw::outside("write the dump", &e.into());
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
        let mut out = BufWriter::new(file);
        self.dump_lines(&mut Lines { out: &mut out, count: 0, until })?;
        out.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
    }

    /// When the newest dump beside the store was written; none: there is none.
    #[must_use]
    pub fn last_dump(&self) -> Option<SystemTime> {
        let newest = open::dumps(&self.dir().join("dumps")).pop()?;
        fs::metadata(newest).and_then(|m| m.modified()).ok()
    }
}

/// Refuses where a dump would take the room that the store itself needs for its next writes.
fn leave_room(folder: &Path) -> Result<(), Fault> {
    let last = open::dumps(folder).pop().and_then(|d| fs::metadata(d).ok()).map_or(0, |m| m.len());
    let needed = last + last / 4 + SPARED;
    // A file system that does not tell how much is free is taken to have room.
    let Ok(free) = statvfs(folder).map(|s| s.blocks_available().saturating_mul(s.fragment_size())) else {
        return Ok(());
    };
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (free >> 20, needed.div_ceil(1 << 20));
    Err(Fault::new(
        Kind::Full,
        format!("{free} MiB are free there, and a dump may take {needed} MiB with what the store needs"),
    )
    .fix("make room on the file system of the state folder; the next dump is tried by itself"))
}

/// Of dumps in order of age, those that go when `keep` are kept: the newest few stay whatever their age, and of each hour
/// before them the last one. So many restarts within an hour push out no hour before it.
fn surplus(dumps: Vec<PathBuf>, keep: usize) -> Vec<PathBuf> {
    let (keep, newest) = (keep.max(1), (keep / 8).max(1));
    // `bmid-2026-11-22T06` of `bmid-2026-11-22T06-38-27.000000Z.jsonl`.
    let hour = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split_once('T')
            .map_or(name.clone(), |(day, time)| format!("{day}T{}", time.chars().take(2).collect::<String>()))
    };
    let (mut kept, mut last, mut out) = (0, String::new(), Vec::new());
    for dump in dumps.into_iter().rev() {
        let of = hour(&dump);
        if kept < keep && (kept < newest || of != last) {
            (kept, last) = (kept + 1, of);
        } else {
            out.push(dump);
        }
    }
    out
}

/// All entries of dumped tables but the events, with long values put together.
fn entries(raw: &Live<'_>) -> Result<Vec<(IVec, IVec)>, Fault> {
    let mut out = Vec::new();
    let (from, to) = ([tables::META + 1], [tables::EVENT]);
    let all = Span { from: Bound::Included(&from), to: Bound::Excluded(&to), backwards: false };
    for entry in raw.range(all) {
        let (key, head) = entry?;
        let value = raw::whole(raw, &key, head)?;
        out.push((key, value));
    }
    Ok(out)
}

fn last_event(raw: &Live<'_>) -> Result<Option<IVec>, Fault> {
    let last = raw.under(&[tables::EVENT], true).next().transpose()?;
    Ok(last.map(|(key, _)| key))
}

impl Line {
    fn of(row: &Row) -> Result<Line, Fault> {
        let table = row.table().as_str();
        let value = codec::row_to_json(row)
            .map_err(|e| Fault::internal(format!("a {table} row cannot be written as JSON: {e}")))?;
        Ok(Line { table: table.to_owned(), version: row.version(), row: value })
    }

    pub(super) fn open(self) -> Result<Row, String> {
        let Some(table) = tables::table_named(&self.table) else {
            return Err(format!("there is no table {:?}", self.table.chars().take(40).collect::<String>()));
        };
        let known = tables::version(table);
        let row = migrations::lift_json(migrations::JSON, table.as_str(), table as u8, self.version, known, self.row);
        codec::row_from_json(table, row.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    }
}

/// A [`Part`] in a dump; its rows carry their own versions, as in the store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DumpedPart {
    intent: Id,
    index: u32,
    standing: Standing,
    script: Vec<u8>,
    before: Vec<(Table, Id, Option<Line>)>,
    commit: Vec<DumpedChange>,
    subjects: Vec<Subject>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DumpedChange {
    Put(Line),
    Delete(Table, Id),
}

impl Stored for DumpedPart {
    const WHAT: &'static str = StoredPart::WHAT;
    const TABLE: u8 = StoredPart::TABLE;
    const VERSION: u8 = StoredPart::VERSION;
}

impl DumpedPart {
    fn new(part: &Part) -> Result<DumpedPart, Fault> {
        let before = |b: &Before| Ok((b.table, b.id, b.row.as_ref().map(Line::of).transpose()?));
        let change = |c: &Change| {
            Ok(match c {
                Change::Put(row) => DumpedChange::Put(Line::of(row)?),
                Change::Delete(table, id) => DumpedChange::Delete(*table, *id),
            })
        };
        Ok(DumpedPart {
            intent: part.intent,
            index: part.index,
            standing: part.standing.clone(),
            script: part.script.clone(),
            before: part.before.iter().map(before).collect::<Result<_, Fault>>()?,
            commit: part.commit.iter().map(change).collect::<Result<_, Fault>>()?,
            subjects: part.subjects.clone(),
        })
    }

    pub(super) fn open(self) -> Result<Part, String> {
        let before = |(table, id, row): (Table, Id, Option<Line>)| {
            Ok(Before { table, id, row: row.map(Line::open).transpose()? })
        };
        let change = |c: DumpedChange| {
            Ok(match c {
                DumpedChange::Put(line) => Change::Put(line.open()?),
                DumpedChange::Delete(table, id) => Change::Delete(table, id),
            })
        };
        Ok(Part {
            intent: self.intent,
            index: self.index,
            standing: self.standing,
            script: self.script,
            before: self.before.into_iter().map(before).collect::<Result<_, String>>()?,
            commit: self.commit.into_iter().map(change).collect::<Result<_, String>>()?,
            subjects: self.subjects,
        })
    }
}
