//! Reading the journal: open intents, their parts, ended operations, events; and forgetting what is old. Writing it is a
//! transaction's affair, so that a record of an operation and its rows are one write.

use std::ops::Bound;

use bmi::model::{Answer, Event, Fault, Id, Intent, Part, Time};
use sled::IVec;

use super::ahead::Span;
use super::raw::{self, Live, Raw};
use super::{Store, codec, tables};

/// Ended operations are kept this long.
const ANSWERS_SECONDS: u64 = 24 * 3_600;
/// So many events are kept.
const EVENTS_KEPT: usize = 100_000;
/// So many old records go in one write: others may write in between.
const AT_ONCE: usize = 1_000;

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct EventFilter {
    /// Only events after this moment. With it the oldest `limit` of them are given, so that nothing is skipped when one
    /// reads on from the last one seen; without it the newest `limit` of all.
    pub after: Option<Time>,
    /// At most so many; more only if several happened in the very same microsecond as the last one after `after`.
    pub limit: usize,
    /// Order of what is given: newest last, or newest first.
    pub newest_last: bool,
}

/// What [`Store::purge`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Answers older than 24 hours.
    pub answers: usize,
    /// Events beyond the newest 100,000.
    pub events: usize,
}

impl Store {
    /// All open intents, in id order.
    pub fn intents(&self) -> Result<Vec<Intent>, Fault> {
        self.look(|raw| raw::intents(raw))
    }

    /// The open intent of that id.
    pub fn intent(&self, id: Id) -> Result<Option<Intent>, Fault> {
        self.look(|raw| raw::stored(raw, &tables::intent(id)))
    }

    /// All parts of an intent, in order.
    pub fn parts(&self, intent: Id) -> Result<Vec<Part>, Fault> {
        self.look(|raw| raw::parts(raw, intent))
    }

    /// One part of an intent.
    pub fn part(&self, intent: Id, index: u32) -> Result<Option<Part>, Fault> {
        self.look(|raw| raw::part(raw, intent, index))
    }

    /// The answer of an ended operation.
    pub fn answer(&self, id: Id) -> Result<Option<Answer>, Fault> {
        self.look(|raw| raw::stored(raw, &tables::answer(id)))
    }

    /// All answers kept, in id order.
    pub fn answers(&self) -> Result<Vec<Answer>, Fault> {
        self.look(|raw| raw::answers(raw))
    }

    /// Events, as the filter says.
    pub fn events(&self, filter: EventFilter) -> Result<Vec<Event>, Fault> {
        let mut out: Vec<Event> = self.look(|raw| match filter.after {
            Some(at) => oldest_after(raw, at, filter.limit),
            None => newest(raw, filter.limit),
        })?;
        if !filter.newest_last {
            out.reverse();
        }
        Ok(out)
    }

    /// All events as they are stored, up to a key, oldest first: a thousand a look, so that a long trail holds up no writer.
    /// It only grows at its end; what is forgotten meanwhile is not seen.
    pub(super) fn trail(
        &self,
        to: Bound<IVec>,
        mut visit: impl FnMut(&[u8], &IVec) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut from: Bound<IVec> = Bound::Included(IVec::from(&[tables::EVENT]));
        loop {
            let some = self.look(|raw| {
                let span = Span {
                    from: from.as_ref().map(AsRef::as_ref),
                    to: to.as_ref().map(AsRef::as_ref),
                    backwards: false,
                };
                let some = raw.range(span).take(AT_ONCE);
                some.map(|e| e.and_then(|(k, v)| Ok((raw::whole(raw, &k, v)?, k)))).collect::<Result<Vec<_>, _>>()
            })?;
            for (value, key) in &some {
                visit(key, value)?;
            }
            match some.last() {
                Some((_, last)) if some.len() == AT_ONCE => from = Bound::Excluded(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Forgets answers older than 24 hours and all but the newest 100,000 events.
    pub fn purge(&self, now: Time) -> Result<Purged, Fault> {
        self.purge_to(now, EVENTS_KEPT)
    }

    pub(super) fn purge_to(&self, now: Time, events_kept: usize) -> Result<Purged, Fault> {
        let answers = self.look(|raw| {
            let mut old = Vec::new();
            raw.scan(&[tables::ANSWER], &mut |key, head| {
                let answer: Answer = codec::decode(&raw::whole(raw, key, head.clone())?)?;
                if now.seconds_since(answer.ended_at) >= ANSWERS_SECONDS {
                    old.push(key.to_vec());
                }
                Ok(true)
            })?;
            Ok(old)
        })?;
        let events = self.events_beyond(events_kept)?;
        for some in answers.chunks(AT_ONCE).chain(events.chunks(AT_ONCE)) {
            let ((), ticket) = self.write(|tx| some.iter().try_for_each(|key| tx.drop_value(key)))?;
            ticket.wait()?;
        }
        Ok(Purged { answers: answers.len(), events: events.len() })
    }

    /// Keys of all events but the newest `kept`.
    fn events_beyond(&self, kept: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let (mut seen, mut beyond, mut to) = (0, Vec::new(), vec![tables::EVENT + 1]);
        loop {
            // Piece by piece, so that a long trail holds up no writer.
            let some = self.look(|raw| {
                let (from, to) = (Bound::Included(&[tables::EVENT][..]), Bound::Excluded(&to[..]));
                let keys = raw.range(Span { from, to, backwards: true }).take(AT_ONCE);
                keys.map(|e| Ok(e?.0.to_vec())).collect::<Result<Vec<_>, Fault>>()
            })?;
            let Some(oldest) = some.last() else { return Ok(beyond) };
            to.clone_from(oldest);
            let fresh = some.len().min(kept.saturating_sub(seen));
            seen += some.len();
            beyond.extend(some.into_iter().skip(fresh));
        }
    }
}

fn oldest_after(raw: &Live<'_>, at: Time, limit: usize) -> Result<Vec<Event>, Fault> {
    let mut out: Vec<Event> = Vec::new();
    let (from, to) = (tables::events_after(at), [tables::EVENT + 1]);
    for entry in raw.range(Span { from: Bound::Included(&from), to: Bound::Excluded(&to), backwards: false }) {
        let (key, head) = entry?;
        let event: Event = codec::decode(&raw::whole(raw, &key, head)?)?;
        if out.len() >= limit && out.last().is_none_or(|last| last.at != event.at) {
            break;
        }
        out.push(event);
    }
    Ok(out)
}

fn newest(raw: &Live<'_>, limit: usize) -> Result<Vec<Event>, Fault> {
    let mut out = Vec::new();
    for entry in raw.under(&[tables::EVENT], true).take(limit) {
        let (key, head) = entry?;
        out.push(codec::decode(&raw::whole(raw, &key, head)?)?);
    }
    out.reverse();
    Ok(out)
}
