//! What should exist outside, out of rows: the same functions build an operation's steps and reconcile's expectation, so
//! that the two can never disagree.

use std::net::IpAddr;

use crate::model::record::under;
use crate::model::{
    Attachment, Chap, ChapMode, EngineNetwork, Fault, Id, Index, Network, NetworkState, Node, Place, RbdPlace, Server,
    StoreNote, Target, View, ViewExt, Volume,
};
use crate::rules::Defaults;
use crate::step::boot::ScriptSecret;
use crate::step::{
    Account, Backing, DropEntry, DropTarget, Entry, Lun, MakeStore, MakeTarget, MakeVlan, OpenPortal, PutAddress,
    SeenLun, Serve, StartWorker, WorkerKind,
};

/// The target's name of a node.
#[must_use]
pub fn iqn(prefix: &str, node: Id) -> String {
    format!("{prefix}:{node}")
}

/// The name a node logs in with. It derives from the id: another tenant cannot guess it.
#[must_use]
pub fn initiator(prefix: &str, node: Id) -> String {
    format!("{prefix}:init-{node}")
}

/// A volume as a LUN. Serial and SCSI id derive from the volume's id, so they stay through every swap of the backing.
#[must_use]
pub fn lun(number: u8, volume: &Volume, place: &Place) -> Lun {
    let hex: String = volume.id.to_string().replace('-', "");
    Lun {
        number,
        path: Backing::volume(volume.id, volume.generation).path(place),
        serial: format!("bmi{}", &hex[..17]),
        scsi_id: hex,
        pool: match place {
            Place::Rbd(pool) => Some(pool.clone()),
            Place::Folder { .. } => None,
        },
    }
}

/// A LUN that no record wants, if its disk is in a pool of ours.
#[must_use]
pub fn lun_seen(seen: &SeenLun, datastores: &[Server]) -> Option<Lun> {
    let pools = datastores.iter().filter_map(|s| match &s.place {
        Some(Place::Rbd(pool)) => Some(pool),
        _ => None,
    });
    let its = |pool: &&RbdPlace| seen.path.starts_with(&format!("rbd:{}/{}.v.", pool.spec(), pool.prefix()));
    let pool = pools.into_iter().find(its)?.clone();
    let (path, none) = (seen.path.clone(), String::new());
    Some(Lun { number: seen.number, path, serial: none.clone(), scsi_id: none, pool: Some(pool) })
}

/// A disk of a node with everything needed to export it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Which LUN.
    pub attachment: Attachment,
    /// The volume.
    pub volume: Volume,
    /// Where its bytes are.
    pub place: Place,
}

/// The records around a node.
#[derive(Clone, Debug)]
pub struct NodeRecords {
    /// The node.
    pub node: Node,
    /// Its target.
    pub target: Target,
    /// Its network.
    pub network: Network,
    /// Its disks, by LUN.
    pub disks: Vec<Disk>,
}

impl NodeRecords {
    /// Reads them.
    pub fn load(view: &dyn View, node: Node) -> Result<NodeRecords, Fault> {
        let target = view
            .by_key::<Target>(Index::TargetOf, &under(node.id, &[]))?
            .ok_or_else(|| Fault::internal(format!("node {} has no target record", node.name)))?;
        let network = view.must::<Network>(node.network)?;
        let mut disks = Vec::new();
        for attachment in view.all::<Attachment>(Index::AttachmentsOf, &under(node.id, &[]))? {
            let volume = view.must::<Volume>(attachment.volume)?;
            let place = place(view, volume.datastore)?;
            disks.push(Disk { attachment, volume, place });
        }
        disks.sort_by_key(|d| d.attachment.lun);
        Ok(NodeRecords { node, target, network, disks })
    }

    /// The boot disk.
    pub fn boot(&self) -> Result<&Disk, Fault> {
        self.disks
            .iter()
            .find(|d| d.attachment.lun == 1)
            .ok_or_else(|| Fault::internal(format!("node {} has no boot disk record", self.node.name)))
    }

    /// The target as it should stand.
    #[must_use]
    pub fn make_target(&self) -> MakeTarget {
        MakeTarget {
            network: self.network.id,
            tid: self.target.tid,
            iqn: self.target.iqn.clone(),
            luns: self.disks.iter().map(|d| lun(d.attachment.lun, &d.volume, &d.place)).collect(),
            initiator: self.target.initiator.clone(),
            account: self.target.chap.as_ref().map(|c| Account { user: c.user.clone(), secret: c.secret.clone() }),
        }
    }

    /// Takes the target away again, and lets go of its disks.
    #[must_use]
    pub fn drop_target(&self, force: bool) -> DropTarget {
        let MakeTarget { network, tid, iqn, luns, account, .. } = self.make_target();
        DropTarget { network, tid, iqn, account: account.map(|a| a.user), force, luns }
    }

    /// Takes the reservation and script away.
    #[must_use]
    pub fn drop_entry(&self) -> DropEntry {
        DropEntry { network: self.network.id, node: self.node.id, mac: self.node.mac }
    }

    /// The reservation and script as they should stand.
    #[must_use]
    pub fn entry(&self, defaults: &Defaults) -> Entry {
        let in_script = |c: &&Chap| c.mode == ChapMode::InScript;
        Entry {
            network: self.network.id,
            node: self.node.id,
            mac: self.node.mac,
            address: self.node.address,
            hostname: hostname(&self.node),
            portal: portal(&self.network),
            port: defaults.port,
            iqn: self.target.iqn.clone(),
            lun: 1,
            initiator: self.target.initiator.clone(),
            secret: self
                .target
                .chap
                .as_ref()
                .filter(in_script)
                .map(|c| ScriptSecret { user: c.user.clone(), secret: c.secret.clone() }),
        }
    }
}

/// A node's name as DNS takes it (RFC 1123): dots and underscores become hyphens.
fn hostname(node: &Node) -> String {
    let text: String = node
        .name
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    text.trim_end_matches('-').to_owned()
}

/// Where a datastore's bytes are.
pub fn place(view: &dyn View, datastore: Id) -> Result<Place, Fault> {
    view.must::<Server>(datastore)?.place.ok_or_else(|| Fault::internal(format!("datastore {datastore} has no place")))
}

/// The way a datastore's disks go to their machines: tgtd reads a `file`, opens an image by `librbd`, or reads what the `kernel` has mapped.
#[must_use]
pub fn disk_by(store: &Server) -> &'static str {
    match &store.place {
        Some(Place::Rbd(pool)) if pool.by_kernel() => "kernel",
        Some(Place::Rbd(_)) => "librbd",
        _ => "file",
    }
}

/// A datastore's root as it should stand.
#[must_use]
pub fn make_store(view: &dyn View, server: &Server, place: Place) -> MakeStore {
    let meta = view.meta();
    let note = StoreNote { name: server.name.clone(), engine_name: meta.engine_name.clone() };
    MakeStore { datastore: server.id, engine: meta.engine, place, note }
}

/// What a network needs, in the order it is set up.
#[derive(Clone, Debug)]
pub struct NetworkWanted {
    /// The engine's interface, where bmid makes it.
    pub vlan: Option<MakeVlan>,
    /// The engine's address.
    pub address: PutAddress,
    /// The boot service's layout.
    pub serve: Serve,
    /// The network's tgtd.
    pub tgtd: StartWorker,
    /// Its portal.
    pub portal: OpenPortal,
    /// The network's dnsmasq.
    pub dnsmasq: StartWorker,
    /// Its server of boot files by HTTP.
    pub http: StartWorker,
}

/// Where the nodes of a network have their disks.
#[must_use]
pub fn portal(network: &Network) -> IpAddr {
    network.address.address
}

/// A network as it should stand on this engine.
#[must_use]
pub fn network(network: &Network, on: &EngineNetwork, defaults: &Defaults) -> NetworkWanted {
    let worker = |kind| StartWorker { network: network.id, kind, slot: network.slot, port: defaults.port };
    NetworkWanted {
        vlan: vlan(network, on),
        address: PutAddress {
            network: network.id,
            interface: on.interface.clone(),
            address: network.address,
            ours: on.address_ours,
        },
        serve: Serve {
            network: network.id,
            interface: on.interface.clone(),
            address: network.address,
            range: network.range,
            dhcp: network.dhcp,
            router: network.router,
            dns: network.dns.clone(),
        },
        tgtd: worker(WorkerKind::Tgtd),
        portal: OpenPortal { network: network.id, address: portal(network), port: defaults.port, slot: network.slot },
        dnsmasq: worker(WorkerKind::Dnsmasq),
        http: worker(WorkerKind::Http),
    }
}

/// The interface on a network's VLAN, where bmid makes it.
fn vlan(network: &Network, on: &EngineNetwork) -> Option<MakeVlan> {
    let (vlan, trunk) = (network.vlan?, on.trunk.as_ref()?);
    Some(MakeVlan {
        network: network.id,
        interface: on.interface.clone(),
        parent: trunk.parent.clone(),
        vlan,
        tagging: trunk.tagging,
        mtu: trunk.mtu,
    })
}

/// A network's interface on this engine.
pub fn engine_network(view: &dyn View, network: Id) -> Result<EngineNetwork, Fault> {
    let here = view.meta().engine;
    view.all::<EngineNetwork>(Index::EngineNetworksOf, &under(network, &[]))?
        .into_iter()
        .find(|e| e.engine == here)
        .ok_or_else(|| {
            Fault::conflict(format!("network {network} is not served by this engine"))
                .fix("run the command on the engine that serves it")
        })
}

/// Networks this engine serves and that are set up.
pub fn networks(view: &dyn View) -> Result<Vec<(Network, EngineNetwork)>, Fault> {
    let mut out = Vec::new();
    for network in view.live::<Network>()? {
        if network.state == NetworkState::Ready {
            let on = engine_network(view, network.id)?;
            out.push((network, on));
        }
    }
    Ok(out)
}
