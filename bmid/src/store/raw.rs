//! Reading records out of keys and values: the same functions over the live tree and over a transaction's overlay. Nothing
//! here may write.

use std::ops::Bound;

use bmi::model::{Answer, Fault, Id, Index, Intent, Kind, Meta, Owner, Part, Row, Table, Usage, View};
use sled::IVec;

use super::ahead::{self, Ahead, Span};
use super::codec::{self, Stored, StoredPart};
use super::log::Changes;
use super::tables;

/// What [`Raw::scan`] calls for each entry; false ends the scan.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &IVec) -> Result<bool, Fault>;

/// Keys and values, wherever they are.
pub(super) trait Raw {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault>;
    /// All entries whose key begins with `prefix`, in key order.
    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), Fault>;
}

/// sled's failure as a fault.
pub(super) fn outside(tried: &str, e: &sled::Error) -> Fault {
    let kind = match e {
        sled::Error::Io(io) if is_full(io) => Kind::Full,
        sled::Error::Corruption { .. } => Kind::Corrupt,
        _ => Kind::Unavailable,
    };
    let fix = match kind {
        Kind::Full => "make room on the file system of the state folder; bmid restarts and goes on",
        Kind::Corrupt => "stop bmid and run `bmid --check`",
        _ => "look at the kernel's log for errors of the disk under the state folder",
    };
    Fault::new(kind, e.to_string()).trying(tried).fix(fix)
}

/// Whether an I/O error means that there is no room left.
pub(super) fn is_full(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// What is committed: sled with what is ahead of it. Whoever makes one holds the gate.
pub(super) struct Live<'a> {
    tree: &'a sled::Tree,
    ahead: &'a Ahead,
}

impl<'a> Live<'a> {
    pub(super) fn new(tree: &'a sled::Tree, ahead: &'a Ahead) -> Live<'a> {
        Live { tree, ahead }
    }

    /// The entries from one key on to another, in key order or backwards, with what is gone as such.
    fn entries(&self, span: Span<'_>) -> impl Iterator<Item = ahead::Entry> + use<'a> {
        let (young, old) = (ahead::entries(&self.ahead.young, span), ahead::entries(&self.ahead.old, span));
        let beneath = ahead::beneath(self.tree, span);
        ahead::over(young, ahead::over(old, beneath, span.backwards), span.backwards)
    }

    /// The entries in a span that are there.
    pub(super) fn range(&self, span: Span<'_>) -> impl Iterator<Item = Result<(IVec, IVec), Fault>> + use<'a> {
        there(self.entries(span))
    }

    /// All that begins with `prefix`, as it is with a transaction's changes over it.
    pub(super) fn under_pending<'b>(
        &'b self,
        pending: &'b Changes,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(IVec, IVec), Fault>> + use<'a, 'b> {
        let end = ahead::behind(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let span = Span { from: Bound::Included(prefix), to, backwards: false };
        there(ahead::over(ahead::entries(pending, span), self.entries(span), false))
    }

    /// All that begins with `prefix`.
    pub(super) fn under(
        &self,
        prefix: &[u8],
        backwards: bool,
    ) -> impl Iterator<Item = Result<(IVec, IVec), Fault>> + use<'a> {
        let end = ahead::behind(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.range(Span { from: Bound::Included(prefix), to, backwards })
    }
}

/// The entries that are not gone.
fn there(entries: impl Iterator<Item = ahead::Entry>) -> impl Iterator<Item = Result<(IVec, IVec), Fault>> {
    entries.filter_map(|entry| match entry {
        Ok((key, value)) => value.map(|v| Ok((key, v))),
        Err(e) => Some(Err(outside("read the store", &e))),
    })
}

impl Raw for Live<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        match self.ahead.get(key) {
            Some(known) => Ok(known),
            None => self.tree.get(key).map_err(|e| outside("read the store", &e)),
        }
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), Fault> {
        for entry in self.under(prefix, false) {
            let (key, value) = entry?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

/// The whole value behind a head: itself, or its pieces put together.
pub(super) fn whole(raw: &impl Raw, key: &[u8], head: IVec) -> Result<IVec, Fault> {
    let Some(count) = pieces(&head) else { return Ok(head) };
    let mut out = Vec::with_capacity(usize::from(count) * tables::PIECE);
    for n in 0..count {
        let piece = raw.get(&tables::chunk(key, n))?.ok_or_else(|| {
            Fault::new(Kind::Corrupt, format!("piece {n} of {count} of a long row is missing"))
                .fix("`bmictl state check` lists what is damaged")
        })?;
        out.extend_from_slice(&piece);
    }
    Ok(IVec::from(out))
}

/// How many pieces a head says its value lies in; none if it is the value itself.
pub(super) fn pieces(head: &[u8]) -> Option<u16> {
    match head {
        [tables::SPLIT, a, b] => Some(u16::from_be_bytes([*a, *b])),
        _ => None,
    }
}

/// The whole value of a key.
pub(super) fn value(raw: &impl Raw, key: &[u8]) -> Result<Option<IVec>, Fault> {
    match raw.get(key)? {
        Some(head) => whole(raw, key, head).map(Some),
        None => Ok(None),
    }
}

/// A record that is not an object row.
pub(super) fn stored<T: Stored>(raw: &impl Raw, key: &[u8]) -> Result<Option<T>, Fault> {
    Ok(value(raw, key)?.map(|v| codec::decode(&v)).transpose()?)
}

/// All records under a prefix, in key order.
pub(super) fn all_stored<T: Stored>(raw: &impl Raw, prefix: &[u8]) -> Result<Vec<T>, Fault> {
    let mut out = Vec::new();
    raw.scan(prefix, &mut |key, head| {
        out.push(codec::decode(&whole(raw, key, head.clone())?)?);
        Ok(true)
    })?;
    Ok(out)
}

/// The row of that id.
pub(super) fn row(raw: &impl Raw, table: Table, id: Id) -> Result<Option<Row>, Fault> {
    Ok(value(raw, &tables::row(table, id))?.map(|v| codec::decode_row(table, &v)).transpose()?)
}

/// The id at the end of an index entry.
pub(super) fn id_of(bytes: &[u8]) -> Result<Id, Fault> {
    let tail = bytes.len().checked_sub(16).and_then(|at| bytes.get(at..));
    let id = tail.and_then(|t| <[u8; 16]>::try_from(t).ok());
    id.map(Id).ok_or_else(|| Fault::new(Kind::Corrupt, "an index entry holds no id").fix("run `bmictl state check`"))
}

/// The id under a unique index's key.
pub(super) fn find(raw: &impl Raw, index: Index, key: &[u8]) -> Result<Option<Id>, Fault> {
    raw.get(&tables::unique(index, key))?.map(|v| id_of(&v)).transpose()
}

/// The ids under a listing index's key.
pub(super) fn ids(raw: &impl Raw, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault> {
    let prefix = tables::listing(index, key);
    let mut out = Vec::new();
    raw.scan(&prefix, &mut |key, _| {
        if key.len() == prefix.len() + 16 {
            out.push(id_of(key)?);
        }
        Ok(true)
    })?;
    Ok(out)
}

/// What an owner holds.
pub(super) fn usage(raw: &impl Raw, owner: &Owner) -> Result<Usage, Fault> {
    Ok(stored(raw, &tables::usage(owner))?.unwrap_or_default())
}

/// One part of an intent.
pub(super) fn part(raw: &impl Raw, intent: Id, index: u32) -> Result<Option<Part>, Fault> {
    let found: Option<StoredPart> = stored(raw, &tables::part(intent, index))?;
    Ok(found.map(StoredPart::open).transpose()?)
}

/// All parts of an intent, in order.
pub(super) fn parts(raw: &impl Raw, intent: Id) -> Result<Vec<Part>, Fault> {
    let found: Vec<StoredPart> = all_stored(raw, &tables::parts(intent))?;
    Ok(found.into_iter().map(StoredPart::open).collect::<Result<_, _>>()?)
}

/// A consistent look at the live tree; whoever makes one holds the shared side of the gate.
pub(super) struct Rows<'a> {
    pub(super) raw: Live<'a>,
    pub(super) meta: &'a Meta,
}

impl View for Rows<'_> {
    fn row(&self, table: Table, id: Id) -> Result<Option<Row>, Fault> {
        row(&self.raw, table, id)
    }
    fn find(&self, index: Index, key: &[u8]) -> Result<Option<Id>, Fault> {
        find(&self.raw, index, key)
    }
    fn ids(&self, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault> {
        ids(&self.raw, index, key)
    }
    fn usage(&self, owner: &Owner) -> Result<Usage, Fault> {
        usage(&self.raw, owner)
    }
    fn meta(&self) -> &Meta {
        self.meta
    }
}

/// All intents, in id order.
pub(super) fn intents(raw: &impl Raw) -> Result<Vec<Intent>, Fault> {
    all_stored(raw, &[tables::INTENT])
}

/// All answers, in id order.
pub(super) fn answers(raw: &impl Raw) -> Result<Vec<Answer>, Fault> {
    all_stored(raw, &[tables::ANSWER])
}
