//! The network a restored node boots on: the one it had, another one of the same subnet, or the one it had put together again
//! where this host has its interface. Pure.

use super::work::{With, Work, free};
use crate::model::record::{owned_or_everyones, under};
use crate::model::{Dhcp, EngineNetwork, Fault, Id, Index, Name, Network, NetworkNote, NetworkState, View, ViewExt};
use crate::rules::allocate;

/// The network, or what has to be done first.
pub(super) fn of(
    work: &mut Work<'_>,
    note: &NetworkNote,
    with: &mut With<'_>,
) -> Result<Result<Network, String>, Fault> {
    if let Some(there) = work.after.get::<Network>(note.id)? {
        return Ok(ready(there));
    }
    for there in work.after.live::<Network>()? {
        if same_subnet(&there, note) {
            return Ok(ready(there));
        }
        if there.address.overlaps(note.address) {
            let why = format!("{} of its network {} overlaps network {}", note.address, note.name, there.name);
            return Ok(Err(why));
        }
    }
    match again(work, note, with)? {
        Some(network) => Ok(Ok(network)),
        None => Ok(Err(missing(note))),
    }
}

fn ready(network: Network) -> Result<Network, String> {
    if network.state == NetworkState::Ready {
        return Ok(network);
    }
    Err(format!("its network {} does not serve yet or no longer", network.name))
}

fn same_subnet(there: &Network, note: &NetworkNote) -> bool {
    (there.address.network(), there.address.prefix) == (note.address.network(), note.address.prefix)
}

/// The command that makes it.
fn missing(note: &NetworkNote) -> String {
    let range = note.range.map(|r| format!(" --range {r}")).unwrap_or_default();
    let dhcp = match note.dhcp {
        Dhcp::Serve => "",
        Dhcp::Proxy => " --dhcp proxy",
        Dhcp::Off => " --dhcp off",
        Dhcp::Ipv6 => " --dhcp ipv6",
    };
    let vlan = note.vlan.map(|v| format!(" --vlan {v}")).unwrap_or_default();
    let router = note.router.map(|r| format!(" --router {r}")).unwrap_or_default();
    let dns: String = note.dns.iter().flatten().map(|d| format!(" --dns {d}")).collect();
    let whose = note.owner.as_ref().map_or_else(|| " --everyone".to_owned(), |o| format!(" --project {o}"));
    format!(
        "its network {name} must be there first, and this host's interface {interface} is not free for it: \
         `bmictl network create {name} --interface IF{vlan} --address {address}{range}{dhcp}{router}{dns}{whose}`",
        name = note.name,
        interface = note.interface,
        address = note.address,
    )
}

/// The network as it was, if this host has its interface and nothing else is there.
fn again(work: &mut Work<'_>, note: &NetworkNote, with: &mut With<'_>) -> Result<Option<Network>, Fault> {
    let engine = work.after.meta().engine;
    // The one it stands on, or on a VLAN the one beneath.
    let stands_on = note.trunk.as_ref().map_or(&note.interface, |t| &t.parent);
    let Some(own) = with.interfaces.iter().find(|i| i.name == *stands_on && !i.loopback) else { return Ok(None) };
    let key = under(engine, note.interface.as_bytes());
    let elsewhere = with.interfaces.iter().filter(|i| i.name != note.interface);
    let taken = elsewhere.flat_map(|i| &i.addresses).any(|a| a.overlaps(note.address));
    let its_vlan = match note.vlan {
        Some(vlan) => work.after.find(Index::NetworkVlan, &vlan.to_be_bytes())?.is_some(),
        None => false,
    };
    if taken
        || its_vlan
        || note.vlan.is_some() != note.trunk.is_some()
        || work.after.find(Index::EngineInterface, &key)?.is_some()
    {
        return Ok(None);
    }
    let named =
        |n: &Name| Ok(work.after.find(Index::NetworkName, &owned_or_everyones(note.owner.as_ref(), n))?.is_some());
    let name = free(&note.name, named)?;
    let slot = match work.after.find(Index::NetworkSlot, &note.slot.to_be_bytes())? {
        None => note.slot,
        Some(_) => {
            let start = with.number();
            allocate::slot(&work.after, start)?
        }
    };
    let address_ours = note.address_ours || note.trunk.is_some() || !own.addresses.contains(&note.address);
    let network = Network {
        id: note.id,
        owner: note.owner.clone(),
        name,
        vlan: note.vlan,
        address: note.address,
        range: note.range,
        dhcp: note.dhcp,
        state: NetworkState::Ready,
        slot,
        created_at: note.created_at,
        operation: None,
        router: note.router,
        dns: note.dns.clone().unwrap_or_default(),
    };
    work.made("network", network.id, &network.name);
    work.put(network.clone());
    work.put(on(network.id, engine, note, address_ours));
    Ok(Some(network))
}

fn on(network: Id, engine: Id, note: &NetworkNote, address_ours: bool) -> EngineNetwork {
    let (interface, trunk) = (note.interface.clone(), note.trunk.clone());
    EngineNetwork { id: network.derived(1), network, engine, interface, address_ours, trunk }
}
