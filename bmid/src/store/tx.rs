//! A write being put together: an overlay over what is committed that later becomes one commit.
//!
//! Indexes and usage change here, in the same overlay as the row they belong to, and nowhere else. Nothing here touches what
//! is committed: a transaction that ends with a fault leaves no trace.

use bmi::model::{
    Answer, Change, Event, Fault, Id, Index, IndexKey, Intent, Kind, Meta, Owner, Part, Row, Table, Usage, View,
};
use bmi::rules::usage as counting;
use sled::IVec;

use super::codec::{self, Stored, StoredPart};
use super::log::Changes;
use super::raw::{self, Live, Raw, Visit};
use super::tables;

/// The single writer's transaction. Reads see its own changes.
pub struct Tx<'a> {
    live: Live<'a>,
    meta: &'a Meta,
    pending: Changes,
    ends: bool,
}

impl Raw for Tx<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        match self.pending.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.live.get(key),
        }
    }

    /// Lays what is pending over what is committed.
    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), Fault> {
        for entry in self.live.under_pending(&self.pending, prefix) {
            let (key, value) = entry?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl View for Tx<'_> {
    fn row(&self, table: Table, id: Id) -> Result<Option<Row>, Fault> {
        raw::row(self, table, id)
    }
    fn find(&self, index: Index, key: &[u8]) -> Result<Option<Id>, Fault> {
        raw::find(self, index, key)
    }
    fn ids(&self, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault> {
        raw::ids(self, index, key)
    }
    fn usage(&self, owner: &Owner) -> Result<Usage, Fault> {
        raw::usage(self, owner)
    }
    fn meta(&self) -> &Meta {
        self.meta
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(live: Live<'a>, meta: &'a Meta) -> Tx<'a> {
        Tx { live, meta, pending: Changes::new(), ends: false }
    }

    /// The changes, and whether they only bring something begun to its end: such a write may use the reserve of a full disk.
    pub(super) fn into_changes(self) -> (Changes, bool) {
        (self.pending, self.ends)
    }

    /// Says that they do.
    pub(super) fn end(&mut self) {
        self.ends = true;
    }

    /// Puts a value, in pieces if it is long, in place of what was there.
    pub(super) fn put_value(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        self.drop_value(&key)?;
        if value.len() <= tables::PIECE {
            self.pending.insert(key.into(), Some(value.into()));
            return Ok(());
        }
        let count = value.len().div_ceil(tables::PIECE);
        let count = u16::try_from(count).map_err(|_| Fault::new(Kind::Limit, "a row is too long to be stored"))?;
        for (n, piece) in (0..count).zip(value.chunks(tables::PIECE)) {
            self.pending.insert(tables::chunk(&key, n).into(), Some(piece.into()));
        }
        let [a, b] = count.to_be_bytes();
        self.pending.insert(key.into(), Some(IVec::from(&[tables::SPLIT, a, b])));
        Ok(())
    }

    /// Takes a value away, with its pieces.
    pub(super) fn drop_value(&mut self, key: &[u8]) -> Result<(), Fault> {
        let Some(head) = self.get(key)? else { return Ok(()) };
        for n in 0..raw::pieces(&head).unwrap_or(0) {
            self.pending.insert(tables::chunk(key, n).into(), None);
        }
        self.pending.insert(key.into(), None);
        Ok(())
    }

    pub(super) fn put_stored<T: Stored>(&mut self, key: Vec<u8>, value: &T) -> Result<(), Fault> {
        let bytes = codec::encode(value)?;
        self.put_value(key, bytes)
    }

    /// Makes a change to one row, with its index entries and its owner's usage. A key that another live row holds is
    /// refused with [`Kind::Duplicate`]; changes take effect one after another, so free a key before it is taken again.
    /// Deleting what is not there is fine.
    pub fn apply(&mut self, change: &Change) -> Result<(), Fault> {
        let (table, id) = change.key();
        let old = self.row(table, id)?;
        let new = match change {
            Change::Put(row) => Some(row),
            Change::Delete(..) => None,
        };
        if old.as_ref() == new {
            return Ok(());
        }
        self.reindex(id, old.as_ref(), new)?;
        self.recount(old.as_ref(), new)?;
        match new {
            Some(row) => self.put_value(tables::row(table, id), codec::encode_row(row)?),
            None => self.drop_value(&tables::row(table, id)),
        }
    }

    fn reindex(&mut self, id: Id, old: Option<&Row>, new: Option<&Row>) -> Result<(), Fault> {
        let was = old.map(Row::indexes).unwrap_or_default();
        let shall = new.map(Row::indexes).unwrap_or_default();
        for entry in was.iter().filter(|e| !shall.contains(e)) {
            self.pending.insert(tables::entry(entry, id).0.into(), None);
        }
        for entry in shall.iter().filter(|e| !was.contains(e)) {
            if entry.unique
                && let Some(holder) = self.find(entry.index, &entry.key)?
                && holder != id
            {
                return Err(duplicate(entry, new, holder));
            }
            let (key, value) = tables::entry(entry, id);
            self.pending.insert(key.into(), Some(value.into()));
        }
        Ok(())
    }

    fn recount(&mut self, old: Option<&Row>, new: Option<&Row>) -> Result<(), Fault> {
        let (was, is) = (old.and_then(counting::count), new.and_then(counting::count));
        if was == is {
            return Ok(());
        }
        if let Some((owner, less)) = was {
            let left = counting::minus(&self.usage(&owner)?, &less);
            self.put_usage(&owner, &left)?;
        }
        if let Some((owner, more)) = is {
            let sum = counting::plus(&self.usage(&owner)?, &more);
            self.put_usage(&owner, &sum)?;
        }
        Ok(())
    }

    fn put_usage(&mut self, owner: &Owner, usage: &Usage) -> Result<(), Fault> {
        let key = tables::usage(owner);
        if *usage == Usage::default() { self.drop_value(&key) } else { self.put_stored(key, usage) }
    }

    /// The row that a change would replace or delete.
    pub fn before(&self, change: &Change) -> Result<Option<Row>, Fault> {
        let (table, id) = change.key();
        self.row(table, id)
    }

    /// Puts an intent, new or changed.
    pub fn put_intent(&mut self, intent: &Intent) -> Result<(), Fault> {
        self.put_stored(tables::intent(intent.id), intent)
    }

    /// Puts one part of an intent, new or changed.
    pub fn put_part(&mut self, part: &Part) -> Result<(), Fault> {
        let stored = StoredPart::new(part)?;
        self.put_stored(tables::part(part.intent, part.index), &stored)
    }

    /// Takes an intent away, with its parts. What is gone already is fine.
    pub fn drop_intent(&mut self, id: Id) -> Result<(), Fault> {
        self.ends = true;
        let mut keys = vec![tables::intent(id)];
        self.scan(&tables::parts(id), &mut |key, _| {
            keys.push(key.to_vec());
            Ok(true)
        })?;
        keys.iter().try_for_each(|key| self.drop_value(key))
    }

    /// Puts an ended operation's answer.
    pub fn put_answer(&mut self, answer: &Answer) -> Result<(), Fault> {
        self.put_stored(tables::answer(answer.id), answer)
    }

    /// Forgets an ended operation, so that its id may be used again. What is gone already is fine.
    pub fn drop_answer(&mut self, id: Id) -> Result<(), Fault> {
        self.drop_value(&tables::answer(id))
    }

    /// Adds an event.
    pub fn put_event(&mut self, event: &Event) -> Result<(), Fault> {
        self.put_stored(tables::event(event.at, event.id), event)
    }

    /// The open intent of that id.
    pub fn intent(&self, id: Id) -> Result<Option<Intent>, Fault> {
        raw::stored(self, &tables::intent(id))
    }

    /// All open intents, in id order.
    pub fn intents(&self) -> Result<Vec<Intent>, Fault> {
        raw::intents(self)
    }

    /// All parts of an intent, in order.
    pub fn parts(&self, intent: Id) -> Result<Vec<Part>, Fault> {
        raw::parts(self, intent)
    }

    /// One part of an intent.
    pub fn part(&self, intent: Id, index: u32) -> Result<Option<Part>, Fault> {
        raw::part(self, intent, index)
    }

    /// The answer of an ended operation.
    pub fn answer(&self, id: Id) -> Result<Option<Answer>, Fault> {
        raw::stored(self, &tables::answer(id))
    }
}

fn duplicate(entry: &IndexKey, new: Option<&Row>, holder: Id) -> Fault {
    let noun = new.map_or("row", |r| r.table().as_str());
    let (words, index) = tables::index_words(entry.index);
    Fault::new(Kind::Duplicate, format!("there is a {noun} with that {words} already ({holder}, index {index})"))
        .fix(format!("take another {words}, or remove that {noun} first"))
}
