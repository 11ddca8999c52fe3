//! VLANs of the data centre: the pool that networks take theirs from.

pub mod add;
pub mod list;
pub mod remove;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Id, Network, Owner, Time, View, ViewExt, Vlan, Vlans};

/// A VLAN as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VlanView {
    /// Its number.
    pub number: u16,
    /// The project it is for; none: any project.
    pub owner: Option<Owner>,
    /// Name of the network on it.
    pub network: Option<String>,
    /// Id.
    pub id: Id,
    /// When it came into the pool.
    pub created_at: Time,
}

/// The numbers that several ranges name.
#[must_use]
pub fn numbers(vlans: &[Vlans]) -> BTreeSet<u16> {
    vlans.iter().flat_map(|v| v.numbers()).collect()
}

/// The pool.
pub fn pool(view: &dyn View) -> Result<BTreeMap<u16, Vlan>, Fault> {
    Ok(view.live::<Vlan>()?.into_iter().map(|v| (v.number, v)).collect())
}

/// Which networks are on VLANs, in the pool or not.
pub fn taken(view: &dyn View) -> Result<BTreeMap<u16, Network>, Fault> {
    Ok(view.live::<Network>()?.into_iter().filter_map(|n| Some((n.vlan?, n))).collect())
}

/// As shown.
fn view_of(vlan: Vlan, taken: &BTreeMap<u16, Network>) -> VlanView {
    VlanView {
        number: vlan.number,
        network: taken.get(&vlan.number).map(|n| n.name.to_string()),
        owner: vlan.owner,
        id: vlan.id,
        created_at: vlan.created_at,
    }
}

/// How ranges are called in messages and events.
fn called(vlans: &[Vlans]) -> String {
    vlans.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Whose it is, for messages.
#[must_use]
pub fn whose(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "every project's".to_owned(), |o| format!("project {o}'s"))
}
