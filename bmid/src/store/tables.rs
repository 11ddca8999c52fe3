//! Every table and key layout of the store, on one screen. All rows live in one sled tree; a key's first byte is its table.
//!
//! Append only: a byte that was ever used for a table means that table for ever. Nothing here may read or write.

use bmi::model::{
    Attachment, EngineNetwork, Id, Image, Index, IndexKey, Network, Node, Owner, Project, Record, Server, Snapshot,
    Table, Target, Time, Vlan, Volume,
};

// byte  table     rest of the key                value
// ----  --------  -----------------------------  ---------------------------------------------------------
// 00    meta      -                              version + Meta
// 00    displaced 01                             version + Displaced, while a dump is taken in
// 01-3f rows      id 16                          version + record; the byte is the number of `model::Table`
// 40    usage     owner                          version + Usage; absent: all zero
// 41    intent    id 16                          version + Intent
// 42    part      intent 16, index be32          version + StoredPart
// 43    answer    id 16                          version + Answer
// 44    event     at be64, id 16                 version + Event
// 45    reached   -                              version + number of the last commit that sled has, be64; absent: 0
// 50    unique    index 1, key                   id 16
// 51    listing   index 1, key, id 16            nothing
// 60    chunk     head's whole key, number be16  a piece of a long value
/// The store's own record.
pub(super) const META: u8 = 0x00;
/// What owners hold.
pub(super) const USAGE: u8 = 0x40;
/// Open operations.
pub(super) const INTENT: u8 = 0x41;
/// Their parts.
pub(super) const PART: u8 = 0x42;
/// Ended operations.
pub(super) const ANSWER: u8 = 0x43;
/// The audit trail.
pub(super) const EVENT: u8 = 0x44;
/// How far sled is; see feed.rs.
pub(super) const REACHED: u8 = 0x45;
/// Indexes whose key belongs to one id.
pub(super) const UNIQUE: u8 = 0x50;
/// Indexes whose key lists ids.
pub(super) const LISTING: u8 = 0x51;
/// Pieces of values longer than [`PIECE`].
pub(super) const CHUNK: u8 = 0x60;

/// Longest value given to sled. A leaf of sled's tree holds up to 17 of them, and one over 128 KiB would spill into a file
/// of its own in `blobs/`, whose making and removal no fdatasync of ours covers. 17 pieces of 4 KiB never do.
pub(super) const PIECE: usize = 4096;
/// An object row is smaller than this, or refused. Only the journal's records may be longer.
pub(super) const ROW_LIMIT: usize = 64 * 1024;
/// A record of the journal is at most this long: a bulk operation's request is at most one frame of 1 MiB.
pub(super) const JOURNAL_LIMIT: usize = 16 * 1024 * 1024;
/// First byte of a head whose value lies in chunks (u32 count, big-endian, follows). No version reaches it.
pub(super) const SPLIT: u8 = 0xff;

/// Versions of the journal's stored shapes; those of object rows are `Record::VERSION`.
pub(super) const META_VERSION: u8 = 1;
/// See [`META_VERSION`].
pub(super) const USAGE_VERSION: u8 = 1;
/// See [`META_VERSION`].
pub(super) const INTENT_VERSION: u8 = 1;
/// See [`META_VERSION`].
pub(super) const PART_VERSION: u8 = 1;
/// See [`META_VERSION`].
pub(super) const ANSWER_VERSION: u8 = 1;
/// See [`META_VERSION`].
pub(super) const EVENT_VERSION: u8 = 1;

/// See [`META_VERSION`].
pub(super) const REACHED_VERSION: u8 = 1;

/// The current version of a table's rows.
pub(super) const fn version(table: Table) -> u8 {
    match table {
        Table::Project => Project::VERSION,
        Table::Server => Server::VERSION,
        Table::Network => Network::VERSION,
        Table::EngineNetwork => EngineNetwork::VERSION,
        Table::Image => Image::VERSION,
        Table::Volume => Volume::VERSION,
        Table::Snapshot => Snapshot::VERSION,
        Table::Node => Node::VERSION,
        Table::Attachment => Attachment::VERSION,
        Table::Target => Target::VERSION,
        Table::Vlan => Vlan::VERSION,
    }
}

/// The schema this release writes: the sum of all versions, so that it rises whenever one of them does or a table joins,
/// and nobody can forget to raise it.
pub const SCHEMA: u32 = {
    let mut sum = META_VERSION as u32
        + USAGE_VERSION as u32
        + INTENT_VERSION as u32
        + PART_VERSION as u32
        + ANSWER_VERSION as u32
        + EVENT_VERSION as u32
        + REACHED_VERSION as u32
        + super::log::VERSION as u32;
    let mut i = 0;
    while i < Table::ALL.len() {
        sum += version(Table::ALL[i]) as u32;
        i += 1;
    }
    sum
};

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(table);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Key of what a restore has displaced and not yet replaced.
pub(super) fn displaced() -> Vec<u8> {
    key(META, &[&[1]])
}

/// Whether a key is of what the store is for: no record about the store itself, and no piece, which goes with its head.
pub(super) fn is_content(key: &[u8]) -> bool {
    key.first().is_some_and(|table| *table != REACHED && (META + 1..CHUNK).contains(table))
}

/// Key of an object row.
pub(super) fn row(table: Table, id: Id) -> Vec<u8> {
    key(table as u8, &[&id.0])
}

/// Key of an owner's usage.
pub(super) fn usage(owner: &Owner) -> Vec<u8> {
    key(USAGE, &[owner.as_str().as_bytes()])
}

/// Key of an intent.
pub(super) fn intent(id: Id) -> Vec<u8> {
    key(INTENT, &[&id.0])
}

/// Prefix of an intent's parts.
pub(super) fn parts(intent: Id) -> Vec<u8> {
    key(PART, &[&intent.0])
}

/// Key of one part.
pub(super) fn part(intent: Id, index: u32) -> Vec<u8> {
    key(PART, &[&intent.0, &index.to_be_bytes()])
}

/// Key of an answer.
pub(super) fn answer(id: Id) -> Vec<u8> {
    key(ANSWER, &[&id.0])
}

/// Key of an event.
pub(super) fn event(at: Time, id: Id) -> Vec<u8> {
    key(EVENT, &[&at.0.to_be_bytes(), &id.0])
}

/// First key of an event after `at`.
pub(super) fn events_after(at: Time) -> Vec<u8> {
    key(EVENT, &[&at.0.saturating_add(1).to_be_bytes()])
}

/// Key of a unique index's entry.
pub(super) fn unique(index: Index, index_key: &[u8]) -> Vec<u8> {
    key(UNIQUE, &[&[index as u8], index_key])
}

/// Prefix of a listing index's entries under one key. Longer keys share it: an entry is ours if it is 16 bytes longer.
pub(super) fn listing(index: Index, index_key: &[u8]) -> Vec<u8> {
    key(LISTING, &[&[index as u8], index_key])
}

/// Key and value of the entry that `id` has because of `entry`.
pub(super) fn entry(entry: &IndexKey, id: Id) -> (Vec<u8>, Vec<u8>) {
    if entry.unique {
        (unique(entry.index, &entry.key), id.0.to_vec())
    } else {
        (key(LISTING, &[&[entry.index as u8], &entry.key, &id.0]), Vec::new())
    }
}

/// Key of piece `number` of the value at `head`.
pub(super) fn chunk(head: &[u8], number: u16) -> Vec<u8> {
    key(CHUNK, &[head, &number.to_be_bytes()])
}

/// The table with that name in dumps, of object rows.
pub(super) fn table_named(name: &str) -> Option<Table> {
    Table::ALL.into_iter().find(|t| t.as_str() == name)
}

/// What a unique index keeps apart, for people, and its name.
pub(super) fn index_words(index: Index) -> (&'static str, &'static str) {
    match index {
        Index::ProjectName => ("name", "project_name"),
        Index::ServerName => ("name", "server_name"),
        Index::ServerPath => ("path", "server_path"),
        Index::NetworkName => ("name", "network_name"),
        Index::NetworkSlot => ("slot", "network_slot"),
        Index::EngineInterface => ("interface", "engine_interface"),
        Index::ImageName => ("name", "image_name"),
        Index::TagName => ("name on that node", "tag_name"),
        Index::NodeName => ("name", "node_name"),
        Index::NodeMac => ("MAC address", "node_mac"),
        Index::NodeAddress => ("IP address", "node_address"),
        Index::AttachmentOfVolume => ("volume", "attachment_of_volume"),
        Index::TargetOf => ("node", "target_of"),
        Index::TargetTid => ("target number", "target_tid"),
        Index::TargetIqn => ("IQN", "target_iqn"),
        Index::NetworkVlan => ("VLAN", "network_vlan"),
        Index::VlanNumber => ("number", "vlan_number"),
        Index::Live => ("table", "live"),
        Index::EngineNetworksOf => ("network", "engine_networks_of"),
        Index::InDatastore => ("datastore", "in_datastore"),
        Index::VolumesOfImage => ("image", "volumes_of_image"),
        Index::SnapshotsOfVolume => ("volume", "snapshots_of_volume"),
        Index::TagsOf => ("node", "tags_of"),
        Index::NodesOf => ("network", "nodes_of"),
        Index::AttachmentsOf => ("node", "attachments_of"),
    }
}
