//! `state rebuild`: the records of a lost store, out of what is written beside the bytes on a datastore.
//!
//! It adds rows and does nothing outside: reconcile then makes targets, scripts and networks as the rows say.

mod networks;
mod work;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(in crate::ops) use self::work::table;
use self::work::{With, Work, known, work};
use crate::model::record::under;
use crate::model::{
    Attachment, Change, Fault, Id, Image, Index, Network, Node, Note, Owner, Ref, Row, Server, ServerState, Snapshot,
    Target, View, ViewExt, Volume,
};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Facts, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::step::{BackingKind, Contents, Fact, InterfaceFacts, Look, Thing};

/// Restore records out of what stands on a datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct StateRebuild {
    /// The datastore to look through
    #[arg(long)]
    pub datastore: Ref,
    /// Take the datastore into use although not everything can be restored: disks of nodes that cannot be are kept as volumes
    #[arg(long)]
    #[serde(default)]
    pub partial: bool,
}

/// What became of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebuildView {
    /// `network`, `image`, `node`, `volume` or `tag`.
    pub object: String,
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Option<Owner>,
    /// `restored` (with --check: would be), `there`, `removed`, `left`.
    pub outcome: String,
    /// What could not be known, what is another now, why it is left.
    pub message: String,
}

impl StateRebuild {
    fn server(&self, view: &dyn View) -> Result<Server, Fault> {
        let server = datastore::find(view, &self.datastore)?;
        match server.state {
            ServerState::Active | ServerState::Adopted => Ok(server),
            _ => Err(Fault::conflict(format!("datastore {} is being made or removed", server.name))
                .fix(format!("`bmictl datastore show {}` tells its state", server.name))),
        }
    }

    fn work<'a>(
        &self,
        view: &'a dyn View,
        server: &Server,
        facts: &Facts,
        given: Given<'_>,
    ) -> Result<Option<(Work<'a>, Contents)>, Fault> {
        let Some(contents) = contents(server, facts)? else { return Ok(None) };
        let Given { now, dice, seal } = given;
        let interfaces = interfaces(facts);
        let mut with = With { server, interfaces: &interfaces, partial: self.partial, now, dice, seal };
        Ok(Some((work(view, &contents.things, &mut with)?, contents)))
    }
}

/// What differs between a plan and an answer about it.
struct Given<'a> {
    now: crate::model::Time,
    dice: &'a mut dyn FnMut(&mut [u8]),
    seal: &'a dyn Fn(&str) -> crate::model::Sealed,
}

/// All that stands there. None: it was not asked for.
pub(in crate::ops) fn contents(server: &Server, facts: &Facts) -> Result<Option<Contents>, Fault> {
    match look(server).and_then(|l| facts.get(&l).cloned()) {
        Some(Fact::Contents(contents)) => Ok(Some(contents)),
        Some(Fact::Unknown(why)) => Err(Fault::new(
            crate::model::Kind::Unavailable,
            format!("datastore {} cannot be looked through: {why}", server.name),
        )
        .fix(format!("`bmictl datastore show {}` and `bmictl doctor` say more", server.name))),
        _ => Ok(None),
    }
}

/// The question for it.
pub(in crate::ops) fn look(server: &Server) -> Option<Look> {
    server.place.as_ref().map(|p| Look::Contents(server.id, p.into()))
}

fn interfaces(facts: &Facts) -> Vec<InterfaceFacts> {
    match facts.get(&Look::Interfaces) {
        Some(Fact::Interfaces(all)) => all.clone(),
        // Without them no network is put together again; what has one is restored.
        _ => Vec::new(),
    }
}

impl Op for StateRebuild {
    type Out = RebuildView;

    const SHEET: Sheet = Sheet {
        noun: "state",
        verb: "rebuild",
        about: "Restore the records of a lost state folder out of what stands on a datastore",
        examples: &["state rebuild --datastore ceph --check", "state rebuild --datastore ceph"],
        effect: Effect::Change,
        shape: Shape::Many,
        right: Right::Admin,
        columns: &["object", "name", "owner", "outcome", "message"],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let server = self.server(at.view)?;
        Ok(look(&server).into_iter().chain([Look::Interfaces]).collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let server = self.server(cx.view)?;
        let given = Given { now: cx.now, dice: cx.dice, seal: cx.seal };
        let Some((work, _)) = self.work(cx.view, &server, cx.facts, given)? else {
            return Err(Fault::internal("what stands there was not asked for"));
        };
        let mut part = PartPlan::default();
        part.changes.push(server.id);
        for made in &work.made {
            part.about(made.noun, made.id, &made.name);
        }
        part.commit.extend(work.rows.iter().cloned().map(Change::Put));
        if server.state == ServerState::Adopted && (work.left.is_empty() || self.partial) {
            part.commit.push(Server { state: ServerState::Active, ..server.clone() }.into());
        }
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<RebuildView>, Fault> {
        let server = self.server(at.view)?;
        let mut dice = |b: &mut [u8]| b.fill(1);
        let given = Given { now: at.now, dice: &mut dice, seal: &|_| crate::model::Sealed(Vec::new()) };
        let Some((work, contents)) = self.work(at.view, &server, at.facts, given)? else {
            // Answered again, later: what was restored is known, what was found beside it is not.
            let told = |s: &crate::model::Subject| told(&work_free(at.view), &s.noun, s.id, "restored", String::new());
            return Ok(at.subjects.iter().map(told).collect());
        };
        Ok(answer(at, &work, &contents))
    }
}

/// A view for telling, without changes.
fn work_free(view: &dyn View) -> crate::rules::After<'_> {
    crate::rules::After::new(view)
}

fn answer(at: &Answering<'_>, work: &Work<'_>, contents: &Contents) -> Vec<RebuildView> {
    let restored: Vec<Id> = at.subjects.iter().map(|s| s.id).collect();
    let mut out = Vec::new();
    for subject in at.subjects.iter().filter(|s| s.noun == "network") {
        out.push(told(&work.after, "network", subject.id, "restored", String::new()));
    }
    let mut generations: BTreeMap<Id, u32> = BTreeMap::new();
    for thing in &contents.things {
        let newest = generations.entry(thing.what.id).or_default();
        *newest = thing.what.generation.max(*newest);
    }
    for thing in &contents.things {
        if let Some(view) = told_of(at.view, work, thing, &restored, generations[&thing.what.id]) {
            out.push(view);
        }
    }
    let order = ["network", "image", "node", "volume", "tag"];
    out.sort_by_key(|v| (order.iter().position(|o| *o == v.object), v.name.clone(), v.id));
    out
}

/// What is told of one thing.
fn told_of(view: &dyn View, work: &Work<'_>, thing: &Thing, restored: &[Id], newest: u32) -> Option<RebuildView> {
    let id = thing.what.id;
    let (noun, object) = subject(work, thing);
    let stands = work.after.row(table(thing.what.kind), id).ok().flatten();
    if thing.what.generation != newest || is_another(stands.as_ref(), thing) {
        let why = match &stands {
            Some(Row::Volume(v)) if v.generation < thing.what.generation => {
                "a newer generation of a disk than its record knows: the records are older than the bytes".to_owned()
            }
            _ => "an older generation of a disk; no record wants it, `bmictl datastore scan` lists it".to_owned(),
        };
        return Some(told(&work.after, noun, object, "left", why));
    }
    if let Some(why) = work.left.get(&id) {
        return Some(told(&work.after, noun, object, "left", why.clone()));
    }
    let live = stands.as_ref().is_some_and(|row| !row.indexes().is_empty());
    if restored.contains(&object) {
        return Some(told(&work.after, noun, object, "restored", differences(work, thing)));
    }
    if live && known(view, thing).unwrap_or(true) {
        return Some(told(&work.after, noun, object, "there", String::new()));
    }
    let why = "it was removed; its bytes are an orphan, `bmictl datastore scan` lists them".to_owned();
    (!live).then(|| told(&work.after, noun, object, "removed", why))
}

/// Bytes of a volume whose record stands with other bytes.
fn is_another(row: Option<&Row>, thing: &Thing) -> bool {
    matches!(row, Some(Row::Volume(v)) if v.deleted_at.is_none() && v.generation != thing.what.generation)
}

/// What it is for people: a node's disk is the node.
fn subject(work: &Work<'_>, thing: &Thing) -> (&'static str, Id) {
    match thing.what.kind {
        BackingKind::Image => ("image", thing.what.id),
        BackingKind::Snapshot => ("tag", thing.what.id),
        BackingKind::Volume => {
            let key = under(thing.what.id, &[]);
            match work.after.by_key::<Attachment>(Index::AttachmentOfVolume, &key) {
                Ok(Some(attachment)) => ("node", attachment.node),
                _ => ("volume", thing.what.id),
            }
        }
    }
}

fn told(view: &dyn View, noun: &str, id: Id, outcome: &str, message: String) -> RebuildView {
    let known = match noun {
        "network" => view.get::<Network>(id).ok().flatten().map(|n| (n.name.to_string(), n.owner)),
        "image" => view.get::<Image>(id).ok().flatten().map(|i| (i.name.to_string(), Some(i.owner))),
        "node" => view.get::<Node>(id).ok().flatten().map(|n| (n.name.to_string(), Some(n.owner))),
        "tag" => view.get::<Snapshot>(id).ok().flatten().map(|s| (s.name.to_string(), Some(s.owner))),
        _ => view.get::<Volume>(id).ok().flatten().map(|v| (crate::ops::volume::called(&v), Some(v.owner))),
    };
    let (name, owner) = known.unwrap_or_else(|| (id.to_string(), None));
    RebuildView { object: noun.to_owned(), id, name, owner, outcome: outcome.to_owned(), message }
}

/// What a restored record could not keep, or never knew.
fn differences(work: &Work<'_>, thing: &Thing) -> String {
    let view = &work.after;
    let mut said = Vec::new();
    let mut name = |had: &str, has: String| {
        if had != has {
            said.push(format!("its name {had} is taken"));
        }
    };
    match &thing.note {
        None => said.push("nothing is written beside it: its name, owner and origin are not known".to_owned()),
        Some(Note::Image(note)) => {
            if let Ok(Some(image)) = view.get::<Image>(thing.what.id) {
                name(note.name.as_str(), image.name.to_string());
            }
        }
        Some(Note::Snapshot(note)) => {
            if let Ok(Some(tag)) = view.get::<Snapshot>(thing.what.id) {
                name(note.name.as_str(), tag.name.to_string());
            }
        }
        Some(Note::Volume(note)) => {
            if let Some(note) = &note.node {
                node_differences(view, note, &mut said);
            }
        }
    }
    said.join("; ")
}

fn node_differences(view: &dyn View, note: &crate::model::NodeNote, said: &mut Vec<String>) {
    let (Ok(Some(node)), Ok(target)) =
        (view.get::<Node>(note.id), view.by_key::<Target>(Index::TargetOf, &under(note.id, &[])))
    else {
        said.push(format!("node {} could not be restored: this is its disk", note.name));
        return;
    };
    if node.name != note.name {
        said.push(format!("its name {} is taken", note.name));
    }
    if node.network != note.network.id
        && let Ok(Some(network)) = view.get::<Network>(node.network)
    {
        said.push(format!("it boots on network {} now", network.name));
    }
    if let (Some(had), Some(has)) = (note.address, node.address)
        && had != has
    {
        said.push(format!("its address {had} is taken or of another network: it gets {has}"));
    }
    if let Some(chap) = target.and_then(|t| t.chap) {
        let out = chap.mode == crate::model::ChapMode::OutOfBand;
        let told = if out { ", and its firmware must be told it" } else { "" };
        said.push(format!(
            "its CHAP secret is lost: `bmictl node chap-secret {} --rotate` makes a new one{told}",
            node.name
        ));
    }
}
