//! What should be written beside an object's bytes, out of its rows. Pure; used when bytes are made, when rows change, and
//! when the outside is compared with the rows, so that the three can never disagree.

use crate::model::record::under;
use crate::model::{
    Attachment, Chap, Fault, Id, Image, ImageNote, Index, Network, NetworkNote, Node, NodeNote, NodeState, Note,
    Snapshot, SnapshotNote, Target, TargetNote, View, ViewExt, Volume, VolumeNote,
};
use crate::rules::wanted;
use crate::step::{Backing, BackingKind};

/// A backing with the datastore it stands on and its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The datastore.
    pub datastore: Id,
    /// The current backing.
    pub what: Backing,
    /// Its note.
    pub note: Note,
}

/// Longer values are not noted: what stands beside bytes has to stay small.
const VALUES: usize = 4 << 10;

/// The live object of that kind and id, with its note.
pub fn of(view: &dyn View, kind: BackingKind, id: Id) -> Result<Option<Noted>, Fault> {
    Ok(match kind {
        BackingKind::Image => view.get::<Image>(id)?.filter(|i| i.deleted_at.is_none()).map(|i| Noted {
            datastore: i.datastore,
            what: Backing::image(id),
            note: Note::Image(Box::new(image(i))),
        }),
        BackingKind::Snapshot => view.get::<Snapshot>(id)?.filter(|s| s.deleted_at.is_none()).map(|s| Noted {
            datastore: s.datastore,
            what: Backing::snapshot(id),
            note: Note::Snapshot(Box::new(snapshot(s))),
        }),
        BackingKind::Volume => match view.get::<Volume>(id)?.filter(|v| v.deleted_at.is_none()) {
            Some(v) => Some(Noted {
                datastore: v.datastore,
                what: Backing::volume(id, v.generation),
                note: Note::Volume(Box::new(volume(view, v)?)),
            }),
            None => None,
        },
    })
}

fn image(i: Image) -> ImageNote {
    let size: usize = i.properties.iter().map(|(k, v)| k.len() + v.len()).sum();
    ImageNote {
        owner: i.owner,
        name: i.name,
        visibility: i.visibility,
        is_snapshot: i.is_snapshot,
        provisioned_instance_id: i.provisioned_instance_id,
        source_format: i.source_format,
        size_bytes: i.size_bytes,
        md5: i.md5,
        sha256: i.sha256,
        raw_sha256: i.raw_sha256,
        protected: i.protected,
        properties: if size > VALUES { Default::default() } else { i.properties },
        created_at: i.created_at,
        location: i.location,
    }
}

fn snapshot(s: Snapshot) -> SnapshotNote {
    SnapshotNote {
        owner: s.owner,
        name: s.name,
        volume: s.volume,
        node: s.node,
        size_bytes: s.size_bytes,
        image: s.image,
        created_at: s.created_at,
    }
}

fn volume(view: &dyn View, v: Volume) -> Result<VolumeNote, Fault> {
    let attachment = view.by_key::<Attachment>(Index::AttachmentOfVolume, &under(v.id, &[]))?;
    let node = match attachment {
        Some(attachment) => node(view, attachment)?,
        None => None,
    };
    Ok(VolumeNote {
        owner: v.owner,
        name: v.name,
        image: v.image,
        role: v.role,
        size_bytes: v.size_bytes,
        created_at: v.created_at,
        node,
    })
}

fn node(view: &dyn View, attachment: Attachment) -> Result<Option<NodeNote>, Fault> {
    let Some(node) = view.get::<Node>(attachment.node)? else { return Ok(None) };
    let Some(target) = view.by_key::<Target>(Index::TargetOf, &under(node.id, &[]))? else { return Ok(None) };
    let Some(network) = network(view, node.network)? else { return Ok(None) };
    let size: usize = node.settings.iter().map(|(k, v)| k.len() + v.len()).sum();
    Ok(Some(NodeNote {
        id: node.id,
        owner: node.owner,
        name: node.name,
        kind: node.kind,
        mac: node.mac,
        nic: node.nic,
        address: node.address,
        settings: if size > VALUES { Default::default() } else { node.settings },
        created_at: node.created_at,
        lun: attachment.lun,
        attachment: attachment.id,
        target: TargetNote {
            id: target.id,
            tid: target.tid,
            iqn: target.iqn,
            initiator: target.initiator,
            chap: target.chap.map(|c: Chap| c.mode),
        },
        network,
        detached: (node.state == NodeState::Detached).then_some(true),
    }))
}

fn network(view: &dyn View, id: Id) -> Result<Option<NetworkNote>, Fault> {
    let Some(network) = view.get::<Network>(id)? else { return Ok(None) };
    let on = wanted::engine_network(view, id)?;
    Ok(Some(NetworkNote {
        id,
        owner: network.owner,
        name: network.name,
        vlan: network.vlan,
        address: network.address,
        range: network.range,
        dhcp: network.dhcp,
        slot: network.slot,
        created_at: network.created_at,
        interface: on.interface,
        address_ours: on.address_ours,
        trunk: on.trunk,
        router: network.router,
        dns: (!network.dns.is_empty()).then_some(network.dns),
    }))
}
