//! `datastore ls` and `datastore show`.

use serde::{Deserialize, Serialize};

use super::{DatastoreView, find, look, view_of};
use crate::model::{Fault, Ref, Server, ServerKind, View, ViewExt};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::step::Look;

/// List datastores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreLs {}

/// All datastores, by name.
pub(super) fn all(view: &dyn View) -> Result<Vec<Server>, Fault> {
    let mut found: Vec<Server> =
        view.live::<Server>()?.into_iter().filter(|s| s.kind == ServerKind::Datastore).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Op for DatastoreLs {
    type Out = DatastoreView;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "ls",
        about: "List datastores with their space",
        examples: &["datastore ls"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Member,
        columns: &["name", "driver", "path", "state", "available", "clone_by", "free", "total"],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(all(at.view)?.iter().filter_map(look).collect())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<DatastoreView>, Fault> {
        Ok(all(at.view)?.iter().map(|s| view_of(s, at.facts)).collect())
    }
}

/// Show a datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreShow {
    /// Name or id
    pub datastore: Ref,
}

impl Op for DatastoreShow {
    type Out = DatastoreView;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "show",
        about: "Show a datastore: where it is, whether it can be used, how it clones",
        examples: &["datastore show default"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(look(&find(at.view, &self.datastore)?).into_iter().collect())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<DatastoreView>, Fault> {
        Ok(vec![view_of(&find(at.view, &self.datastore)?, at.facts)])
    }
}
