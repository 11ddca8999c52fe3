//! `datastore create`: a folder becomes a datastore; with `--loop` an XFS file of our own is made and mounted there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DatastoreView, view_of};
use crate::model::record::kinded;
use crate::model::{Bytes, Fault, Index, Kind, Name, Place, Server, ServerKind, ServerState, View, ViewExt};
use crate::ops::args::HostPath;
use crate::ops::{Answering, Cx, Effect, Op, PartPlan, Plan, Resolve, Right, Shape, Sheet};
use crate::step::MakeStore;

/// Drivers a datastore can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
    /// A folder.
    #[default]
    File,
}

/// What somebody who asks for a sparse file must know.
const THIN: &str = "a thin datastore can run out of space while its machines still see free disk: their writes are lost then; leave --thin out unless you watch the host's free space";

/// Make a datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreCreate {
    /// Its name
    pub name: Name,
    /// Driver
    #[arg(long, value_enum, default_value = "file")]
    #[serde(default)]
    pub kind: DatastoreKind,
    /// The folder; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub path: HostPath,
    /// Make an XFS file of this size (at least 300M), keep it mounted on DIR: clones are instant there on any host file system
    #[arg(long = "loop", value_name = "SIZE")]
    #[serde(rename = "loop")]
    pub loop_size: Option<Bytes>,
    /// Make that file sparse. A full host then loses tenants' writes
    #[arg(long, requires = "loop_size")]
    #[serde(default)]
    pub thin: bool,
}

impl Op for DatastoreCreate {
    type Out = DatastoreView;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "create",
        about: "Make a datastore out of a folder",
        examples: &[
            "datastore create fast --kind file --path /srv/bmi --loop 100G",
            "datastore create nas --path /mnt/nas/bmi",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        if self.thin {
            client.warn(THIN);
        }
        client.absolute(&mut self.path)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let path = self.path.0.trim_end_matches('/');
        if !path.starts_with('/') || path.split('/').any(|p| p == "..") {
            return Err(Fault::invalid(format!("{:?} is not an absolute path of a folder", self.path.0))
                .fix("give a path that begins with / and has no .."));
        }
        let place = Place::Folder { path: path.to_owned(), loop_size: self.loop_size, thin: self.thin };
        if let Some(old) = cx.view.by_key::<Server>(Index::ServerName, &kinded(ServerKind::Datastore, &self.name))? {
            if old.place.as_ref() == Some(&place) && old.state == ServerState::Active {
                return Ok(Plan::already("datastore", old.id, &old.name));
            }
            return Err(Fault::new(
                Kind::Duplicate,
                format!("there is a datastore {} already, and it is another one", self.name),
            )
            .fix("choose another name"));
        }
        apart(cx.view, path)?;
        let server = Server {
            id: cx.id(),
            name: self.name.clone(),
            kind: ServerKind::Datastore,
            driver: "file".to_owned(),
            url: None,
            ip: None,
            port: None,
            place: Some(place.clone()),
            state: ServerState::Creating,
            created_at: cx.now,
            operation: Some(cx.operation),
        };
        let mut part = PartPlan::default();
        part.about("datastore", server.id, &server.name);
        part.script.first(MakeStore { datastore: server.id, engine: cx.engine(), place });
        part.row(server.clone(), Server { state: ServerState::Active, operation: None, ..server });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<DatastoreView>, Fault> {
        at.subjects.iter().map(|s| Ok(view_of(&at.view.must::<Server>(s.id)?, at.facts))).collect()
    }
}

/// Datastores in one another would count the same space twice, and taking the outer one away would take the inner one's
/// bytes.
fn apart(view: &dyn View, path: &str) -> Result<(), Fault> {
    let asked = Path::new(path);
    for old in view.live::<Server>()? {
        let Some(Place::Folder { path: taken, .. }) = &old.place else { continue };
        let taken_path = Path::new(taken);
        let why = match (asked.starts_with(taken_path), taken_path.starts_with(asked)) {
            (true, true) => format!("{path} is datastore {}", old.name),
            (true, false) => format!("{path} lies in {taken}, which is datastore {}", old.name),
            (false, true) => format!("{taken}, which is datastore {}, lies in {path}", old.name),
            (false, false) => continue,
        };
        return Err(Fault::new(Kind::Duplicate, why).fix("choose another folder"));
    }
    Ok(())
}
