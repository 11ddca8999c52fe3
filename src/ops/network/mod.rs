//! Networks: where nodes boot.

pub mod create;
pub mod list;
mod place;
mod pool;
pub mod remove;

use serde::{Deserialize, Serialize};

use crate::model::{Dhcp, Fault, Id, Index, Network, NetworkState, Owner, Range, Ref, Time, View, ViewExt};
use crate::ops::Facts;
use crate::rules::{Defaults, wanted};
use crate::step::{Fact, Health, Look};

/// A network as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Id.
    pub id: Id,
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: Owner,
    /// VLAN number; none for an untagged interface.
    pub vlan: Option<u16>,
    /// Interface on this engine.
    pub interface: Option<String>,
    /// The interface whose link carries the VLAN's frames.
    pub parent: Option<String>,
    /// Largest packet, if one was given.
    pub mtu: Option<u32>,
    /// The engine's address with prefix length.
    pub address: String,
    /// Addresses nodes get.
    pub range: Option<Range>,
    /// Who gives addresses.
    pub dhcp: Dhcp,
    /// `ADDRESS:PORT` of the portal.
    pub portal: String,
    /// Lifecycle.
    pub state: NetworkState,
    /// How many nodes boot on it.
    pub nodes: u64,
    /// Its workers; none where they were not asked.
    pub workers: Option<Vec<Health>>,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it.
    pub operation: Option<Id>,
}

/// The network a command names.
pub fn find(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Network, Fault> {
    view.named("network", Index::NetworkName, acting, r)
}

/// As shown.
pub fn view_of(view: &dyn View, network: &Network, facts: &Facts, defaults: &Defaults) -> Result<NetworkView, Fault> {
    let workers = match facts.get(&Look::Workers(network.id)) {
        Some(Fact::Workers(w)) => Some(w.clone()),
        _ => None,
    };
    let on = wanted::engine_network(view, network.id).ok();
    let trunk = on.as_ref().and_then(|e| e.trunk.clone());
    Ok(NetworkView {
        id: network.id,
        name: network.name.to_string(),
        owner: network.owner.clone(),
        vlan: network.vlan,
        interface: on.map(|e| e.interface),
        mtu: trunk.as_ref().and_then(|t| t.mtu),
        parent: trunk.map(|t| t.parent),
        address: network.address.to_string(),
        range: network.range,
        dhcp: network.dhcp,
        portal: format!("{}:{}", network.address.address, defaults.port),
        state: network.state,
        nodes: view.ids(Index::NodesOf, &crate::model::record::under(network.id, &[]))?.len() as u64,
        workers,
        created_at: network.created_at,
        operation: network.operation,
    })
}
