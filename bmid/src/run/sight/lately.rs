//! What was seen a moment ago, for those who change something: of a hundred provisions in a second one asks the host.
//!
//! Only what is fine is kept, and only to go on by: whoever goes on meets the thing itself in the step, which fails if it is so no more.
//! Never what is wrong or nearly used up; never what a listing shows. Who is refused by it is looked for anew first (`run/change.rs`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bmi::rules::room;
use bmi::step::{Fact, Lane, Limit, Look, Resource};

/// For how long it counts.
const LATELY: Duration = Duration::from_secs(1);
/// So much memory has to be free, in bytes: a tgtd's limit is what all others leave it, however little it uses itself.
const SPARE: u64 = 1 << 30;

/// See the file's head.
#[derive(Default)]
pub(super) struct Lately(Mutex<HashMap<Look, (Instant, Fact)>>);

/// Whether a question costs so much that its answer is kept. Of a folder the kernel tells at once, so that it can be asked each time.
fn is_dear(look: &Look) -> bool {
    match look {
        Look::Room(_) => true,
        Look::Datastore(_, place) => place.rbd.is_some(),
        _ => false,
    }
}

/// Whether nothing is wrong. What is used of a tgtd's limits may be old: disks that it had not opened then are counted whoever looks,
/// only what others on the host took meanwhile is not.
fn is_fine(fact: &Fact) -> bool {
    let spare = |l: &Limit| l.of != Resource::Memory || l.most.saturating_sub(l.used) >= SPARE;
    match fact {
        Fact::Room(Some(room)) => room::warnings(room).is_empty() && room.limits.iter().all(spare),
        Fact::Datastore(facts) => facts.available && facts.problem.is_none() && facts.full.is_none(),
        _ => false,
    }
}

impl Lately {
    fn all(&self) -> MutexGuard<'_, HashMap<Look, (Instant, Fact)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen, if that is kept and young.
    pub(super) fn get(&self, look: &Look) -> Option<Fact> {
        let all = self.all();
        all.get(look).filter(|(at, _)| at.elapsed() < LATELY).map(|(_, fact)| fact.clone())
    }

    /// An answer has come to what was asked then.
    pub(super) fn saw(&self, look: &Look, asked: Instant, fact: &Fact) {
        if !is_dear(look) {
            return;
        }
        let mut all = self.all();
        all.retain(|_, (at, _)| at.elapsed() < LATELY);
        if is_fine(fact) {
            all.insert(look.clone(), (asked, fact.clone()));
        } else {
            all.remove(look);
        }
    }

    /// Something failed there, or it is another tgtd with limits of its own: whoever comes next asks.
    pub(super) fn forget(&self, lane: &Lane) {
        self.all().retain(|look, _| match (look, lane) {
            (Look::Room(of), Lane::Network(network)) => of != network,
            (Look::Datastore(of, _), Lane::Datastore(store) | Lane::Import(store)) => of != store,
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use bmi::model::{Bytes, Id, Place, RbdPlace};
    use bmi::step::{Amounts, DatastoreFacts, Room};

    use super::*;

    fn id(n: u8) -> Id {
        Id::from_random([n; 16])
    }

    fn room(used: u64) -> Fact {
        let limit = Limit { of: Resource::Files, name: "x".to_owned(), used, most: 100, raise: String::new() };
        let none = Amounts::default();
        Fact::Room(Some(Room { used: none, limits: vec![limit], file: none, pool: none }))
    }

    fn store(pool: bool) -> Look {
        let place = RbdPlace {
            datastore: id(1),
            pool: "p".to_owned(),
            namespace: None,
            conf: "c".to_owned(),
            user: "u".to_owned(),
            keyring: None,
            export: bmi::model::RbdExport::Librbd,
        };
        let folder = Place::Folder { path: "/d".to_owned(), loop_size: None, thin: false };
        Look::Datastore(id(1), (&if pool { Place::Rbd(place) } else { folder }).into())
    }

    fn facts(full: bool) -> Fact {
        Fact::Datastore(DatastoreFacts {
            available: true,
            problem: None,
            reflink: true,
            total: Bytes(2),
            free: Bytes(1),
            filesystem: "rbd".to_owned(),
            full: full.then(|| "add OSDs".to_owned()),
        })
    }

    #[test]
    fn what_is_fine_is_known_for_a_moment_and_what_is_not_is_asked_again() {
        let lately = Lately::default();
        for (look, fine, bad) in [(Look::Room(id(3)), room(79), room(80)), (store(true), facts(false), facts(true))] {
            assert_eq!(lately.get(&look), None);
            lately.saw(&look, Instant::now(), &fine);
            assert_eq!(lately.get(&look), Some(fine.clone()));
            lately.saw(&look, Instant::now(), &bad);
            assert_eq!(lately.get(&look), None);
            lately.saw(&look, Instant::now(), &fine);
            lately.saw(&look, Instant::now(), &Fact::Unknown("no answer".to_owned()));
            assert_eq!(lately.get(&look), None);
        }
    }

    #[test]
    fn it_is_forgotten_where_something_failed_and_with_time() {
        let lately = Lately::default();
        let [one, other] = [3, 4].map(|n| Look::Room(id(n)));
        let pool = store(true);
        let known = || [&one, &other, &pool].map(|look| lately.get(look).is_some());
        lately.saw(&one, Instant::now(), &room(1));
        lately.saw(&other, Instant::now(), &room(2));
        lately.saw(&pool, Instant::now(), &facts(false));
        lately.forget(&Lane::Network(id(3)));
        assert_eq!(known(), [false, true, true]);
        lately.forget(&Lane::Datastore(id(2)));
        assert_eq!(known(), [false, true, true]);
        for lane in [Lane::Datastore, Lane::Import] {
            lately.saw(&pool, Instant::now(), &facts(false));
            lately.forget(&lane(id(1)));
            assert_eq!(known(), [false, true, false]);
        }
        lately.all().values_mut().for_each(|(at, _)| *at = at.checked_sub(LATELY).unwrap_or(*at));
        assert_eq!(lately.get(&other), None);
    }

    #[test]
    fn a_folder_is_asked_each_time() {
        let lately = Lately::default();
        lately.saw(&store(false), Instant::now(), &facts(false));
        assert_eq!(lately.get(&store(false)), None);
    }
}
