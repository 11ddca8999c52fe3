//! `datastore scan`: rows without bytes and bytes without rows, side by side. It touches nothing; with `--remove` it takes away
//! what is ours and wanted by no record.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::find;
use crate::model::record::under;
use crate::model::{
    Attachment, Bytes, Fault, Id, Image, Index, Node, Note, Ref, Row, Server, ServerState, Snapshot, View, ViewExt,
    Volume,
};
use crate::ops::state::rebuild::{contents, look, table};
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::step::{Backing, BackingKind, Contents, Look, Remove, Thing};

/// Compare a datastore with its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreScan {
    /// Only this one
    #[serde(default)]
    pub datastore: Option<Ref>,
    /// Remove the bytes that carry this engine's mark and that no record wants
    #[arg(long, requires = "datastore")]
    #[serde(default)]
    pub remove: bool,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanView {
    /// Datastore's name.
    pub datastore: String,
    /// `missing` (a record without bytes), `orphan` (bytes without a record), `half-made`, `unfinished`, `removed`, `hidden`,
    /// `trash`, `other` (another datastore's), `foreign`; with `--remove`: `gone`.
    pub found: String,
    /// `image`, `volume`, `tag`; what else there is by name.
    pub object: String,
    /// Its id.
    pub id: Option<Id>,
    /// Its name, as its record or what is written beside it says.
    pub name: String,
    /// Its size.
    pub size_bytes: Option<Bytes>,
    /// How many, where they are only counted.
    pub count: Option<u64>,
    /// What it means and what to do.
    pub message: String,
}

fn noun(kind: BackingKind) -> &'static str {
    match kind {
        BackingKind::Image => "image",
        BackingKind::Volume => "volume",
        BackingKind::Snapshot => "tag",
    }
}

/// How bytes and rows stand to one another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Wanted,
    /// An operation holds it: what stands there is its business.
    Held,
    /// It was removed.
    Removed,
    Orphan,
}

fn standing(view: &dyn View, what: &Backing) -> Result<Standing, Fault> {
    let Some(row) = view.row(table(what.kind), what.id)? else { return Ok(Standing::Orphan) };
    let operation = match &row {
        Row::Image(r) => r.operation,
        Row::Volume(r) => r.operation,
        Row::Snapshot(r) => r.operation,
        _ => None,
    };
    Ok(match &row {
        _ if operation.is_some() => Standing::Held,
        _ if row.indexes().is_empty() => Standing::Removed,
        Row::Volume(v) if v.generation != what.generation => Standing::Orphan,
        _ => Standing::Wanted,
    })
}

/// What people call it, by what is written beside it.
fn noted(thing: &Thing) -> String {
    match &thing.note {
        Some(Note::Image(n)) => n.name.to_string(),
        Some(Note::Snapshot(n)) => n.name.to_string(),
        Some(Note::Volume(n)) => {
            let of = n.node.as_ref().map(|n| format!("disk of node {}", n.name));
            n.name.as_ref().map(ToString::to_string).or(of).unwrap_or_default()
        }
        None => String::new(),
    }
}

/// What has a record here and no bytes.
fn missing(view: &dyn View, server: &Server, there: &BTreeSet<Backing>) -> Result<Vec<(Backing, String)>, Fault> {
    let mut out = Vec::new();
    for id in view.ids(Index::InDatastore, &under(server.id, &[]))? {
        let found = if let Some(i) = view.get::<Image>(id)? {
            (i.operation, Backing::image(id), i.name.to_string())
        } else if let Some(v) = view.get::<Volume>(id)? {
            let disk: Option<Attachment> = view.by_key(Index::AttachmentOfVolume, &under(id, &[]))?;
            let node = disk.map(|a| view.get::<Node>(a.node)).transpose()?.flatten();
            let name = node.map_or_else(|| crate::ops::volume::called(&v), |n| format!("disk of node {}", n.name));
            (v.operation, Backing::volume(id, v.generation), name)
        } else if let Some(s) = view.get::<Snapshot>(id)? {
            (s.operation, Backing::snapshot(id), s.name.to_string())
        } else {
            continue;
        };
        let (operation, what, name) = found;
        if operation.is_none() && !there.contains(&what) {
            out.push((what, name));
        }
    }
    Ok(out)
}

impl DatastoreScan {
    fn servers(&self, view: &dyn View) -> Result<Vec<Server>, Fault> {
        let stands = |s: &Server| matches!(s.state, ServerState::Active | ServerState::Adopted);
        if let Some(r) = &self.datastore {
            let server = find(view, r)?;
            return if stands(&server) {
                Ok(vec![server])
            } else {
                Err(Fault::conflict(format!("datastore {} is being made or removed", server.name)))
            };
        }
        let mut all = super::list::all(view)?;
        all.retain(stands);
        Ok(all)
    }
}

impl Op for DatastoreScan {
    type Out = ScanView;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "scan",
        about: "Compare datastores with their records: bytes without a record, records without bytes; touches nothing",
        examples: &["datastore scan", "datastore scan ceph", "datastore scan ceph --remove --yes"],
        effect: Effect::Change,
        shape: Shape::Many,
        right: Right::Admin,
        columns: &["datastore", "found", "object", "name", "size_bytes", "count", "message"],
        destroys: "bytes that no record wants (only with --remove)",
    };

    fn destroys(&self) -> &'static str {
        if self.remove { "bytes that no record wants" } else { "" }
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(self.servers(at.view)?.iter().filter_map(look).collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        if !self.remove {
            return Ok(Plan::nothing());
        }
        let mut plan = Plan::nothing();
        for server in self.servers(cx.view)? {
            let (Some(contents), Some(place)) = (contents(&server, cx.facts)?, server.place.clone()) else { continue };
            if server.state == ServerState::Adopted {
                return Err(Fault::conflict(format!("the records of datastore {} are not restored yet", server.name))
                    .fix(format!("`bmictl state rebuild --datastore {}` first; nothing was removed", server.name)));
            }
            let mut parts: BTreeMap<Id, PartPlan> = BTreeMap::new();
            for what in contents.things.iter().map(|t| t.what).chain(contents.half_made.iter().copied()) {
                if matches!(standing(cx.view, &what)?, Standing::Orphan | Standing::Removed) {
                    let part = parts.entry(what.id).or_default();
                    if part.subjects.is_empty() {
                        part.about(noun(what.kind), what.id, what.name());
                        part.uses.push(server.id);
                    }
                    part.script.then(Remove { datastore: server.id, place: place.clone(), what });
                }
            }
            plan.parts.extend(parts.into_values());
        }
        Ok(plan)
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ScanView>, Fault> {
        let mut out = Vec::new();
        for server in self.servers(at.view)? {
            match contents(&server, at.facts) {
                Ok(Some(contents)) => told(at, &server, &contents, &mut out)?,
                Ok(None) => {}
                // One that cannot be looked through must not hide what is in the others.
                Err(why) if self.datastore.is_none() => {
                    out.push(counted(&server, "unknown", "datastore", 1, &why.to_string()));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(out)
    }
}

fn told(at: &Answering<'_>, server: &Server, contents: &Contents, out: &mut Vec<ScanView>) -> Result<(), Fault> {
    let name = &server.name;
    let view = |found: &str, what: &Backing, called: String, size, message: String| ScanView {
        datastore: name.to_string(),
        found: found.to_owned(),
        object: noun(what.kind).to_owned(),
        id: Some(what.id),
        name: called,
        size_bytes: size,
        count: None,
        message,
    };
    let there: BTreeSet<Backing> = contents.things.iter().map(|t| t.what).collect();
    for (what, called) in missing(at.view, server, &there)? {
        let message = "its record stands and its bytes do not; a node so is in error until they are back".to_owned();
        out.push(view("missing", &what, called, None, message));
    }
    for thing in &contents.things {
        let gone = at.subjects.iter().any(|s| s.id == thing.what.id);
        let (found, message) = match standing(at.view, &thing.what)? {
            Standing::Wanted | Standing::Held => continue,
            Standing::Removed | Standing::Orphan if gone => ("gone", String::new()),
            Standing::Removed => ("removed", format!("it was removed: `bmictl datastore scan {name} --remove`")),
            Standing::Orphan => (
                "orphan",
                format!(
                    "`bmictl state rebuild --datastore {name}` restores its record, `bmictl datastore scan {name} \
                     --remove` and `bmictl reconcile` remove it"
                ),
            ),
        };
        out.push(view(found, &thing.what, noted(thing), thing.size, message));
    }
    for what in &contents.half_made {
        if matches!(standing(at.view, what)?, Standing::Orphan | Standing::Removed | Standing::Wanted) {
            let gone = at.subjects.iter().any(|s| s.id == what.id);
            let message = format!("cut off while it was made: `bmictl datastore scan {name} --remove`");
            out.push(view(if gone { "gone" } else { "half-made" }, what, String::new(), None, message));
        }
    }
    counts(server, contents, out);
    Ok(())
}

fn counted(server: &Server, found: &str, object: &str, count: u64, message: &str) -> ScanView {
    ScanView {
        datastore: server.name.to_string(),
        found: found.to_owned(),
        object: object.to_owned(),
        id: None,
        name: String::new(),
        size_bytes: None,
        count: Some(count),
        message: message.to_owned(),
    }
}

/// What is only counted: it goes by itself, or is nobody's business here.
fn counts(server: &Server, contents: &Contents, out: &mut Vec<ScanView>) {
    for (name, changed) in &contents.staging {
        let when = crate::model::Time(changed.saturating_mul(1_000_000));
        let message = format!("last changed {when}; the same import goes on there, after a week it is removed");
        out.push(ScanView { name: name.clone(), ..counted(server, "unfinished", "import", 1, &message) });
    }
    let hidden = "removed disks that tags still need; they go with the last tag";
    let trash = "removed; emptied in the background when nothing needs it any more";
    let foreign = "carries no mark of an engine's; never touched";
    for (found, object, count, message) in [
        ("hidden", "volume", contents.hidden, hidden),
        ("trash", "image", contents.trash, trash),
        ("foreign", "image", contents.foreign, foreign),
    ] {
        if count > 0 {
            out.push(counted(server, found, object, count, message));
        }
    }
    for other in &contents.others {
        let (named, engine) = match &other.note {
            Some(n) => (n.name.to_string(), format!("{} ({})", n.engine_name, other.engine)),
            None => (String::new(), other.engine.to_string()),
        };
        let message = format!("another datastore, of engine {engine}; never touched");
        let view = counted(server, "other", "datastore", other.things.unwrap_or(0), &message);
        out.push(ScanView { id: Some(other.datastore), name: named, ..view });
    }
}
