//! What is committed and not in sled yet: the changes since the log's last turn, and those of the turn before while they are
//! being fed to sled. Readers see them over sled; nothing here is durable, the log is.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use sled::IVec;

use super::log::Changes;

/// An entry of a layer: a key with its value, or that it is gone.
pub(super) type Entry = Result<(IVec, Option<IVec>), sled::Error>;

/// The layers over sled.
#[derive(Default)]
pub(super) struct Ahead {
    /// Where commits go.
    pub(super) young: Changes,
    /// What is on its way into sled. It never changes: what sled has of it already, it has with the same values.
    pub(super) old: Arc<Changes>,
}

impl Ahead {
    /// A key's value, or that it is gone; none where sled has to say.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<IVec>> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }

    /// A commit's changes, newest of all.
    pub(super) fn put(&mut self, changes: Changes) {
        if self.young.is_empty() {
            self.young = changes;
        } else {
            self.young.extend(changes);
        }
    }
}

/// Where a look begins and ends.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) from: Bound<&'a [u8]>,
    pub(super) to: Bound<&'a [u8]>,
    pub(super) backwards: bool,
}

/// The entries of a map in a span.
pub(super) fn entries<'a>(map: &'a Changes, span: Span<'_>) -> Box<dyn Iterator<Item = Entry> + 'a> {
    let range = map.range::<[u8], _>((span.from, span.to));
    let own = |(k, v): (&IVec, &Option<IVec>)| Ok((k.clone(), v.clone()));
    if span.backwards { Box::new(range.rev().map(own)) } else { Box::new(range.map(own)) }
}

/// sled's entries in a span.
pub(super) fn beneath(tree: &sled::Tree, span: Span<'_>) -> Box<dyn Iterator<Item = Entry>> {
    let range = tree.range::<&[u8], _>((span.from, span.to));
    let own = |entry: Result<(IVec, IVec), sled::Error>| entry.map(|(k, v)| (k, Some(v)));
    if span.backwards { Box::new(range.rev().map(own)) } else { Box::new(range.map(own)) }
}

/// Two layers as one; where both have a key, the upper one says.
pub(super) struct Over<A: Iterator<Item = Entry>, B: Iterator<Item = Entry>> {
    upper: Peekable<A>,
    lower: Peekable<B>,
    backwards: bool,
}

/// Lays `upper` over `lower`, both in the same order.
pub(super) fn over<A, B>(upper: A, lower: B, backwards: bool) -> Over<A, B>
where
    A: Iterator<Item = Entry>,
    B: Iterator<Item = Entry>,
{
    Over { upper: upper.peekable(), lower: lower.peekable(), backwards }
}

impl<A: Iterator<Item = Entry>, B: Iterator<Item = Entry>> Iterator for Over<A, B> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let order = match (self.upper.peek(), self.lower.peek()) {
            (_, None) | (Some(Err(_)), _) => return self.upper.next(),
            (None, _) | (_, Some(Err(_))) => return self.lower.next(),
            (Some(Ok((a, _))), Some(Ok((b, _)))) => a.cmp(b),
        };
        match (order, self.backwards) {
            (Ordering::Equal, _) => {
                self.lower.next();
                self.upper.next()
            }
            (Ordering::Less, false) | (Ordering::Greater, true) => self.upper.next(),
            _ => self.lower.next(),
        }
    }
}

/// The first key behind all that begin with `prefix`; none if there is none.
pub(super) fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}
