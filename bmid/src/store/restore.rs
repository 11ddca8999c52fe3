//! Taking a dump in, whole or not at all, however large it is: never more of it in memory than some lines.
//!
//! It is read twice. First to see that it is whole and can be read to its end; then into the store, piece by piece, while
//! nobody else is let in. What the store held lies beside ([`Displaced`]) until the last piece is in: after a failure, and at the
//! next start after a crash, it is put back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, PoisonError};

use bmi::model::{Answer, Change, Event, Fault, Intent, Kind, Meta, Owner, Part, Row, ServerKind, Table, View as _};
use serde::{Deserialize, Serialize};

use super::codec::{Stored, StoredPart};
use super::dump::{DumpedPart, End, Line};
use super::raw::{self, Live, Raw as _};
use super::tx::Tx;
use super::{Inner, Store, Who, migrations, tables};

/// Longest line a restore reads.
const LINE_LIMIT: u64 = 64 << 20;
/// So many lines, or so many bytes of them, go into one write.
const LINES: usize = 5_000;
const BYTES: usize = 4 << 20;
/// So much of the trail of an empty store is kept for a restore that fails.
const TRAIL: usize = 4 << 20;

/// One line of a dump, understood.
enum Item {
    Row(Row),
    Intent(Intent),
    Part(Part),
    Answer(Answer),
    Event(Event),
}

/// What a store held before a restore began. As long as it is there the store holds part of a dump.
#[derive(Default, Serialize, Deserialize)]
struct Displaced {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Stored for Displaced {
    const WHAT: &'static str = "displaced";
    const TABLE: u8 = tables::META;
    const VERSION: u8 = 1;
}

/// The dump's lines, from the first one on.
struct Lines<'a> {
    input: BufReader<&'a File>,
    number: u64,
    /// Length of the last line.
    length: usize,
}

impl Store {
    /// Takes a dump in, whole or not at all. Refused unless the store holds nothing but what bmid makes at its first start:
    /// the default project and datastore, and what it noted of that. A pipe is first copied into the state folder, because
    /// it is read twice.
    pub fn restore(&self, input: &mut dyn Read) -> Result<u64, Fault> {
        self.spool(input).and_then(|file| self.take_in(&file, 0)).map_err(tried)
    }

    /// The same out of a file, from where it stands; one that cannot be read twice is copied as a pipe is.
    pub fn restore_file(&self, mut file: &File) -> Result<u64, Fault> {
        match file.stream_position() {
            Ok(start) if file.metadata().is_ok_and(|m| m.is_file()) => self.take_in(file, start).map_err(tried),
            _ => self.restore(&mut file),
        }
    }

    /// How many records [`Store::restore_file`] would take in, or why it would refuse them. Changes nothing.
    pub fn survey_file(&self, mut file: &File) -> Result<u64, Fault> {
        let surveyed = match file.stream_position() {
            Ok(start) if file.metadata().is_ok_and(|m| m.is_file()) => survey(file, start),
            _ => self.spool(&mut file).and_then(|copy| survey(&copy, 0)),
        };
        let empty = || {
            let inner = &self.inner;
            inner.core.commits.alive()?;
            let (meta, ahead) = (inner.meta(), inner.core.look());
            refuse_unless_empty(&Tx::new(Live::new(&inner.core.db, &ahead), &meta))
        };
        surveyed.and_then(|(_, count)| empty().map(|()| count)).map_err(tried)
    }

    /// A copy that has no name, and is gone with what is given back.
    fn spool(&self, input: &mut dyn Read) -> Result<File, Fault> {
        let path = self.dir().join("restore.tmp");
        let failed = |e: io::Error| raw::outside("copy the dump into the state folder", &e.into());
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = how.open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        io::copy(input, &mut file).map_err(failed)?;
        Ok(file)
    }

    fn take_in(&self, file: &File, start: u64) -> Result<u64, Fault> {
        let (meta, count) = survey(file, start)?;
        let inner = &self.inner;
        inner.core.commits.alive()?;
        let shut = inner.core.commits.shut()?;
        inner.wait_for_readers();
        let old = inner.meta();
        let meta = Meta { schema: tables::SCHEMA, release: old.release.clone(), ..meta };
        let room = inner.make_empty();
        if let Err(fault) = room.and_then(|()| inner.fill(file, start, &meta)) {
            return Err(inner.put_back().map_or_else(|half| inner.end_half(half), |()| fault));
        }
        *inner.meta.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(meta);
        drop(shut);
        Ok(count)
    }

    /// Puts back what an interrupted restore had displaced; says whether there was such a thing.
    pub(super) fn undo_restore(&self) -> Result<bool, Fault> {
        let found: Option<Displaced> = self.look(|raw| raw::stored(raw, &tables::displaced()))?;
        if found.is_none() {
            return Ok(false);
        }
        self.inner.put_back()?;
        Ok(true)
    }
}

impl Inner {
    /// Displaces what is there, if that is next to nothing.
    pub(super) fn make_empty(&self) -> Result<(), Fault> {
        let displaced = self.transact(Who::Restore, |tx| {
            refuse_unless_empty(tx)?;
            let displaced = displace(tx)?;
            tx.put_stored(tables::displaced(), &displaced)
        });
        displaced?.1.wait()?;
        self.clear()
    }

    /// Takes everything away but the store's own record and what is displaced.
    fn clear(&self) -> Result<(), Fault> {
        loop {
            let (gone, ticket) = self.transact(Who::Restore, |tx| {
                let mut keys = Vec::new();
                tx.scan(&[], &mut |key, _| {
                    if tables::is_content(key) {
                        keys.push(key.to_vec());
                    }
                    Ok(keys.len() < LINES && key.first() < Some(&tables::CHUNK))
                })?;
                tx.end();
                keys.iter().try_for_each(|key| tx.drop_value(key))?;
                Ok(keys.len())
            })?;
            ticket.wait()?;
            if gone == 0 {
                return Ok(());
            }
        }
    }

    /// Everything in the dump, piece by piece; the last one makes it the store's.
    fn fill(&self, file: &File, start: u64, meta: &Meta) -> Result<(), Fault> {
        let mut lines = Lines::new(file, start)?;
        lines.meta()?;
        let mut ended = false;
        while !ended {
            let ((), ticket) = self.transact(Who::Restore, |tx| {
                let (mut count, mut bytes) = (0, 0);
                while count < LINES && bytes < BYTES {
                    let Some(item) = lines.item()? else {
                        ended = true;
                        tx.put_stored(vec![tables::META], meta)?;
                        return tx.drop_value(&tables::displaced());
                    };
                    put(tx, item)?;
                    (count, bytes) = (count + 1, bytes + lines.length);
                }
                Ok(())
            })?;
            ticket.wait()?;
            // What is ahead of sled is in memory.
            self.core.catch_up();
        }
        Ok(())
    }

    /// Makes it as it was before.
    fn put_back(&self) -> Result<(), Fault> {
        let mut displaced = None;
        let read = self.transact(Who::Restore, |tx| {
            displaced = raw::stored::<Displaced>(tx, &tables::displaced())?;
            Ok(())
        });
        read?.1.wait()?;
        // It failed before anything was displaced.
        let Some(displaced) = displaced else { return Ok(()) };
        self.clear()?;
        let back = self.transact(Who::Restore, |tx| {
            tx.end();
            for (key, value) in displaced.entries {
                tx.put_value(key, value)?;
            }
            tx.drop_value(&tables::displaced())
        });
        back?.1.wait()
    }

    /// Half a dump is in it, and it cannot be taken out again now: the next start does.
    fn end_half(&self, fault: Fault) -> Fault {
        let fault = fault.fix("start bmid again: it puts back what was there before the restore");
        self.core.commits.fail(fault.clone());
        fault
    }
}

/// Reads a dump to its end and keeps nothing of it but its first line and how many records it holds.
fn survey(file: &File, start: u64) -> Result<(Meta, u64), Fault> {
    let mut lines = Lines::new(file, start)?;
    let meta = lines.meta()?;
    let mut count = 0;
    while lines.item()?.is_some() {
        count += 1;
    }
    Ok((meta, count))
}

impl<'a> Lines<'a> {
    fn new(mut file: &'a File, start: u64) -> Result<Lines<'a>, Fault> {
        file.seek(SeekFrom::Start(start)).map_err(|e| raw::outside("read the dump", &e.into()))?;
        Ok(Lines { input: BufReader::with_capacity(1 << 16, file), number: 0, length: 0 })
    }

    /// The first line: the record of the store that was dumped.
    fn meta(&mut self) -> Result<Meta, Fault> {
        let first = self.next()?.ok_or_else(|| bad(1, "the dump is empty"))?;
        if first.table != Meta::WHAT {
            return Err(bad(1, "it is not the record of a store, so this is no dump"));
        }
        let meta: Meta = stored_row(first).map_err(|e| bad(1, e))?;
        if meta.schema > tables::SCHEMA {
            let (release, schema) = (&meta.release, meta.schema);
            let why = format!("release {release} wrote it with schema {schema}, this one knows {}", tables::SCHEMA);
            return Err(bad(1, why));
        }
        Ok(meta)
    }

    /// The next record; none behind the last one, if they are all there.
    fn item(&mut self) -> Result<Option<Item>, Fault> {
        let Some(line) = self.next()? else { return Err(bad(self.number, "the dump ends before its last line")) };
        if line.table != "end" {
            return item(line).map(Some).map_err(|e| bad(self.number, e));
        }
        let end: End = serde_json::from_value(line.row).map_err(|e| bad(self.number, e))?;
        if end.lines != self.number - 1 {
            let why = format!("{} lines were written and {} are here", end.lines, self.number - 1);
            return Err(bad(self.number, why));
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Line>, Fault> {
        self.number += 1;
        let mut bytes = Vec::new();
        let mut limited = (&mut self.input).take(LINE_LIMIT);
        limited.read_until(b'\n', &mut bytes).map_err(|e| raw::outside("read the dump", &e.into()))?;
        self.length = bytes.len();
        if bytes.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|e| bad(self.number, e))
    }
}

fn tried(fault: Fault) -> Fault {
    fault.trying("restore the dump")
}

fn bad(number: u64, why: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Corrupt, format!("line {number}: {why}"))
        .fix("nothing was restored; take another dump, or one that is whole")
}

fn stored_row<T: Stored>(line: Line) -> Result<T, String> {
    let row = migrations::lift_json(migrations::JSON, T::WHAT, T::TABLE, line.version, T::VERSION, line.row);
    serde_json::from_value(row.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

fn item(line: Line) -> Result<Item, String> {
    Ok(match line.table.as_str() {
        Intent::WHAT => Item::Intent(stored_row(line)?),
        StoredPart::WHAT => Item::Part(stored_row::<DumpedPart>(line)?.open()?),
        Answer::WHAT => Item::Answer(stored_row(line)?),
        Event::WHAT => Item::Event(stored_row(line)?),
        _ => Item::Row(line.open()?),
    })
}

fn put(tx: &mut Tx<'_>, item: Item) -> Result<(), Fault> {
    match item {
        Item::Row(row) => tx.apply(&Change::Put(row)),
        Item::Intent(i) => tx.put_intent(&i),
        Item::Part(p) => tx.put_part(&p),
        Item::Answer(a) => tx.put_answer(&a),
        Item::Event(e) => tx.put_event(&e),
    }
}

/// Only what bmid itself makes at its first start may be displaced; with all other tables empty nothing stands on it.
fn refuse_unless_empty(tx: &Tx<'_>) -> Result<(), Fault> {
    for table in Table::ALL {
        let mut ids = Vec::new();
        tx.scan(&[table as u8], &mut |key, _| {
            ids.push(raw::id_of(key)?);
            Ok(ids.len() < 3)
        })?;
        for id in ids {
            match tx.row(table, id)? {
                Some(Row::Project(p)) if p.name == Owner::default_project() => {}
                Some(Row::Server(s)) if s.kind == ServerKind::Datastore && s.name.as_str() == "default" => {}
                _ => return Err(not_empty(table.as_str())),
            }
        }
    }
    tx.scan(&[tables::INTENT], &mut |_, _| Err(not_empty("operation")))
}

fn not_empty(what: &str) -> Fault {
    Fault::conflict(format!("the store holds a {what} already; a dump goes only into an empty store"))
        .fix("stop bmid, move the folder db in the state folder away, start it and restore again")
}

/// All that is there but the oldest of a long trail.
fn displace(tx: &Tx<'_>) -> Result<Displaced, Fault> {
    let (mut entries, mut trail, mut bytes) = (Vec::new(), std::collections::VecDeque::new(), 0);
    tx.scan(&[], &mut |key, head| {
        let table = key.first().copied().unwrap_or_default();
        if !tables::is_content(key) {
            return Ok(table < tables::CHUNK);
        }
        let entry = (key.to_vec(), raw::whole(tx, key, head.clone())?.to_vec());
        if !matches!(table, tables::ANSWER | tables::EVENT) {
            entries.push(entry);
            return Ok(true);
        }
        bytes += entry.1.len();
        trail.push_back(entry);
        while bytes > TRAIL {
            bytes -= trail.pop_front().map_or(bytes, |(_, value)| value.len());
        }
        Ok(true)
    })?;
    entries.extend(trail);
    Ok(Displaced { entries })
}
