//! Tags: restore points of a node's boot disk.

pub mod change;
pub mod create;
pub mod list;
pub mod rollback;

use serde::{Deserialize, Serialize};

use crate::model::record::under;
use crate::model::{Bytes, Fault, Id, Index, Node, Owner, Snapshot, Time, View, ViewExt};

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
}

/// The tags of a node, oldest first.
pub fn of(view: &dyn View, node: Id) -> Result<Vec<Snapshot>, Fault> {
    let mut tags: Vec<Snapshot> = view.all(Index::TagsOf, &under(node, &[]))?;
    tags.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(tags)
}

/// As shown.
#[must_use]
pub fn view_of(tag: &Snapshot, node: &Node) -> TagView {
    TagView {
        id: tag.id,
        name: tag.name.to_string(),
        node: node.name.to_string(),
        owner: tag.owner.clone(),
        volume: tag.volume,
        active: tag.active,
        size_bytes: tag.size_bytes,
        created_at: tag.created_at,
        operation: tag.operation,
    }
}
