//! Nodes: machines that boot from a clone.

pub mod deprovision;
pub mod given;
pub mod list;
pub mod live;
pub mod migrate;
pub mod provision;
pub mod rebase;
pub mod script;
pub mod secret;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::{
    ChapMode, Fault, Id, Image, Mac, Node, NodeState, NodeType, Owner, Secret, Server, Time, View, ViewExt,
};
use crate::ops::{Answering, Facts};
use crate::rules::{Defaults, wanted, wanted::NodeRecords};
use crate::step::Session;

/// A node as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Id.
    pub id: Id,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: Owner,
    /// Lifecycle.
    pub state: NodeState,
    /// Why it is in error.
    pub cause: Option<String>,
    /// Physical or virtual.
    #[serde(rename = "type")]
    pub kind: NodeType,
    /// Its card.
    pub mac: Mac,
    /// Which card, as the operator calls it.
    pub nic: Option<String>,
    /// Reserved address.
    pub address: Option<IpAddr>,
    /// Network's name.
    pub network: String,
    /// VLAN number.
    pub vlan: Option<u16>,
    /// `ADDRESS:PORT` it logs in at.
    pub portal: String,
    /// Target's name.
    pub iqn: String,
    /// LUN of the boot disk.
    pub lun: u8,
    /// Name it logs in with.
    pub initiator: String,
    /// CHAP, and whether the script carries the secret.
    pub chap: Option<ChapMode>,
    /// Account it logs in with.
    pub chap_user: Option<String>,
    /// The account's secret: in the one answer that hands it out, none elsewhere.
    pub chap_secret: Option<Secret>,
    /// When an out-of-band secret was handed out.
    pub chap_shown_at: Option<Time>,
    /// To whom.
    pub chap_shown_to: Option<String>,
    /// Name of the image its disk was cloned from.
    pub image: Option<String>,
    /// Id of the boot volume.
    pub volume: Id,
    /// Exact size of the boot disk.
    pub size_bytes: crate::model::Bytes,
    /// Name of the engine that serves it.
    pub engine: String,
    /// Names of its tags.
    pub tags: Vec<String>,
    /// Live sessions; none where they were not asked or could not be found out.
    pub sessions: Option<Vec<Session>>,
    /// Why they could not be found out.
    pub sessions_unknown: Option<String>,
    /// Values for drivers.
    pub settings: BTreeMap<String, String>,
    /// When provisioned.
    pub created_at: Time,
    /// When last changed.
    pub updated_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
    /// The way its disk goes: `file`, `librbd` (opened in a pool by tgtd) or `kernel` (mapped from a pool by the kernel).
    pub disk_by: String,
}

/// Refuses what needs a target or a script, of a node that has none.
pub fn must_be_attached(records: &NodeRecords) -> Result<(), Fault> {
    let (name, network) = (&records.node.name, &records.network.name);
    if records.node.state != NodeState::Detached {
        return Ok(());
    }
    Err(Fault::conflict(format!("node {name} is detached: no network serves it"))
        .fix(format!("`bmictl network attach {network} {name}` first, or another network")))
}

/// The nodes an operation has changed, as shown. Who was logged in before it may be no more, and is not told.
pub fn changed(at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
    let of = |id| view_of(at.view, at.view.must::<Node>(id)?, &Facts::default(), at.defaults);
    at.subjects.iter().filter(|s| s.noun == "node").map(|s| of(s.id)).collect()
}

/// As shown.
pub fn view_of(view: &dyn View, node: Node, facts: &Facts, defaults: &Defaults) -> Result<NodeView, Fault> {
    let records = NodeRecords::load(view, node)?;
    let disk = records.boot()?;
    let image = match disk.volume.image {
        Some(id) => view.get::<Image>(id)?.map(|i| i.name.to_string()),
        None => None,
    };
    let tags = super::tag::of(view, records.node.id)?.into_iter().map(|t| t.name.to_string()).collect();
    let (sessions, sessions_unknown) = live::sessions(&records, facts);
    let (node, chap) = (&records.node, records.target.chap.as_ref());
    Ok(NodeView {
        id: node.id,
        name: node.name.to_string(),
        owner: node.owner.clone(),
        state: node.state,
        cause: node.cause.clone(),
        kind: node.kind,
        mac: node.mac,
        nic: node.nic.as_ref().map(ToString::to_string),
        address: node.address,
        network: records.network.name.to_string(),
        vlan: records.network.vlan,
        portal: SocketAddr::new(wanted::portal(&records.network), defaults.port).to_string(),
        iqn: records.target.iqn.clone(),
        lun: disk.attachment.lun,
        initiator: records.target.initiator.clone(),
        chap: chap.map(|c| c.mode),
        chap_user: chap.map(|c| c.user.clone()),
        chap_secret: None,
        chap_shown_at: chap.and_then(|c| c.shown.as_ref()).map(|s| s.shown_at),
        chap_shown_to: chap.and_then(|c| c.shown.as_ref()).map(|s| s.shown_to.clone()),
        image,
        volume: disk.volume.id,
        size_bytes: disk.volume.size_bytes,
        engine: view.meta().engine_name.to_string(),
        tags,
        sessions,
        sessions_unknown,
        settings: node.settings.clone(),
        created_at: node.created_at,
        updated_at: node.updated_at,
        operation: node.operation,
        disk_by: wanted::disk_by(&view.must::<Server>(disk.volume.datastore)?).to_owned(),
    })
}
