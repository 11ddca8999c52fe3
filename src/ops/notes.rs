//! Puts the notes into a plan: what it changes in rows that are told beside bytes is told there, too. No operation has to
//! think of it.
//!
//! A note goes with the step that makes the bytes where there is one: that costs nothing. Else it is a step of its own, before
//! the line, which can be taken back.

use std::collections::BTreeSet;

use super::plan::{Cx, PartPlan, Plan};
use crate::model::record::under;
use crate::model::{Attachment, Change, Fault, Id, Index, Row, Server, ServerState, Table, View, ViewExt};
use crate::rules::After;
use crate::rules::notes::{self, Noted};
use crate::step::{Backing, BackingKind, SetNote, Step, StorageStep};

/// See the file's head.
pub(super) fn add(cx: &Cx<'_>, mut plan: Plan) -> Result<Plan, Fault> {
    for part in &mut plan.parts {
        add_to(cx.view, part)?;
    }
    Ok(plan)
}

fn add_to(view: &dyn View, part: &mut PartPlan) -> Result<(), Fault> {
    let mut after = After::new(view);
    let changes: Vec<&Change> = part.begin.iter().chain(&part.commit).collect();
    changes.iter().for_each(|c| after.change(c));
    let mut told = BTreeSet::new();
    for change in changes {
        touched(view, &after, change, &mut told)?;
    }
    for (kind, id) in told {
        let Some(now) = notes::of(&after, kind, id)? else { continue };
        if goes_along(part, &now) {
            continue;
        }
        let Some(before) = notes::of(view, kind, id)? else { continue };
        if before.what == now.what && before.note != now.note && stands(view, now.datastore)? {
            let place = crate::rules::wanted::place(view, now.datastore)?;
            part.uses.push(now.datastore);
            part.script.first(SetNote {
                datastore: now.datastore,
                place,
                what: now.what,
                to: now.note,
                from: before.note,
            });
        }
    }
    Ok(())
}

/// Rows that are only being restored have their notes.
fn stands(view: &dyn View, datastore: Id) -> Result<bool, Fault> {
    Ok(view.get::<Server>(datastore)?.is_some_and(|s| s.state == ServerState::Active))
}

/// The objects whose notes tell of that row.
fn touched(
    view: &dyn View,
    after: &After<'_>,
    change: &Change,
    told: &mut BTreeSet<(BackingKind, Id)>,
) -> Result<(), Fault> {
    let (table, id) = change.key();
    let mut disks_of = |node: Id| -> Result<(), Fault> {
        let key = under(node, &[]);
        for attachment in after.all::<Attachment>(Index::AttachmentsOf, &key)? {
            told.insert((BackingKind::Volume, attachment.volume));
        }
        for attachment in view.all::<Attachment>(Index::AttachmentsOf, &key)? {
            told.insert((BackingKind::Volume, attachment.volume));
        }
        Ok(())
    };
    match (table, change) {
        (Table::Node, _) => disks_of(id)?,
        (Table::Network, Change::Put(Row::Network(network))) => {
            for node in view.ids(Index::NodesOf, &under(network.id, &[]))? {
                disks_of(node)?;
            }
        }
        (Table::Target, Change::Put(Row::Target(target))) => disks_of(target.node)?,
        (Table::Attachment, Change::Put(Row::Attachment(attachment))) => {
            told.insert((BackingKind::Volume, attachment.volume));
        }
        (Table::Image, _) => drop(told.insert((BackingKind::Image, id))),
        (Table::Volume, _) => drop(told.insert((BackingKind::Volume, id))),
        (Table::Snapshot, _) => drop(told.insert((BackingKind::Snapshot, id))),
        _ => {}
    }
    Ok(())
}

/// Gives the note to the step that makes the bytes.
fn goes_along(part: &mut PartPlan, now: &Noted) -> bool {
    for step in part.script.steps_mut() {
        let Step::Storage(step) = step else { continue };
        match step {
            StorageStep::Clone(clone) if clone.to == now.what => clone.note = Some(now.note.clone()),
            StorageStep::Import(import) if Backing::image(import.image) == now.what => {
                import.note = Some(now.note.clone());
            }
            StorageStep::TakeOver(take) if Backing::image(take.image) == now.what => {
                take.note = Some(now.note.clone());
            }
            _ => continue,
        }
        return true;
    }
    false
}
