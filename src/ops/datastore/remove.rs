//! `datastore rm`: an empty datastore is given up; its folders go, foreign files stay.

use serde::{Deserialize, Serialize};

use super::find;
use crate::model::record::under;
use crate::model::{Change, Fault, Index, Ref, Server, ServerState};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::step::UnmakeStore;

/// Give up an empty datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreRm {
    /// Name or id
    pub datastore: Ref,
}

impl Op for DatastoreRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "rm",
        about: "Give up a datastore that holds no image, volume or tag",
        examples: &["datastore rm fast --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "the datastore's folders and, if bmid made it, its XFS file",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let server = find(cx.view, &self.datastore)?;
        let held = cx.view.ids(Index::InDatastore, &under(server.id, &[]))?.len();
        if held > 0 {
            return Err(Fault::conflict(format!("datastore {} holds {held} images, volumes and tags", server.name))
                .fix("remove them first: `bmictl image ls`, `volume ls` and `tag ls` list them"));
        }
        let Some(place) = server.place.clone() else { return Err(Fault::internal("a datastore without a place")) };
        let mut part = PartPlan::default();
        part.about("datastore", server.id, &server.name);
        if server.state == ServerState::Adopted {
            // Nothing of it is known, so nothing of it is taken away.
            part.commit.push(Change::delete(&server));
            return Ok(part.into());
        }
        part.script.then(UnmakeStore { datastore: server.id, place });
        part.row(
            Server { state: ServerState::Deleting, operation: Some(cx.operation), ..server.clone() },
            Change::delete(&server),
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
