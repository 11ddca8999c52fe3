//! Which records follow from what stands on a datastore. Pure: rows, what was found and random bytes in; rows that are missing
//! out, and what could not be restored and why. A live record is never touched, and what was removed is never brought back.

use std::collections::{BTreeMap, BTreeSet};

use super::networks;
use crate::model::net::octets;
use crate::model::record::{mac_key, owned, under};
use crate::model::{
    Attachment, Bytes, Dhcp, Fault, Format, Id, Image, ImageNote, ImageStatus, Index, Name, Network, Node, NodeNote,
    NodeState, Note, Owner, Role, Row, Sealed, Server, Snapshot, SnapshotNote, Table, Target, Time, View, ViewExt,
    Visibility, Volume, VolumeNote, VolumeStatus,
};
use crate::ops::node::secret;
use crate::ops::volume;
use crate::rules::{After, allocate};
use crate::step::{BackingKind, InterfaceFacts, Thing};

/// What a rebuild may use.
pub(super) struct With<'a> {
    /// The datastore.
    pub(super) server: &'a Server,
    /// The host's interfaces.
    pub(super) interfaces: &'a [InterfaceFacts],
    /// Disks of nodes that cannot be restored become volumes of their own.
    pub(super) partial: bool,
    /// Now.
    pub(super) now: Time,
    /// Random bytes.
    pub(super) dice: &'a mut dyn FnMut(&mut [u8]),
    /// Seals a secret.
    pub(super) seal: &'a dyn Fn(&str) -> Sealed,
}

impl With<'_> {
    pub(super) fn number(&mut self) -> u32 {
        let mut b = [0u8; 4];
        (self.dice)(&mut b);
        u32::from_le_bytes(b)
    }
}

/// A record that was put together, in the order in which they are put.
pub(super) struct Made {
    /// `image`, `network`, `node`, `volume` or `tag`.
    pub(super) noun: &'static str,
    /// Its id.
    pub(super) id: Id,
    /// Its name.
    pub(super) name: String,
}

/// The work, and what came of it.
pub(super) struct Work<'a> {
    /// Rows as they would stand.
    pub(super) after: After<'a>,
    /// New rows.
    pub(super) rows: Vec<Row>,
    /// What they are of.
    pub(super) made: Vec<Made>,
    /// What cannot be restored, and why.
    pub(super) left: BTreeMap<Id, String>,
}

/// Puts together what is missing.
pub(super) fn work<'a>(view: &'a dyn View, things: &[Thing], with: &mut With<'_>) -> Result<Work<'a>, Fault> {
    let mut work = Work { after: After::new(view), rows: Vec::new(), made: Vec::new(), left: BTreeMap::new() };
    let mut things: Vec<&Thing> = things.iter().collect();
    // Images, volumes, snapshots; of a volume the newest generation first.
    things.sort_by_key(|t| (t.what.kind, t.what.id, std::cmp::Reverse(t.what.generation)));
    let mut seen = BTreeSet::new();
    for thing in things {
        let id = thing.what.id;
        if !seen.insert(id) || known(view, thing)? {
            continue;
        }
        match thing.what.kind {
            BackingKind::Image => work.image(thing, with)?,
            BackingKind::Volume => work.volume(thing, with)?,
            BackingKind::Snapshot => work.snapshot(thing, with)?,
        }
    }
    Ok(work)
}

/// Whether there is a row, be it of something that was removed.
pub(super) fn known(view: &dyn View, thing: &Thing) -> Result<bool, Fault> {
    Ok(view.row(table(thing.what.kind), thing.what.id)?.is_some())
}

/// The table of a kind.
pub(in crate::ops) fn table(kind: BackingKind) -> Table {
    match kind {
        BackingKind::Image => Table::Image,
        BackingKind::Volume => Table::Volume,
        BackingKind::Snapshot => Table::Snapshot,
    }
}

/// What something without a note is called.
fn found_name(id: Id) -> Result<Name, Fault> {
    format!("recovered-{}", id.short()).parse().map_err(|_| Fault::internal("an id makes a name"))
}

/// `name` if it is free, else the first free one of `name-2`, `name-3`, and so on.
pub(super) fn free(name: &Name, taken: impl Fn(&Name) -> Result<bool, Fault>) -> Result<Name, Fault> {
    if !taken(name)? {
        return Ok(name.clone());
    }
    let base: String = name.as_str().chars().take(56).collect();
    for n in 2..100_000 {
        if let Ok(next) = format!("{base}-{n}").parse::<Name>()
            && !taken(&next)?
        {
            return Ok(next);
        }
    }
    Err(Fault::internal(format!("no name like {name} is free")))
}

impl Work<'_> {
    pub(super) fn put(&mut self, row: impl Into<Row>) {
        let row = row.into();
        self.after.put(row.clone());
        self.rows.push(row);
    }

    pub(super) fn made(&mut self, noun: &'static str, id: Id, name: impl ToString) {
        self.made.push(Made { noun, id, name: name.to_string() });
    }

    fn image(&mut self, thing: &Thing, with: &mut With<'_>) -> Result<(), Fault> {
        let id = thing.what.id;
        let note = match &thing.note {
            Some(Note::Image(note)) => (**note).clone(),
            _ => ImageNote {
                owner: Owner::default_project(),
                name: found_name(id)?,
                visibility: Visibility::Private,
                is_snapshot: false,
                provisioned_instance_id: None,
                source_format: None,
                size_bytes: thing.size.unwrap_or(Bytes(0)),
                md5: None,
                sha256: None,
                raw_sha256: None,
                protected: false,
                properties: BTreeMap::new(),
                created_at: with.now,
                location: None,
            },
        };
        let found = thing.imported.as_ref();
        let taken = |n: &Name| Ok(self.after.find(Index::ImageName, &owned(&note.owner, n))?.is_some());
        let image = Image {
            id,
            name: free(&note.name, taken)?,
            owner: note.owner,
            status: ImageStatus::Active,
            visibility: note.visibility,
            is_snapshot: note.is_snapshot,
            provisioned_instance_id: note.provisioned_instance_id,
            datastore: with.server.id,
            disk_format: Format::Raw,
            source_format: found.map(|f| f.source_format).or(note.source_format),
            size_bytes: found.map_or(note.size_bytes, |f| f.size_bytes),
            md5: found.map(|f| f.md5.clone()).or(note.md5),
            sha256: found.map(|f| f.sha256.clone()).or(note.sha256),
            raw_sha256: found.map(|f| f.raw_sha256.clone()).or(note.raw_sha256),
            protected: note.protected,
            properties: note.properties,
            created_at: note.created_at,
            updated_at: with.now,
            deleted_at: None,
            operation: None,
            location: note.location,
        };
        self.made("image", id, &image.name);
        self.put(image);
        Ok(())
    }

    fn volume(&mut self, thing: &Thing, with: &mut With<'_>) -> Result<(), Fault> {
        let id = thing.what.id;
        let note = match &thing.note {
            Some(Note::Volume(note)) => (**note).clone(),
            _ => VolumeNote {
                owner: Owner::default_project(),
                name: Some(found_name(id)?),
                image: None,
                role: Role::Data,
                size_bytes: thing.size.unwrap_or(Bytes(0)),
                created_at: with.now,
                node: None,
            },
        };
        let mut volume = Volume {
            id,
            owner: note.owner,
            name: note.name,
            image: note.image,
            datastore: with.server.id,
            generation: thing.what.generation,
            role: note.role,
            size_bytes: note.size_bytes,
            status: if note.node.is_some() { VolumeStatus::InUse } else { VolumeStatus::Available },
            created_at: note.created_at,
            deleted_at: None,
            operation: None,
        };
        if let Some(node) = note.node {
            match self.node(&volume, &node, with)? {
                Ok(()) => return Ok(()),
                Err(why) if !with.partial => {
                    self.left.insert(id, why);
                    return Ok(());
                }
                Err(_) => {
                    let name = volume.name.take().unwrap_or(node.name);
                    volume.name = Some(volume::free_name(&self.after, &volume.owner, &name)?);
                    volume.role = Role::Data;
                    volume.status = VolumeStatus::Available;
                }
            }
        }
        self.made("volume", id, volume::called(&volume));
        self.put(volume);
        Ok(())
    }

    /// A node with its disk, target and network; or why it cannot be.
    fn node(&mut self, volume: &Volume, note: &NodeNote, with: &mut With<'_>) -> Result<Result<(), String>, Fault> {
        let name = &note.name;
        if self.after.get::<Node>(note.id)?.is_some() {
            return Ok(Err(format!("node {name} is there and has another disk")));
        }
        if let Some(other) = self.after.by_key::<Node>(Index::NodeMac, &mac_key(note.mac))? {
            let other = other.name;
            return Ok(Err(format!(
                "node {name}: its card {} is that of node {other}; deprovision that one",
                note.mac
            )));
        }
        if self.after.find(Index::TargetIqn, note.target.iqn.as_bytes())?.is_some() {
            return Ok(Err(format!("node {name}: another node has its target {}", note.target.iqn)));
        }
        let network = match networks::of(self, &note.network, with)? {
            Ok(network) => network,
            Err(why) => return Ok(Err(format!("node {name}: {why}"))),
        };
        let taken = |n: &Name| Ok(self.after.find(Index::NodeName, &owned(&note.owner, n))?.is_some());
        let node = Node {
            id: note.id,
            name: free(name, taken)?,
            owner: note.owner.clone(),
            kind: note.kind,
            mac: note.mac,
            nic: note.nic.clone(),
            network: network.id,
            address: self.address(&network, note, with)?,
            state: if note.detached == Some(true) { NodeState::Detached } else { NodeState::Ready },
            cause: None,
            settings: note.settings.clone(),
            created_at: note.created_at,
            updated_at: with.now,
            operation: None,
        };
        let target = self.target(&network, note, with)?;
        let attachment = Attachment {
            id: note.attachment,
            node: node.id,
            volume: volume.id,
            lun: note.lun,
            created_at: note.created_at,
        };
        self.made("node", node.id, &node.name);
        self.put(node);
        self.put(volume.clone());
        self.put(target);
        self.put(attachment);
        Ok(Ok(()))
    }

    /// The address it had, if it is free and of its network; else another one.
    fn address(
        &self,
        network: &Network,
        note: &NodeNote,
        with: &mut With<'_>,
    ) -> Result<Option<std::net::IpAddr>, Fault> {
        if !matches!(network.dhcp, Dhcp::Serve | Dhcp::Ipv6) {
            return Ok(None);
        }
        if let Some(had) = note.address
            && !network.keeps(had)
            && allocate::pool(network).contains(had)
            && self.after.find(Index::NodeAddress, &under(network.id, &octets(had)))?.is_none()
        {
            return Ok(Some(had));
        }
        let start = with.number();
        allocate::address(&self.after, network, start, &[]).map(Some)
    }

    fn target(&self, network: &Network, note: &NodeNote, with: &mut With<'_>) -> Result<Target, Fault> {
        let had = &note.target;
        let free = self.after.find(Index::TargetTid, &under(network.id, &had.tid.to_be_bytes()))?.is_none();
        let tid = if free { had.tid } else { allocate::tid(&self.after, network.id, || with.number(), &[])? };
        Ok(Target {
            id: had.id,
            node: note.id,
            network: network.id,
            tid,
            iqn: had.iqn.clone(),
            initiator: had.initiator.clone(),
            chap: had.chap.map(|mode| secret::drawn(with.dice, with.seal, note.id, mode)),
            created_at: note.created_at,
        })
    }

    fn snapshot(&mut self, thing: &Thing, with: &mut With<'_>) -> Result<(), Fault> {
        let id = thing.what.id;
        let Some(note) = self.snapshot_note(thing, with)? else {
            let why = "it is not known of which disk it is a tag, or that disk has no record";
            self.left.insert(id, why.to_owned());
            return Ok(());
        };
        let there = match note.node {
            Some(node) => self.after.get::<Node>(node)?,
            None => None,
        };
        let Some(node) = there else {
            self.left.insert(id, format!("tag {}: its node has no record", note.name));
            return Ok(());
        };
        let key = |n: &Name| under(node.id, n.as_str().as_bytes());
        let name = free(&note.name, |n| Ok(self.after.find(Index::TagName, &key(n))?.is_some()))?;
        let tag = Snapshot {
            id,
            owner: note.owner,
            name,
            volume: note.volume,
            node: Some(node.id),
            datastore: with.server.id,
            size_bytes: note.size_bytes,
            image: note.image,
            active: true,
            created_at: note.created_at,
            deleted_at: None,
            operation: None,
        };
        self.made("tag", id, &tag.name);
        self.put(tag);
        Ok(())
    }

    /// Its note, or what can be said without one. None: its volume has no record.
    fn snapshot_note(&self, thing: &Thing, with: &With<'_>) -> Result<Option<SnapshotNote>, Fault> {
        let noted = match &thing.note {
            Some(Note::Snapshot(note)) => Some((**note).clone()),
            _ => None,
        };
        let Some(of) = noted.as_ref().map(|n| n.volume).or(thing.of) else { return Ok(None) };
        let Some(volume) = self.after.get::<Volume>(of)?.filter(|v| v.deleted_at.is_none()) else { return Ok(None) };
        if noted.is_some() {
            return Ok(noted);
        }
        let disk = volume::attachment(&self.after, of)?;
        Ok(Some(SnapshotNote {
            owner: volume.owner,
            name: found_name(thing.what.id)?,
            volume: of,
            node: disk.map(|a| a.node),
            size_bytes: thing.size.unwrap_or(volume.size_bytes),
            image: volume.image,
            created_at: with.now,
        }))
    }
}
