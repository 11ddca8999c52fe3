//! Looking for what should be impossible: rows that do not decode, references that lead nowhere, index entries without
//! rows and rows without entries, counters that drifted, pieces of nothing. It reports; it repairs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bmi::model::{Answer, Event, Fault, Id, Intent, Owner, Part, Row, Table, Usage};
use bmi::rules::usage as counting;
use sled::IVec;

use super::ahead::Span;
use super::codec::{self, DecodeError, Stored, StoredPart};
use super::raw::{self, Live};
use super::{Store, tables};

/// An owner whose counters are not what its rows say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDrift {
    /// Whose.
    pub owner: Owner,
    /// What the counters say.
    pub stored: Usage,
    /// What a recount says.
    pub counted: Usage,
}

/// Everything but the events, as raw entries, taken in one look.
type Entries = BTreeMap<IVec, IVec>;

impl Store {
    /// Everything that is wrong with the store, for people; empty when all is well.
    pub fn check(&self) -> Result<Vec<String>, Fault> {
        let entries = self.look(collect)?;
        let mut found = Findings { entries, ..Findings::default() };
        found.read_rows();
        found.indexes();
        found.usage();
        found.journal();
        found.references();
        found.pieces();
        found.events(self)?;
        Ok(found.problems)
    }

    /// Recounts every owner's rows; gives those whose counters say otherwise.
    pub fn verify_usage(&self) -> Result<Vec<UsageDrift>, Fault> {
        let entries = self.look(collect)?;
        let mut found = Findings { entries, ..Findings::default() };
        found.read_rows();
        Ok(found.drift())
    }
}

fn collect(raw: &Live<'_>) -> Result<Entries, Fault> {
    let (events, after) = ([tables::EVENT], [tables::EVENT + 1]);
    let span = |from, to| Span { from, to, backwards: false };
    let before = raw.range(span(Bound::Unbounded, Bound::Excluded(&events)));
    let after = raw.range(span(Bound::Included(&after), Bound::Unbounded));
    let all =
        before.chain(after).filter(|e| !matches!(e, Ok((k, _)) if k.starts_with(&[tables::CHUNK, tables::EVENT])));
    all.collect()
}

#[derive(Default)]
struct Findings {
    entries: Entries,
    rows: BTreeMap<(Table, Id), Row>,
    /// Rows that are there and do not decode: a reference to them is not broken too.
    unread: BTreeSet<(Table, Id)>,
    intents: BTreeMap<Id, Intent>,
    counters: BTreeMap<Owner, Usage>,
    problems: Vec<String>,
}

impl Findings {
    fn say(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// The whole value under a key of the collected entries.
    fn whole(&self, key: &[u8], head: &IVec) -> Result<Vec<u8>, String> {
        let Some(count) = raw::pieces(head) else { return Ok(head.to_vec()) };
        let mut out = Vec::new();
        for n in 0..count {
            let piece = self.entries.get(tables::chunk(key, n).as_slice());
            out.extend_from_slice(piece.ok_or_else(|| format!("piece {n} of {count} is missing"))?);
        }
        Ok(out)
    }

    fn under(&self, table: u8) -> Vec<(IVec, IVec)> {
        let range = self.entries.range(IVec::from(&[table])..IVec::from(&[table + 1]));
        range.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// All records of a table that decode, with their keys; what does not is a finding.
    fn decoded<T: Stored>(&mut self) -> Vec<(IVec, T)> {
        let mut out = Vec::new();
        for (key, head) in self.under(T::TABLE) {
            let value = self.whole(&key, &head);
            match value.and_then(|v| codec::decode::<T>(&v).map_err(|e| e.to_string())) {
                Ok(record) => out.push((key, record)),
                Err(why) => self.say(format!("{} {}: {why}", T::WHAT, hex(&key[1..]))),
            }
        }
        out
    }

    fn read_rows(&mut self) {
        for table in Table::ALL {
            for (key, head) in self.under(table as u8) {
                let name = table.as_str();
                let Ok(id) = <[u8; 16]>::try_from(&key[1..]).map(Id) else {
                    self.say(format!("{name}: the key {} is no id", hex(&key[1..])));
                    continue;
                };
                let value = self.whole(&key, &head);
                match value.and_then(|v| codec::decode_row(table, &v).map_err(|e: DecodeError| e.to_string())) {
                    Ok(row) if row.id() == id => {
                        self.rows.insert((table, id), row);
                    }
                    Ok(row) => self.say(format!("{name} {id}: its row says it is {}", row.id())),
                    Err(why) => {
                        self.unread.insert((table, id));
                        self.say(format!("{name} {id}: {why}"));
                    }
                }
            }
        }
        for (key, usage) in self.decoded::<Usage>() {
            match std::str::from_utf8(&key[1..]).ok().and_then(|o| o.parse::<Owner>().ok()) {
                Some(owner) => {
                    self.counters.insert(owner, usage);
                }
                None => self.say(format!("usage: the key {} is no project", hex(&key[1..]))),
            }
        }
    }

    fn indexes(&mut self) {
        let mut wanted: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut problems = Vec::new();
        for ((table, id), row) in &self.rows {
            for entry in row.indexes() {
                let (key, value) = tables::entry(&entry, *id);
                if let Some(other) = wanted.insert(key, value).filter(|v| **v != id.0 && entry.unique) {
                    let (words, _) = tables::index_words(entry.index);
                    let other = raw::id_of(&other).map(|i| i.to_string()).unwrap_or_default();
                    problems.push(format!("{} {id}: it has the {words} of {other}", table.as_str()));
                }
            }
        }
        let mut present = self.under(tables::UNIQUE);
        present.extend(self.under(tables::LISTING));
        for (key, value) in &present {
            if wanted.get(key.as_ref()).is_none_or(|w| w.as_slice() != value.as_ref()) {
                problems.push(format!("index entry {}: no row wants it", hex(key)));
            }
        }
        for key in wanted.keys().filter(|k| !self.entries.contains_key(k.as_slice())) {
            problems.push(format!("index entry {}: it is missing", hex(key)));
        }
        self.problems.extend(problems);
    }

    fn drift(&self) -> Vec<UsageDrift> {
        let mut counted: BTreeMap<Owner, Usage> = BTreeMap::new();
        for (owner, one) in self.rows.values().filter_map(counting::count) {
            let sum = counted.entry(owner).or_default();
            *sum = counting::plus(sum, &one);
        }
        let owners: BTreeSet<&Owner> = self.counters.keys().chain(counted.keys()).collect();
        let one = |owner: &&Owner| UsageDrift {
            owner: (*owner).clone(),
            stored: self.counters.get(*owner).cloned().unwrap_or_default(),
            counted: counted.get(*owner).cloned().unwrap_or_default(),
        };
        owners.iter().map(one).filter(|d| d.stored != d.counted).collect()
    }

    fn usage(&mut self) {
        for d in self.drift() {
            self.say(format!("usage of {}: the counters say {:?}, the rows {:?}", d.owner, d.stored, d.counted));
        }
    }

    fn journal(&mut self) {
        for (key, intent) in self.decoded::<Intent>() {
            if key[1..] != intent.id.0 {
                self.say(format!("intent {}: its key says {}", intent.id, hex(&key[1..])));
            }
            self.intents.insert(intent.id, intent);
        }
        let mut indexes: BTreeMap<Id, u32> = BTreeMap::new();
        for (_, stored) in self.decoded::<StoredPart>() {
            match stored.open() {
                Ok(Part { intent, index, .. }) if self.intents.get(&intent).is_none_or(|i| index >= i.parts) => {
                    self.say(format!("part {index} of intent {intent}: there is no such part"));
                }
                Ok(part) => *indexes.entry(part.intent).or_default() += 1,
                Err(e) => self.say(format!("a part of an intent: {e}")),
            }
        }
        for (id, wanted) in self.intents.iter().map(|(id, i)| (*id, i.parts)).collect::<Vec<_>>() {
            let found = indexes.get(&id).copied().unwrap_or(0);
            if found != wanted {
                self.say(format!("intent {id}: {found} of its {wanted} parts are there"));
            }
        }
        self.decoded::<Answer>();
    }

    fn references(&mut self) {
        let engine = self.entries.get(&[tables::META][..]).and_then(|m| codec::decode::<bmi::model::Meta>(m).ok());
        if engine.is_none() {
            self.say("the record of the store itself is missing or damaged".to_owned());
        }
        let engine = engine.map(|m| m.engine);
        let mut problems = Vec::new();
        for ((table, id), row) in self.rows.iter().filter(|(_, row)| !row.indexes().is_empty()) {
            let name = table.as_str();
            for (field, to, target) in points_to(row) {
                let there = self.rows.contains_key(&(to, target)) || self.unread.contains(&(to, target));
                // This engine itself needs no row of a server.
                let ourselves = to == Table::Server && engine == Some(target);
                if !there && !ourselves {
                    problems.push(format!("{name} {id}: its {field} {target} does not exist"));
                }
            }
            if let Some(operation) = held_by(row).filter(|o| !self.intents.contains_key(o)) {
                problems.push(format!("{name} {id}: the operation {operation} that holds it is not open"));
            }
        }
        self.problems.extend(problems);
    }

    /// Pieces without a head, and tables nobody knows.
    fn pieces(&mut self) {
        let known = |t: u8| {
            Table::ALL.iter().any(|k| *k as u8 == t)
                || matches!(t, tables::META | tables::USAGE..=tables::REACHED | tables::UNIQUE | tables::LISTING)
        };
        let mut problems = Vec::new();
        for key in self.entries.keys() {
            match key.split_first() {
                Some((&tables::CHUNK, rest)) if rest.len() > 2 => {
                    let (head, number) = rest.split_at(rest.len() - 2);
                    let count = self.entries.get(head).and_then(|v| raw::pieces(v)).unwrap_or(0);
                    if number >= count.to_be_bytes().as_slice() {
                        problems.push(format!("a piece of {}: there is no such row", hex(head)));
                    }
                }
                Some((&t, _)) if known(t) => {}
                _ => problems.push(format!("the key {}: no table has such keys", hex(key))),
            }
        }
        self.problems.extend(problems);
    }

    /// The trail is long and nothing refers to it, so it is read piecemeal, outside the look.
    fn events(&mut self, store: &Store) -> Result<(), Fault> {
        let end = Bound::Excluded(IVec::from(&[tables::EVENT + 1]));
        store.trail(end, |key, value| {
            match codec::decode::<Event>(value) {
                Err(e) => self.say(format!("event {}: {e}", hex(&key[1..]))),
                Ok(e) if tables::event(e.at, e.id) != key => {
                    self.say(format!("event {}: its key says otherwise", e.id))
                }
                Ok(_) => {}
            }
            Ok(())
        })
    }
}

/// Which rows a live row points to, and through which field.
fn points_to(row: &Row) -> Vec<(&'static str, Table, Id)> {
    let mut out = match row {
        Row::Project(_) | Row::Server(_) | Row::Network(_) | Row::Vlan(_) => vec![],
        Row::EngineNetwork(r) => vec![("network", Table::Network, r.network), ("engine", Table::Server, r.engine)],
        // The node a snapshot image was taken from may be gone: it is history.
        Row::Image(r) => vec![("datastore", Table::Server, r.datastore)],
        Row::Volume(r) => vec![("datastore", Table::Server, r.datastore)],
        Row::Snapshot(r) => vec![("datastore", Table::Server, r.datastore), ("volume", Table::Volume, r.volume)],
        Row::Node(r) => vec![("network", Table::Network, r.network)],
        Row::Attachment(r) => vec![("node", Table::Node, r.node), ("volume", Table::Volume, r.volume)],
        Row::Target(r) => vec![("node", Table::Node, r.node), ("network", Table::Network, r.network)],
    };
    match row {
        Row::Volume(r) => out.extend(r.image.map(|i| ("image", Table::Image, i))),
        Row::Snapshot(r) => {
            out.extend(r.image.map(|i| ("image", Table::Image, i)));
            out.extend(r.node.map(|n| ("node", Table::Node, n)));
        }
        _ => {}
    }
    out
}

/// The operation that holds a row.
fn held_by(row: &Row) -> Option<Id> {
    match row {
        Row::Server(r) => r.operation,
        Row::Network(r) => r.operation,
        Row::Image(r) => r.operation,
        Row::Volume(r) => r.operation,
        Row::Snapshot(r) => r.operation,
        Row::Node(r) => r.operation,
        Row::Project(_) | Row::EngineNetwork(_) | Row::Attachment(_) | Row::Target(_) | Row::Vlan(_) => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
