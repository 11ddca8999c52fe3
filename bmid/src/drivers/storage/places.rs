//! The storage drivers as one: a datastore's place says which of them is asked.
//!
//! It decides nothing else and keeps nothing.

use std::sync::Arc;

use bmi::model::Place;
use bmi::step::{Fact, Look, Scope, Seen, StorageStep};

use super::file::FileStore;
use super::rbd::RbdStore;
use crate::drivers::{Done, Driver, DriverError, StepCx};

/// Folders and pools.
#[derive(Debug)]
pub struct Places {
    /// Folders.
    pub file: FileStore,
    /// Pools.
    pub rbd: Arc<RbdStore>,
}

impl Places {
    fn of(&self, place: &Place) -> &dyn Driver<Step = StorageStep> {
        match place {
            Place::Folder { .. } => &self.file,
            Place::Rbd(_) => &*self.rbd,
        }
    }
}

impl Driver for Places {
    type Step = StorageStep;

    fn apply(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        self.of(step.place().1).apply(step, cx)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Datastore { place, .. } => self.of(place).observe(scope),
            _ => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Datastore(_, key) | Look::Stores(key) | Look::Contents(_, key) if key.rbd.is_some() => {
                self.rbd.look(look)
            }
            Look::RbdClient => self.rbd.look(look),
            Look::Doctor { .. } => match (self.file.look(look), self.rbd.look(look)) {
                (Some(Ok(Fact::Findings(mut all))), Some(Ok(Fact::Findings(more)))) => {
                    all.extend(more);
                    Some(Ok(Fact::Findings(all)))
                }
                (file, _) => file,
            },
            _ => self.file.look(look),
        }
    }
}
