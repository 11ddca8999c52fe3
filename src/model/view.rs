//! Reading records: the only way a plan or an answer sees the store.

use super::record::{Record, owned};
use super::{Fault, Id, Index, Meta, Name, Node, Owner, Ref, Row, Table, Usage};

/// A consistent look at all rows. Faults only when the store itself fails.
pub trait View {
    /// The row of that id.
    fn row(&self, table: Table, id: Id) -> Result<Option<Row>, Fault>;
    /// The one id under a unique index's key.
    fn find(&self, index: Index, key: &[u8]) -> Result<Option<Id>, Fault>;
    /// All ids under a listing index's key, in id order.
    fn ids(&self, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault>;
    /// What a project holds.
    fn usage(&self, owner: &Owner) -> Result<Usage, Fault>;
    /// The store's own record.
    fn meta(&self) -> &Meta;
}

/// Typed reading on top of [`View`].
pub trait ViewExt: View {
    /// The record of that id.
    fn get<R: Record>(&self, id: Id) -> Result<Option<R>, Fault> {
        Ok(self.row(R::TABLE, id)?.and_then(R::from_row))
    }

    /// The record another one points to; missing means a broken reference, which only a defect can make.
    fn must<R: Record>(&self, id: Id) -> Result<R, Fault> {
        self.get(id)?.ok_or_else(|| {
            Fault::internal(format!("the record {} {id} that another one points to is missing", R::TABLE.as_str()))
        })
    }

    /// The records under a listing index's key.
    fn all<R: Record>(&self, index: Index, key: &[u8]) -> Result<Vec<R>, Fault> {
        let mut out = Vec::new();
        for id in self.ids(index, key)? {
            out.extend(self.get(id)?);
        }
        Ok(out)
    }

    /// All live records of a table.
    fn live<R: Record>(&self) -> Result<Vec<R>, Fault> {
        self.all(Index::Live, &[R::TABLE as u8])
    }

    /// The record under a unique index's key.
    fn by_key<R: Record>(&self, index: Index, key: &[u8]) -> Result<Option<R>, Fault> {
        match self.find(index, key)? {
            Some(id) => self.get(id),
            None => Ok(None),
        }
    }

    /// The object of `noun` that a command names, through the index of its owner and name.
    fn named<R: Record>(&self, noun: &str, index: Index, acting: &Owner, r: &Ref) -> Result<R, Fault> {
        let found = match r {
            Ref::Id(id) => self.get(*id)?,
            Ref::Own(name) => self.by_key(index, &owned(acting, name))?,
            Ref::Of(owner, name) => self.by_key(index, &owned(owner, name))?,
        };
        found.filter(|r: &R| !r.indexes().is_empty()).ok_or_else(|| Fault::not_found(noun, r))
    }

    /// The node a command names.
    fn node(&self, acting: &Owner, r: &Ref) -> Result<Node, Fault> {
        self.named("node", Index::NodeName, acting, r)
    }

    /// The tag `name` of a node.
    fn tag(&self, node: &Node, name: &Name) -> Result<super::Snapshot, Fault> {
        let key = super::record::under(node.id, name.as_str().as_bytes());
        self.by_key(Index::TagName, &key)?.ok_or_else(|| {
            Fault::not_found("tag", format!("{name} of node {}", node.name))
                .fix(format!("`bmictl tag ls {}` lists its tags", node.name))
        })
    }
}

impl<V: View + ?Sized> ViewExt for V {}
