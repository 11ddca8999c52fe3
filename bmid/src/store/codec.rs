//! The one place where records become bytes and bytes records: a version byte, then bincode with fixed-length integers,
//! a length limit and no bytes left over. Nothing here may touch the store.

use std::io::Cursor;

use bincode::Options as _;
use bmi::model::{
    Answer, Attachment, Change, EngineNetwork, Event, Fault, Id, Image, Intent, Kind, Meta, Network, Node, Part,
    Project, Row, Server, Snapshot, Table, Target, Usage, Vlan, Volume,
    journal::{Before, Standing, Subject},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{migrations, tables};

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer release wrote it.
    #[error("a {what} row has version {found}, this release knows versions up to {known}")]
    Newer {
        /// The table.
        what: &'static str,
        /// The row's version.
        found: u8,
        /// The newest version this release knows.
        known: u8,
    },
    /// It claims a version that no release ever wrote.
    #[error("a {what} row has version {found}, which no release wrote")]
    Unknown {
        /// The table.
        what: &'static str,
        /// The row's version.
        found: u8,
    },
    /// The bytes do not have the shape of that version.
    #[error("a {what} row does not decode: {why}")]
    Shape {
        /// The table.
        what: &'static str,
        /// What bincode says.
        why: String,
    },
}

impl From<DecodeError> for Fault {
    fn from(e: DecodeError) -> Fault {
        let fix = match e {
            DecodeError::Newer { .. } => "start the release that wrote it",
            _ => "`bmictl state check` lists what is damaged; a dump in the state folder's dumps/ can be restored",
        };
        Fault::new(Kind::Corrupt, e.to_string()).fix(fix)
    }
}

fn options(limit: usize) -> impl bincode::Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(limit as u64).reject_trailing_bytes()
}

/// A stored shape that is not an object row.
pub(super) trait Stored: Serialize + DeserializeOwned {
    /// The table's name in messages and dumps.
    const WHAT: &'static str;
    /// The table's byte.
    const TABLE: u8;
    /// The version written.
    const VERSION: u8;
}

macro_rules! stored {
    ($($t:ident $what:literal $table:ident $version:ident;)*) => {
        $(impl Stored for $t {
            const WHAT: &'static str = $what;
            const TABLE: u8 = tables::$table;
            const VERSION: u8 = tables::$version;
        })*
    };
}
stored! {
    Meta "meta" META META_VERSION;
    Usage "usage" USAGE USAGE_VERSION;
    Intent "intent" INTENT INTENT_VERSION;
    StoredPart "part" PART PART_VERSION;
    Answer "answer" ANSWER ANSWER_VERSION;
    Event "event" EVENT EVENT_VERSION;
}

fn pack<T: Serialize>(what: &str, version: u8, value: &T, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Cursor::new(vec![version]);
    out.set_position(1);
    options(limit).serialize_into(&mut out, value).map_err(|e| match *e {
        bincode::ErrorKind::SizeLimit => {
            Fault::new(Kind::Limit, format!("a {what} row may have at most {} KiB", limit / 1024))
                .fix("use fewer or shorter values")
        }
        other => Fault::internal(format!("a {what} row cannot be encoded: {other}")),
    })?;
    Ok(out.into_inner())
}

fn unpack<T: DeserializeOwned>(
    what: &'static str,
    table: u8,
    known: u8,
    bytes: &[u8],
    limit: usize,
) -> Result<T, DecodeError> {
    let shape = |why: String| DecodeError::Shape { what, why };
    let (&found, body) = bytes.split_first().ok_or_else(|| shape("it is empty".to_owned()))?;
    if found > known {
        return Err(DecodeError::Newer { what, found, known });
    }
    let lifted = migrations::lift_bytes(migrations::BYTES, what, table, found, known, body)?;
    options(limit).deserialize(&lifted).map_err(|e| shape(e.to_string()))
}

/// Encodes a record of the journal, a usage or the meta record.
pub(super) fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, Fault> {
    pack(T::WHAT, T::VERSION, value, tables::JOURNAL_LIMIT)
}

/// Decodes what [`encode`] made, or what an earlier release did.
pub(super) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, DecodeError> {
    unpack(T::WHAT, T::TABLE, T::VERSION, bytes, tables::JOURNAL_LIMIT)
}

/// Reads an object row's bytes and writes them again: the fuzzer's way in.
pub fn recode_row(table: Table, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let row = decode_row(table, bytes)?;
    encode_row(&row).map_err(|e| DecodeError::Shape { what: table.as_str(), why: e.to_string() })
}

macro_rules! row_codec {
    ($($t:ident)*) => {
        /// Encodes an object row; the table is in its key, not in its bytes.
        pub(super) fn encode_row(row: &Row) -> Result<Vec<u8>, Fault> {
            let (what, version) = (row.table().as_str(), row.version());
            // The version byte counts too.
            match row { $(Row::$t(r) => pack(what, version, r, tables::ROW_LIMIT - 2),)* }
        }
        /// Decodes an object row of `table`.
        pub(super) fn decode_row(table: Table, bytes: &[u8]) -> Result<Row, DecodeError> {
            let (what, known) = (table.as_str(), tables::version(table));
            match table { $(Table::$t => unpack::<$t>(what, table as u8, known, bytes, tables::ROW_LIMIT).map(Row::$t),)* }
        }
        /// An object row as JSON, for dumps.
        pub(super) fn row_to_json(row: &Row) -> serde_json::Result<serde_json::Value> {
            match row { $(Row::$t(r) => serde_json::to_value(r),)* }
        }
        /// An object row out of a dump.
        pub(super) fn row_from_json(table: Table, value: serde_json::Value) -> serde_json::Result<Row> {
            match table { $(Table::$t => serde_json::from_value::<$t>(value).map(Row::$t),)* }
        }
    };
}
row_codec! { Project Server Network EngineNetwork Image Volume Snapshot Node Attachment Target Vlan }

/// A [`Part`] as it is stored. Its rows carry their own versions, so that a part written by an earlier release decodes
/// when only a record's shape has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPart {
    intent: Id,
    index: u32,
    standing: Standing,
    script: Vec<u8>,
    before: Vec<(Table, Id, Option<Vec<u8>>)>,
    commit: Vec<StoredChange>,
    subjects: Vec<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum StoredChange {
    Put(Table, Vec<u8>),
    Delete(Table, Id),
}

impl StoredPart {
    pub(super) fn new(part: &Part) -> Result<StoredPart, Fault> {
        let before = |b: &Before| Ok((b.table, b.id, b.row.as_ref().map(encode_row).transpose()?));
        let change = |c: &Change| {
            Ok(match c {
                Change::Put(row) => StoredChange::Put(row.table(), encode_row(row)?),
                Change::Delete(table, id) => StoredChange::Delete(*table, *id),
            })
        };
        Ok(StoredPart {
            intent: part.intent,
            index: part.index,
            standing: part.standing.clone(),
            script: part.script.clone(),
            before: part.before.iter().map(before).collect::<Result<_, Fault>>()?,
            commit: part.commit.iter().map(change).collect::<Result<_, Fault>>()?,
            subjects: part.subjects.clone(),
        })
    }

    pub(super) fn open(self) -> Result<Part, DecodeError> {
        let before = |(table, id, row): (Table, Id, Option<Vec<u8>>)| {
            Ok(Before { table, id, row: row.map(|r| decode_row(table, &r)).transpose()? })
        };
        let change = |c: StoredChange| {
            Ok(match c {
                StoredChange::Put(table, row) => Change::Put(decode_row(table, &row)?),
                StoredChange::Delete(table, id) => Change::Delete(table, id),
            })
        };
        Ok(Part {
            intent: self.intent,
            index: self.index,
            standing: self.standing,
            script: self.script,
            before: self.before.into_iter().map(before).collect::<Result<_, DecodeError>>()?,
            commit: self.commit.into_iter().map(change).collect::<Result<_, DecodeError>>()?,
            subjects: self.subjects,
        })
    }
}
