//! What can be stored: the closed list of tables, the rows in them, the indexes over them, and a change to one row.
//!
//! Order is frozen: a table's and an index's number is the first byte of its keys, a row's position is in every stored
//! intent. Append only.

use serde::{Deserialize, Serialize};

use super::{
    Attachment, EngineNetwork, Id, Image, Mac, Name, Network, Node, Owner, Project, Server, ServerKind, Snapshot,
    Target, Vlan, Volume,
};

/// The tables of object rows. The journal's own tables are the store's affair. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// [`Project`]
    Project = 1,
    /// [`Server`]
    Server = 2,
    /// [`Network`]
    Network = 3,
    /// [`EngineNetwork`]
    EngineNetwork = 4,
    /// [`Image`]
    Image = 5,
    /// [`Volume`]
    Volume = 6,
    /// [`Snapshot`]
    Snapshot = 7,
    /// [`Node`]
    Node = 8,
    /// [`Attachment`]
    Attachment = 9,
    /// [`Target`]
    Target = 10,
    /// [`Vlan`]
    Vlan = 11,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 11] = [
        Table::Project,
        Table::Server,
        Table::Network,
        Table::EngineNetwork,
        Table::Image,
        Table::Volume,
        Table::Snapshot,
        Table::Node,
        Table::Attachment,
        Table::Target,
        Table::Vlan,
    ];

    /// The name dumps and messages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Project => "project",
            Table::Server => "server",
            Table::Network => "network",
            Table::EngineNetwork => "engine_network",
            Table::Image => "image",
            Table::Volume => "volume",
            Table::Snapshot => "snapshot",
            Table::Node => "node",
            Table::Attachment => "attachment",
            Table::Target => "target",
            Table::Vlan => "vlan",
        }
    }
}

/// The indexes. A unique one maps its key to one id, another lists ids under its key. They cover live rows only. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Index {
    /// Lists all live rows of a table; key: the table's number.
    Live = 1,
    /// Unique; key: name.
    ProjectName = 2,
    /// Unique; key: kind, name.
    ServerName = 3,
    /// Unique; key: the datastore's path.
    ServerPath = 4,
    /// Unique; key: owner (empty: everyone's), name.
    NetworkName = 5,
    /// Unique; key: slot.
    NetworkSlot = 6,
    /// Unique; key: engine, interface (an untagged interface serves one network).
    EngineInterface = 7,
    /// Lists; key: network.
    EngineNetworksOf = 8,
    /// Unique; key: owner, name.
    ImageName = 9,
    /// Lists images, volumes and snapshots; key: datastore.
    InDatastore = 10,
    /// Lists volumes; key: image.
    VolumesOfImage = 11,
    /// Lists snapshots; key: volume.
    SnapshotsOfVolume = 12,
    /// Unique; key: node, name.
    TagName = 13,
    /// Lists tags; key: node.
    TagsOf = 14,
    /// Unique; key: owner, name.
    NodeName = 15,
    /// Unique; key: MAC.
    NodeMac = 16,
    /// Unique; key: network, address.
    NodeAddress = 17,
    /// Lists; key: network.
    NodesOf = 18,
    /// Lists; key: node.
    AttachmentsOf = 19,
    /// Unique (a volume has one attachment); key: volume.
    AttachmentOfVolume = 20,
    /// Unique; key: node.
    TargetOf = 21,
    /// Unique; key: network, tid.
    TargetTid = 22,
    /// Unique; key: IQN.
    TargetIqn = 23,
    /// Unique (a VLAN has one network at most); key: VLAN number.
    NetworkVlan = 24,
    /// Unique; key: number of a VLAN in the pool.
    VlanNumber = 25,
}

/// One entry of one index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey {
    /// Which index.
    pub index: Index,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// One id under this key, or many.
    pub unique: bool,
}

/// Builds an index key out of fields, so that no two different lists of fields give the same bytes.
#[derive(Clone, Debug, Default)]
pub struct KeyBytes(Vec<u8>);

impl KeyBytes {
    /// An empty key.
    #[must_use]
    pub fn new() -> KeyBytes {
        KeyBytes::default()
    }
    /// A text without NUL (names and owners have none), ended by one.
    #[must_use]
    pub fn text(mut self, s: &str) -> KeyBytes {
        self.0.extend_from_slice(s.as_bytes());
        self.0.push(0);
        self
    }
    /// Bytes of a fixed length.
    #[must_use]
    pub fn fixed(mut self, b: &[u8]) -> KeyBytes {
        self.0.extend_from_slice(b);
        self
    }
    /// The key.
    #[must_use]
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// `owner, name`.
#[must_use]
pub fn owned(owner: &Owner, name: &Name) -> Vec<u8> {
    KeyBytes::new().text(owner.as_str()).text(name.as_str()).done()
}

/// `owner or nobody, name`: what is everyone's is no project's.
#[must_use]
pub fn owned_or_everyones(owner: Option<&Owner>, name: &Name) -> Vec<u8> {
    KeyBytes::new().text(owner.map_or("", Owner::as_str)).text(name.as_str()).done()
}

/// `kind, name`.
#[must_use]
pub fn kinded(kind: ServerKind, name: &Name) -> Vec<u8> {
    KeyBytes::new().fixed(&[kind as u8]).text(name.as_str()).done()
}

/// `MAC`.
#[must_use]
pub fn mac_key(mac: Mac) -> Vec<u8> {
    mac.bytes().to_vec()
}

/// `id, more`.
#[must_use]
pub fn under(id: Id, more: &[u8]) -> Vec<u8> {
    KeyBytes::new().fixed(&id.0).fixed(more).done()
}

/// A record that has a table.
pub trait Record: Sized + Clone {
    /// Its table.
    const TABLE: Table;
    /// Version of its stored shape; raised with every change of a field.
    const VERSION: u8;
    /// Its primary key.
    fn id(&self) -> Id;
    /// Its index entries, none when it is not live.
    fn indexes(&self) -> Vec<IndexKey>;
    /// As a row.
    fn into_row(self) -> Row;
    /// Out of a row of its table.
    fn from_row(row: Row) -> Option<Self>;
}

fn one(index: Index, key: Vec<u8>) -> IndexKey {
    IndexKey { index, key, unique: true }
}

fn many(index: Index, key: Vec<u8>) -> IndexKey {
    IndexKey { index, key, unique: false }
}

macro_rules! rows {
    ($($t:ident $version:literal |$r:ident| $live:expr => [$($entry:expr),* $(,)?];)*) => {
        /// One object row of any table. Append only.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Row {
            $(#[doc = concat!("A row of table ", stringify!($t))] $t($t),)*
        }
        impl Row {
            /// Its table.
            #[must_use]
            pub fn table(&self) -> Table {
                match self { $(Row::$t(_) => Table::$t,)* }
            }
            /// Its id.
            #[must_use]
            pub fn id(&self) -> Id {
                match self { $(Row::$t(r) => r.id(),)* }
            }
            /// Its index entries.
            #[must_use]
            pub fn indexes(&self) -> Vec<IndexKey> {
                match self { $(Row::$t(r) => r.indexes(),)* }
            }
            /// The version of its stored shape.
            #[must_use]
            pub fn version(&self) -> u8 {
                match self { $(Row::$t(_) => $version,)* }
            }
        }
        $(
            impl Record for $t {
                const TABLE: Table = Table::$t;
                const VERSION: u8 = $version;
                fn id(&self) -> Id { self.id }
                fn indexes(&self) -> Vec<IndexKey> {
                    let $r = self;
                    if !$live { return Vec::new(); }
                    vec![many(Index::Live, vec![Table::$t as u8]), $($entry),*].into_iter().filter(|e| !e.key.is_empty()).collect()
                }
                fn into_row(self) -> Row { Row::$t(self) }
                fn from_row(row: Row) -> Option<$t> { match row { Row::$t(r) => Some(r), _ => None } }
            }
            impl From<$t> for Row { fn from(r: $t) -> Row { Row::$t(r) } }
            impl From<$t> for Change { fn from(r: $t) -> Change { Change::Put(Row::$t(r)) } }
        )*
    };
}

// An entry with an empty key is left out: that is how an index over an optional field says "none".
rows! {
    Project 1 |r| true => [one(Index::ProjectName, KeyBytes::new().text(r.name.as_str()).done())];
    Server 1 |r| true => [
        one(Index::ServerName, kinded(r.kind, &r.name)),
        one(Index::ServerPath, r.place.as_ref().map_or_else(Vec::new, |p| p.word().into_bytes())),
    ];
    Network 1 |r| true => [one(Index::NetworkName, owned_or_everyones(r.owner.as_ref(), &r.name)), one(Index::NetworkSlot, r.slot.to_be_bytes().to_vec()), one(Index::NetworkVlan, r.vlan.map(|v| v.to_be_bytes().to_vec()).unwrap_or_default())];
    EngineNetwork 1 |r| true => [
        one(Index::EngineInterface, under(r.engine, r.interface.as_bytes())),
        many(Index::EngineNetworksOf, under(r.network, &[])),
    ];
    Image 1 |r| r.deleted_at.is_none() => [one(Index::ImageName, owned(&r.owner, &r.name)), many(Index::InDatastore, under(r.datastore, &[]))];
    Volume 1 |r| r.deleted_at.is_none() => [
        many(Index::InDatastore, under(r.datastore, &[])),
        many(Index::VolumesOfImage, r.image.map(|i| under(i, &[])).unwrap_or_default()),
    ];
    Snapshot 1 |r| r.deleted_at.is_none() => [
        many(Index::InDatastore, under(r.datastore, &[])),
        many(Index::SnapshotsOfVolume, under(r.volume, &[])),
        one(Index::TagName, r.node.map(|n| under(n, r.name.as_str().as_bytes())).unwrap_or_default()),
        many(Index::TagsOf, r.node.map(|n| under(n, &[])).unwrap_or_default()),
    ];
    Node 1 |r| true => [
        one(Index::NodeName, owned(&r.owner, &r.name)),
        one(Index::NodeMac, mac_key(r.mac)),
        one(Index::NodeAddress, r.address.map(|a| under(r.network, &super::net::octets(a))).unwrap_or_default()),
        many(Index::NodesOf, under(r.network, &[])),
    ];
    Attachment 1 |r| true => [many(Index::AttachmentsOf, under(r.node, &[])), one(Index::AttachmentOfVolume, under(r.volume, &[]))];
    Target 1 |r| true => [
        one(Index::TargetOf, under(r.node, &[])),
        one(Index::TargetTid, under(r.network, &r.tid.to_be_bytes())),
        one(Index::TargetIqn, r.iqn.clone().into_bytes()),
    ];
    Vlan 1 |r| true => [one(Index::VlanNumber, r.number.to_be_bytes().to_vec())];
}

/// A change to one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The row shall stand like this.
    Put(Row),
    /// No row of that id shall stand in that table.
    Delete(Table, Id),
}

impl Change {
    /// Which row it changes.
    #[must_use]
    pub fn key(&self) -> (Table, Id) {
        match self {
            Change::Put(row) => (row.table(), row.id()),
            Change::Delete(table, id) => (*table, *id),
        }
    }

    /// Deletes this record's row.
    #[must_use]
    pub fn delete<R: Record>(record: &R) -> Change {
        Change::Delete(R::TABLE, record.id())
    }
}
