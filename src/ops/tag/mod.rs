//! Tags: restore points of a node's boot disk.

pub mod change;
pub mod create;
pub mod list;
pub mod rollback;

use serde::{Deserialize, Serialize};

use crate::model::record::under;
use crate::model::{Bytes, Fault, Id, Index, Node, Owner, Server, Snapshot, Time, View, ViewExt};
use crate::ops::Answering;
use crate::step::Backing;

/// A tag as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TagView {
    /// Id.
    pub id: Id,
    /// Name.
    pub name: String,
    /// Node's name.
    pub node: String,
    /// Owner.
    pub owner: Owner,
    /// The volume it was taken of.
    pub volume: Id,
    /// Whether it can be used.
    pub active: bool,
    /// Exact size of the disk then.
    pub size_bytes: Bytes,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
    /// Datastore's name.
    pub datastore: String,
    /// What its bytes are called where they are, whatever its name.
    pub outside_name: String,
    /// The file, or `rbd:POOL/*@SNAPSHOT`: in a pool it is a snapshot of that name.
    pub location: Option<String>,
}

/// The tags of a node, oldest first.
pub fn of(view: &dyn View, node: Id) -> Result<Vec<Snapshot>, Fault> {
    let mut tags: Vec<Snapshot> = view.all(Index::TagsOf, &under(node, &[]))?;
    tags.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(tags)
}

/// As shown.
pub fn view_of(view: &dyn View, tag: &Snapshot, node: &Node) -> Result<TagView, Fault> {
    let (store, backing) = (view.must::<Server>(tag.datastore)?, Backing::snapshot(tag.id));
    Ok(TagView {
        id: tag.id,
        name: tag.name.to_string(),
        node: node.name.to_string(),
        owner: tag.owner.clone(),
        volume: tag.volume,
        active: tag.active,
        size_bytes: tag.size_bytes,
        created_at: tag.created_at,
        operation: tag.operation,
        datastore: store.name.to_string(),
        outside_name: backing.name(),
        location: store.place.as_ref().map(|place| backing.location(place)),
    })
}

/// The node of a tag.
pub fn node_of(view: &dyn View, tag: &Snapshot) -> Result<Node, Fault> {
    view.must(tag.node.ok_or_else(|| Fault::internal(format!("tag {} has no node", tag.name)))?)
}

/// One tag as shown.
pub fn shown(view: &dyn View, tag: &Snapshot) -> Result<TagView, Fault> {
    view_of(view, tag, &node_of(view, tag)?)
}

/// The tags an operation was about, as shown.
fn about(at: &Answering<'_>) -> Result<Vec<TagView>, Fault> {
    at.subjects.iter().filter(|s| s.noun == "tag").map(|s| shown(at.view, &at.view.must::<Snapshot>(s.id)?)).collect()
}
