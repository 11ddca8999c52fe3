//! `datastore create --adopt`: a datastore that stands there already, of an engine that is gone, is taken over as it is. Whose
//! it is must be named: nothing here guesses, and nothing of another engine's is touched.

use super::create::DatastoreCreate;
use crate::model::{Fault, Id, Kind, Place, Server, View, ViewExt};
use crate::ops::Facts;
use crate::step::{Fact, StoreFound};

/// A datastore for people.
fn told(found: &StoreFound) -> String {
    let name = found.note.as_ref().map(|n| format!(" ({})", n.name)).unwrap_or_default();
    let engine = found.note.as_ref().map(|n| format!(" ({})", n.engine_name)).unwrap_or_default();
    let things = found.things.map(|n| format!(", {n} things")).unwrap_or_default();
    format!("{}{name} of engine {}{engine}{things}", found.datastore, found.engine)
}

impl DatastoreCreate {
    /// The datastore that is to be taken over, if one is.
    pub(super) fn adopted(&self, view: &dyn View, facts: &Facts, place: &Place) -> Result<Option<StoreFound>, Fault> {
        let Some(named) = &self.adopt else { return Ok(None) };
        let found = match facts.get(&self.look()?) {
            Some(Fact::Stores(found)) => found,
            Some(Fact::Unknown(why)) => {
                return Err(Fault::new(Kind::Unavailable, format!("{} could not be looked at: {why}", place.word())));
            }
            _ => return Err(Fault::internal("what stands there was not asked for")),
        };
        let mut strange = Vec::new();
        for store in found {
            if view.get::<Server>(store.datastore)?.is_none() {
                strange.push(store);
            }
        }
        if strange.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("no datastore of another engine stands in {}", place.word()),
            )
            .fix("leave --adopt out to make one; a file of --loop must be mounted to be looked into"));
        }
        let fits = |s: &&&StoreFound| named.parse::<Id>().is_ok_and(|id| id == s.datastore || id == s.engine);
        match strange.iter().filter(fits).collect::<Vec<_>>()[..] {
            [one] => Ok(Some((*one).clone())),
            _ => Err(list(named, place, &strange)),
        }
    }
}

/// Which there are, and how to name one.
fn list(named: &str, place: &Place, strange: &[&StoreFound]) -> Fault {
    let there: Vec<String> = strange.iter().take(10).map(|s| told(s)).collect();
    let first = strange.first().map_or_else(String::new, |s| s.datastore.to_string());
    let which = if named.is_empty() { "none is named".to_owned() } else { format!("{named:?} names none of them") };
    Fault::new(Kind::Invalid, format!("{which}; in {} stands {}", place.word(), there.join("; "))).fix(format!(
        "if the engine that has it is gone for good: `--adopt={first}`; two engines must never serve one datastore"
    ))
}
