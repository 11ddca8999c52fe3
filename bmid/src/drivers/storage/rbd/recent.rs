//! What was seen or made in a pool a moment ago, over the connection that saw it: a hundred provisions need not ask a hundred times.
//!
//! Each is trusted for a while, and only to go on by: whoever goes on meets Ceph itself in the next call, which fails if it is so no
//! more, or does no harm. Never what is asked in order to say that something is wrong, or gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::Id;
use bmi::step::{Backing, BackingKind};

use super::disks::Source;
use super::pattern::Pattern;

/// How long the datastore counts as this engine's, and a golden image under another's name as being there.
const THERE: Duration = Duration::from_secs(3);
/// How long a golden image of a name of ours does: it goes by a step of ours, or a clone does not find it. One that somebody renames, or puts into
/// the trash, by hand is cloned by its id meanwhile, as its clones go on to read it.
const OURS: Duration = Duration::from_secs(60);
/// How long clones of a golden image are made as librbd made one of them; then it makes one again.
const ALIKE: Duration = Duration::from_secs(600);
/// How long a clone waits for its target to ask for it.
const MADE: Duration = Duration::from_secs(10);

type Timed<T> = (Instant, T);

/// All of one connection.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    engine: Option<Timed<Id>>,
    sources: HashMap<Backing, Timed<Source>>,
    patterns: HashMap<Backing, Timed<Option<Arc<Pattern>>>>,
    made: HashMap<String, Timed<u64>>,
}

fn young<T: Clone>(kept: Option<&Timed<T>>, limit: Duration) -> Option<T> {
    kept.filter(|(at, _)| at.elapsed() < limit).map(|(_, value)| value.clone())
}

/// For how long this is where a golden image is.
fn lasts(source: &Source) -> Duration {
    // One that was taken over in place is another's. Its owner may rename it and put another there. And one that has parents is
    // about to be flattened, after which its clones need not be.
    if source.golden.is_some() && source.depth == 0 { OURS } else { THERE }
}

impl Recent {
    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The engine whose datastore this connection found in the pool.
    pub(super) fn engine(&self) -> Option<Id> {
        self.with(|kept| young(kept.engine.as_ref(), THERE))
    }

    pub(super) fn saw_engine(&self, engine: Id) {
        self.with(|kept| kept.engine = Some((Instant::now(), engine)));
    }

    /// Where a golden image's bytes were.
    pub(super) fn source(&self, of: &Backing) -> Option<Source> {
        self.with(|kept| {
            let found = kept.sources.get(of);
            found.and_then(|(_, source)| young(found, lasts(source)))
        })
    }

    pub(super) fn saw_source(&self, of: Backing, source: &Source) {
        if of.kind != BackingKind::Image {
            return;
        }
        self.with(|kept| {
            kept.sources.retain(|_, (at, source)| at.elapsed() < lasts(source));
            kept.sources.insert(of, (Instant::now(), source.clone()));
        });
    }

    /// What librbd wrote for a clone of a golden image of ours, whose id in the pool is `id` now. None: nobody knows yet. None in it: librbd makes its
    /// clones.
    pub(super) fn pattern(&self, of: &Backing, id: &str) -> Option<Option<Arc<Pattern>>> {
        let found = self.with(|kept| young(kept.patterns.get(of), ALIKE));
        found.filter(|pattern| pattern.as_ref().is_none_or(|p| p.of == id))
    }

    pub(super) fn saw_pattern(&self, of: Backing, pattern: Option<Pattern>) {
        self.with(|kept| {
            kept.patterns.retain(|_, (at, _)| at.elapsed() < ALIKE);
            kept.patterns.insert(of, (Instant::now(), pattern.map(Arc::new)));
        });
    }

    /// A clone was made: nobody has it open or locked.
    pub(super) fn made(&self, name: &str, size: u64) {
        self.with(|kept| {
            kept.made.retain(|_, (at, _)| at.elapsed() < MADE);
            kept.made.insert(name.to_owned(), (Instant::now(), size));
        });
    }

    /// The size of a clone that was just made and that nobody has asked for yet. Once only: who comes again finds out anew.
    pub(super) fn take_made(&self, name: &str) -> Option<u64> {
        let taken = self.with(|kept| kept.made.remove(name));
        young(taken.as_ref(), MADE)
    }

    /// Forgets a disk that goes, or was not where it was said to be.
    pub(super) fn forget(&self, what: &Backing, name: &str) {
        self.with(|kept| {
            kept.sources.remove(what);
            kept.patterns.remove(what);
            kept.made.remove(name);
        });
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.with(|kept| *kept = Kept::default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::super::{disks::Golden, pattern};
    use super::*;

    #[test]
    fn a_clone_is_known_once_and_not_when_it_went() {
        let recent = Recent::default();
        let what = Backing::volume(Id::from_random([7; 16]), 1);
        recent.made("a", 5);
        assert_eq!((recent.take_made("a"), recent.take_made("a")), (Some(5), None));
        recent.made("a", 5);
        recent.forget(&what, "a");
        assert_eq!(recent.take_made("a"), None);
    }

    #[test]
    fn only_golden_images_stay_where_they_were() {
        let recent = Recent::default();
        let at = |image: &str| Source { image: image.to_owned(), snap: None, depth: 0, golden: None };
        let id = Id::from_random([7; 16]);
        recent.saw_source(Backing::volume(id, 1), &at("v"));
        assert!(recent.source(&Backing::volume(id, 1)).is_none(), "a rollback gives a volume another image");
        recent.saw_source(Backing::image(id), &at("i"));
        assert!(recent.source(&Backing::image(id)).is_some());
        recent.forget(&Backing::image(id), "i");
        assert!(recent.source(&Backing::image(id)).is_none());
    }

    #[test]
    fn what_librbd_wrote_counts_for_the_image_it_was_read_of_and_for_a_while() {
        let (recent, of) = (Recent::default(), Backing::image(Id::from_random([7; 16])));
        assert!(recent.pattern(&of, "7").is_none());
        recent.saw_pattern(of, None);
        assert_eq!(recent.pattern(&of, "7"), Some(None), "that it makes no pattern is known, too");
        recent.saw_pattern(of, Some(pattern::tests::pattern_of("7")));
        assert_eq!(recent.pattern(&of, "7").flatten().unwrap().of, "7");
        assert!(recent.pattern(&of, "8").is_none(), "another image is there now");
        let long_ago = Instant::now().checked_sub(ALIKE).unwrap();
        recent.with(|kept| kept.patterns.get_mut(&of).unwrap().0 = long_ago);
        assert!(recent.pattern(&of, "7").is_none());
        recent.saw_pattern(of, Some(pattern::tests::pattern_of("7")));
        recent.forget(&of, "i");
        assert!(recent.pattern(&of, "7").is_none());
    }

    #[test]
    fn what_is_old_is_not_known_and_sooner_where_it_may_change() {
        let of = Backing::image(Id::from_random([7; 16]));
        let known = |ours: bool, depth, age| {
            let recent = Recent::default();
            let golden = ours.then(|| Golden { id: "7".to_owned(), size: 5 }.into());
            let source = Source { image: "i".to_owned(), snap: None, depth, golden };
            recent.with(|kept| kept.sources.insert(of, (Instant::now().checked_sub(age).unwrap(), source)));
            recent.source(&of).is_some()
        };
        for (ours, depth) in [(false, 0), (true, 1)] {
            assert!(known(ours, depth, Duration::ZERO) && !known(ours, depth, THERE));
        }
        assert!(known(true, 0, THERE) && !known(true, 0, OURS));
    }
}
