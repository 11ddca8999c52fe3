//! Networks: where nodes boot.

mod addresses;
pub mod attach;
pub mod create;
pub mod list;
mod place;
mod pool;
pub mod remove;
pub mod update;

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::record::{owned, owned_or_everyones};
use crate::model::{Dhcp, Fault, Id, Index, Kind, Name, Network, NetworkState, Owner, Range, Ref, Time, View, ViewExt};
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
    /// Owner; none: it is everyone's.
    pub owner: Option<Owner>,
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
    /// The router that machines are told of.
    pub router: Option<Ipv4Addr>,
    /// The name servers that machines are told of.
    pub dns: Vec<Ipv4Addr>,
    /// Which packets this host hands on between its interfaces: `none`, `IPv4`, ...; none where that was not asked.
    pub host_forwards: Option<String>,
}

/// The network a command names. A bare name is the acting project's own, else everyone's.
pub fn find(view: &dyn View, acting: &Owner, r: &Ref) -> Result<Network, Fault> {
    if let Ref::Own(name) = r
        && let own = view.find(Index::NetworkName, &owned(acting, name))?
        && let Some(id) = own.or(view.find(Index::NetworkName, &owned_or_everyones(None, name))?)
    {
        return view.must(id);
    }
    view.named("network", Index::NetworkName, acting, r)
}

/// The network a command names, if nodes of `project` may boot there and it serves.
pub fn usable(view: &dyn View, acting: &Owner, project: &Owner, r: &Ref) -> Result<Network, Fault> {
    let network = find(view, acting, r)?;
    if let Some(owner) = network.owner.as_ref().filter(|o| *o != project) {
        return Err(Fault::conflict(format!("network {} is project {owner}'s", network.name)).fix(format!(
            "give project {project}'s nodes a network of {project} or one of everyone's: `bmictl network ls --all`"
        )));
    }
    if network.state != NetworkState::Ready {
        return Err(Fault::conflict(format!("network {} does not serve yet or no longer", network.name))
            .fix(format!("`bmictl network show {}` tells its state", network.id)));
    }
    Ok(network)
}

/// Refuses a name under which a bare word would mean two networks: one of a project's and one of everyone's.
fn name_free(view: &dyn View, owner: Option<&Owner>, name: &Name, but: Option<Id>) -> Result<(), Fault> {
    let found = |owner| view.by_key::<Network>(Index::NetworkName, &owned_or_everyones(owner, name));
    let same = match owner {
        Some(_) => found(owner)?.into_iter().chain(found(None)?).collect(),
        // Any project's is in the way of everyone's.
        None => view.live::<Network>()?,
    };
    let taken = same.into_iter().find(|n| n.name == *name && Some(n.id) != but);
    let Some(other) = taken else { return Ok(()) };
    let whose = crate::ops::vlan::whose(other.owner.as_ref());
    Err(Fault::new(Kind::Duplicate, format!("there is a network {name} already, and it is {whose}"))
        .fix("choose another name"))
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
        portal: SocketAddr::new(wanted::portal(network), defaults.port).to_string(),
        state: network.state,
        nodes: view.ids(Index::NodesOf, &crate::model::record::under(network.id, &[]))?.len() as u64,
        workers,
        created_at: network.created_at,
        operation: network.operation,
        router: network.router,
        dns: network.dns.clone(),
        host_forwards: match facts.get(&Look::Routing) {
            Some(Fact::Routing(r)) => Some(r.told().unwrap_or("none").to_owned()),
            _ => None,
        },
    })
}
