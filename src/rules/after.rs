//! Rows as they would stand after some changes. Pure: it lays changes over a view and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Change, Fault, Id, Index, Meta, Owner, Row, Table, Usage, View};

/// A view with changes laid over it. Usage is that of the view beneath.
pub struct After<'a> {
    base: &'a dyn View,
    rows: BTreeMap<(Table, Id), Option<Row>>,
}

impl<'a> After<'a> {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(base: &'a dyn View) -> After<'a> {
        After { base, rows: BTreeMap::new() }
    }

    /// Lays a change over what there is.
    pub fn change(&mut self, change: &Change) {
        let row = match change {
            Change::Put(row) => Some(row.clone()),
            Change::Delete(..) => None,
        };
        self.rows.insert(change.key(), row);
    }

    /// Puts a row.
    pub fn put(&mut self, row: impl Into<Row>) {
        self.change(&Change::Put(row.into()));
    }

    fn holders(&self, index: Index, key: &[u8]) -> impl Iterator<Item = Id> {
        let holds = move |row: &&Row| row.indexes().iter().any(|e| e.index == index && e.key == key);
        self.rows.values().flatten().filter(holds).map(Row::id).collect::<Vec<_>>().into_iter()
    }

    /// Whether a row that held an entry beneath does so no more.
    fn moved(&self, id: Id) -> bool {
        self.rows.keys().any(|(_, changed)| *changed == id)
    }
}

impl View for After<'_> {
    fn row(&self, table: Table, id: Id) -> Result<Option<Row>, Fault> {
        match self.rows.get(&(table, id)) {
            Some(row) => Ok(row.clone()),
            None => self.base.row(table, id),
        }
    }

    fn find(&self, index: Index, key: &[u8]) -> Result<Option<Id>, Fault> {
        if let Some(id) = self.holders(index, key).next() {
            return Ok(Some(id));
        }
        Ok(self.base.find(index, key)?.filter(|id| !self.moved(*id)))
    }

    fn ids(&self, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault> {
        let mut ids: BTreeSet<Id> = self.base.ids(index, key)?.into_iter().filter(|id| !self.moved(*id)).collect();
        ids.extend(self.holders(index, key));
        Ok(ids.into_iter().collect())
    }

    fn usage(&self, owner: &Owner) -> Result<Usage, Fault> {
        self.base.usage(owner)
    }

    fn meta(&self) -> &Meta {
        self.base.meta()
    }
}
