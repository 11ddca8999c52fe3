//! Bytes of ours beside which nothing is written any more: the way back after a lost store. They come so from an earlier release,
//! or were copied by something that left notes behind. Pure.

use crate::model::{Fault, Id, Image, Server, ServerState, Snapshot, View, ViewExt, Volume};
use crate::rules::notes;
use crate::rules::reconcile::{Action, Difference, Expect, Rows};
use crate::rules::wanted::NodeRecords;
use crate::step::{Backing, BackingKind, Seen, SetNote};

/// At most so many a pass: a whole datastore without its notes must not hold up what machines wait for.
const AT_ONCE: usize = 100;

/// What is to be written again beside disks of a datastore.
pub fn renew(view: &dyn View, rows: &Rows, server: &Server, seen: &[Seen]) -> Result<Vec<Difference>, Fault> {
    // What stands on one that was taken over has no records yet.
    if server.state != ServerState::Active || !seen.contains(&Seen::Store(server.id)) {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for what in seen.iter().filter_map(|s| if let Seen::Bare(what) = s { Some(what) } else { None }) {
        out.extend(difference(view, rows, server, what)?);
        if out.len() == AT_ONCE {
            break;
        }
    }
    Ok(out)
}

fn difference(view: &dyn View, rows: &Rows, server: &Server, what: &Backing) -> Result<Option<Difference>, Fault> {
    let (Some(place), Some(noted)) = (server.place.clone(), notes::of(view, what.kind, what.id)?) else {
        return Ok(None);
    };
    if (noted.what, noted.datastore) != (*what, server.id) {
        return Ok(None);
    }
    let Some((noun, id, name, expects)) = owner(view, rows, what)? else { return Ok(None) };
    let set = SetNote { datastore: server.id, place, what: *what, to: noted.note.clone(), from: noted.note };
    let what = format!("nothing is written beside {} that its records could be rebuilt from", what.describe());
    let action = Action::Apply(vec![set.into()]);
    Ok(Some(Difference { noun, id, name, what, action, expects, removes: false }))
}

/// What has to be claimed for it, and the rows that the note tells of: those of a node's disk are the node's.
type Owner = (&'static str, Id, String, Vec<Expect>);

fn owner(view: &dyn View, rows: &Rows, what: &Backing) -> Result<Option<Owner>, Fault> {
    Ok(match what.kind {
        BackingKind::Image => {
            view.get::<Image>(what.id)?.map(|i| ("image", i.id, i.name.to_string(), vec![Expect::Row(i.into())]))
        }
        BackingKind::Snapshot => {
            view.get::<Snapshot>(what.id)?.map(|s| ("tag", s.id, s.name.to_string(), vec![Expect::Row(s.into())]))
        }
        BackingKind::Volume => {
            let its = |n: &&NodeRecords| n.disks.iter().any(|d| d.volume.id == what.id);
            let Some(volume) = view.get::<Volume>(what.id)? else { return Ok(None) };
            let name = volume.name.as_ref().map_or_else(|| volume.id.to_string(), ToString::to_string);
            let row = Expect::Row(volume.clone().into());
            Some(match rows.nodes.iter().find(its) {
                Some(n) => {
                    let around = [Expect::Row(n.node.clone().into()), Expect::Row(n.target.clone().into()), row];
                    ("node", n.node.id, n.node.name.to_string(), around.into())
                }
                None => ("volume", volume.id, name, vec![row]),
            })
        }
    })
}
