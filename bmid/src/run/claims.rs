//! Which operation holds which object: exclusive for what it changes, shared for what it uses.
//!
//! Claims are taken all at once and never waited for, so nothing can deadlock. They stand in memory; after a restart they
//! are put back from the open intents before anything else may claim.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bmi::model::{Fault, Id, Kind};

/// Somebody else holds it.
#[derive(Debug)]
pub(super) struct Held {
    /// Who.
    pub by: Id,
    /// What it is called.
    pub method: String,
}

impl From<Held> for Fault {
    fn from(Held { by, method }: Held) -> Fault {
        Fault::new(Kind::Busy, format!("{method} ({by}) holds it"))
            .fix(format!("wait for it (`bmictl op watch {by}`) and try again"))
    }
}

/// Who holds what.
#[derive(Default)]
pub(super) struct Claims(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// Object to the operation that changes it.
    changed: HashMap<Id, Id>,
    /// Object to the operations that use it.
    used: HashMap<Id, Vec<Id>>,
    /// Operation to its claims and its name for messages.
    held: HashMap<Id, Holding>,
}

struct Holding {
    method: String,
    changes: Vec<Id>,
    uses: Vec<Id>,
}

impl Claims {
    /// Takes all or none. The refusal names the operation in the way. An object both changed and used is changed.
    pub(super) fn take(&self, operation: Id, method: &str, changes: &[Id], uses: &[Id]) -> Result<(), Held> {
        let mut t = self.lock();
        let in_the_way = changes
            .iter()
            .find_map(|o| {
                t.changed.get(o).or_else(|| t.used.get(o).and_then(|all| all.iter().find(|h| **h != operation)))
            })
            .or_else(|| uses.iter().find_map(|o| t.changed.get(o)))
            .filter(|holder| **holder != operation);
        if let Some(holder) = in_the_way {
            let method = t.held.get(holder).map_or("an operation", |h| h.method.as_str());
            return Err(Held { by: *holder, method: method.to_owned() });
        }
        for object in changes {
            t.changed.insert(*object, operation);
        }
        let uses: Vec<Id> = uses.iter().filter(|u| !changes.contains(u)).copied().collect();
        for object in &uses {
            t.used.entry(*object).or_default().push(operation);
        }
        let held = t.held.entry(operation).or_insert_with(|| Holding {
            method: method.to_owned(),
            changes: Vec::new(),
            uses: Vec::new(),
        });
        held.changes.extend_from_slice(changes);
        held.uses.extend(uses);
        Ok(())
    }

    /// Lets go of everything an operation holds. Calling again changes nothing.
    pub(super) fn release(&self, operation: Id) {
        let mut t = self.lock();
        let Some(held) = t.held.remove(&operation) else { return };
        for object in held.changes {
            t.changed.remove(&object);
        }
        for object in held.uses {
            if let Some(all) = t.used.get_mut(&object) {
                if let Some(at) = all.iter().position(|h| *h == operation) {
                    all.swap_remove(at);
                }
                if all.is_empty() {
                    t.used.remove(&object);
                }
            }
        }
    }

    /// Whether an operation changes it.
    pub(super) fn is_changed(&self, object: Id) -> bool {
        self.lock().changed.contains_key(&object)
    }

    /// How many operations hold anything: for tests that nothing is left.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Id {
        Id::from_random([n; 16])
    }

    #[test]
    fn only_a_change_collides() {
        let c = Claims::default();
        c.take(id(1), "a", &[id(10)], &[id(20)]).expect("first");
        c.take(id(2), "b", &[id(11)], &[id(20)]).expect("two may use one thing");
        assert!(c.take(id(3), "c", &[id(20)], &[]).is_err_and(|h| [id(1), id(2)].contains(&h.by)));
        assert!(c.take(id(3), "c", &[], &[id(10)]).is_err_and(|h| Fault::from(h).kind == Kind::Busy));
        c.release(id(1));
        c.release(id(1));
        c.take(id(3), "c", &[id(10)], &[]).expect("free again");
        assert!(c.is_changed(id(10)));
        c.release(id(2));
        c.release(id(3));
        assert_eq!(c.holders(), 0);
    }

    #[test]
    fn a_refused_claim_takes_nothing() {
        let c = Claims::default();
        c.take(id(1), "a", &[id(10)], &[]).expect("first");
        assert!(c.take(id(2), "b", &[id(11), id(10)], &[]).is_err());
        c.take(id(3), "c", &[id(11)], &[]).expect("nothing was taken by the refused one");
    }
}
