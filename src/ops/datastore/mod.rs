//! Datastores: where bytes live.

mod adopt;
pub mod create;
pub mod list;
pub mod remove;
pub mod scan;

use serde::{Deserialize, Serialize};

use crate::model::record::kinded;
use crate::model::{Bytes, Fault, Id, Index, Place, Ref, Server, ServerKind, ServerState, Time, View, ViewExt};
use crate::rules::wanted;
use crate::step::{DatastoreFacts, Fact, Look};

/// A datastore as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatastoreView {
    /// Id.
    pub id: Id,
    /// Name.
    pub name: String,
    /// Driver: `file` or `rbd`.
    pub driver: String,
    /// Folder, or pool and configuration.
    pub path: Option<String>,
    /// Size of the XFS file bmid mounts there.
    pub loop_size: Option<Bytes>,
    /// That file is sparse.
    pub thin: bool,
    /// Lifecycle.
    pub state: ServerState,
    /// Root read, id matches.
    pub available: Option<bool>,
    /// Why not.
    pub problem: Option<String>,
    /// `reflink`, `copy` or, in a pool, `clone`.
    pub clone_by: Option<String>,
    /// How targets get the disks of a pool: `kernel`, mapped by it, or `librbd`, opened by tgtd itself.
    pub export: Option<String>,
    /// File system.
    pub filesystem: Option<String>,
    /// Its size in bytes.
    pub total: Option<Bytes>,
    /// Free bytes.
    pub free: Option<Bytes>,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
}

/// The datastore a command names.
pub fn find(view: &dyn View, r: &Ref) -> Result<Server, Fault> {
    let found = match r {
        Ref::Id(id) => view.get::<Server>(*id)?,
        Ref::Own(name) => view.by_key(Index::ServerName, &kinded(ServerKind::Datastore, name))?,
        Ref::Of(..) => {
            return Err(Fault::invalid(format!("{r} is not a datastore's name: datastores have no owner"))
                .fix("leave OWNER/ out"));
        }
    };
    found.filter(|s| s.kind == ServerKind::Datastore).ok_or_else(|| Fault::not_found("datastore", r))
}

/// The datastore a command names, which must be in use.
pub fn usable(view: &dyn View, r: &Ref) -> Result<Server, Fault> {
    let server = find(view, r)?;
    if server.state == ServerState::Adopted {
        return Err(Fault::conflict(format!(
            "datastore {} was taken over and its records are not restored yet",
            server.name
        ))
        .fix(format!("`bmictl state rebuild --datastore {} --check` shows what it would restore", server.name)));
    }
    if server.state != ServerState::Active {
        return Err(Fault::conflict(format!("datastore {} is not in use yet or no longer", server.name))
            .fix(format!("`bmictl datastore show {}` tells its state", server.name)));
    }
    Ok(server)
}

/// The question for its space and abilities.
#[must_use]
pub fn look(server: &Server) -> Option<Look> {
    server.place.as_ref().map(|p| Look::Datastore(server.id, p.into()))
}

/// Refuses a datastore that is not there, or lacks `need` bytes where that is known.
pub fn must_have(server: &Server, facts: &super::Facts, need: Option<Bytes>) -> Result<DatastoreFacts, Fault> {
    use crate::model::Kind;
    let unknown = |why: String| {
        Fault::new(Kind::Unavailable, format!("datastore {} is unavailable: {why}", server.name))
            .fix(format!("`bmictl datastore show {}` and `bmictl doctor` say more", server.name))
    };
    let fact = look(server).and_then(|l| facts.get(&l).cloned());
    let known = match fact {
        Some(Fact::Datastore(known)) => known,
        Some(Fact::Unknown(why)) => return Err(unknown(why)),
        _ => return Err(unknown("its driver did not answer".to_owned())),
    };
    if !known.available {
        return Err(unknown(known.problem.clone().unwrap_or_default()));
    }
    if let Some(fix) = &known.full {
        let why = known.problem.as_deref().unwrap_or("nothing can be written there");
        return Err(Fault::new(Kind::Full, format!("datastore {} is full: {why}", server.name)).fix(fix.clone()));
    }
    match need {
        Some(need) if need > known.free => Err(Fault::new(
            Kind::Full,
            format!("datastore {} has {} free and {need} are needed", server.name, known.free),
        )
        .fix("remove images or volumes, or use another datastore")),
        _ => Ok(known),
    }
}

/// As shown.
#[must_use]
pub fn view_of(server: &Server, facts: &super::Facts) -> DatastoreView {
    let known = look(server).and_then(|l| facts.get(&l).cloned());
    let (known, unknown) = match known {
        Some(Fact::Datastore(d)) => (Some(d), None),
        Some(Fact::Unknown(why)) => (None, Some(why)),
        _ => (None, None),
    };
    let (path, loop_size, thin) = match &server.place {
        Some(Place::Folder { path, loop_size, thin }) => (Some(path.clone()), *loop_size, *thin),
        Some(place @ Place::Rbd(_)) => (Some(place.word()), None, false),
        None => (None, None, false),
    };
    DatastoreView {
        id: server.id,
        name: server.name.to_string(),
        driver: server.driver.clone(),
        path,
        loop_size,
        thin,
        state: server.state,
        available: known.as_ref().map(|k| k.available).or(unknown.as_ref().map(|_| false)),
        problem: known.as_ref().and_then(|k| k.problem.clone()).or(unknown),
        clone_by: known.as_ref().map(|k| {
            match &server.place {
                Some(Place::Rbd(_)) => "clone",
                _ if k.reflink => "reflink",
                _ => "copy",
            }
            .to_owned()
        }),
        export: match &server.place {
            Some(Place::Rbd(_)) => Some(wanted::disk_by(server).to_owned()),
            _ => None,
        },
        filesystem: known.as_ref().map(|k| k.filesystem.clone()),
        total: known.as_ref().map(|k| k.total),
        free: known.as_ref().map(|k| k.free),
        created_at: server.created_at,
        operation: server.operation,
    }
}
