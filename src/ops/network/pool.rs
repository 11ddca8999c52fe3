//! Which VLAN a network may have: the pool's word. Pure.

use crate::model::{Fault, Index, Kind, Network, Owner, ViewExt, Vlan};
use crate::ops::Cx;
use crate::ops::vlan::whose;

/// Refuses a VLAN of the pool that is another project's, and one outside the pool to whoever is no administrator: the pool says
/// which VLANs tenants have, an administrator knows which others the switches carry.
pub(super) fn may_use(cx: &Cx<'_>, owner: Option<&Owner>, number: u16) -> Result<(), Fault> {
    match cx.view.by_key::<Vlan>(Index::VlanNumber, &number.to_be_bytes())? {
        Some(vlan) if usable(&vlan, owner) => Ok(()),
        Some(vlan) => Err(Fault::conflict(format!("VLAN {number} is {}", whose(vlan.owner.as_ref())))
            .fix("act for that project (--project), or use --vlan auto; `bmictl vlan ls` lists what this one may use")),
        None if cx.caller.admin => Ok(()),
        None => Err(Fault::new(Kind::Forbidden, format!("VLAN {number} is not in the pool"))
            .fix("use --vlan auto; `bmictl vlan ls` lists what may be used")),
    }
}

/// What is everyone's stands on no single project's VLAN: it would open that to all.
fn usable(vlan: &Vlan, owner: Option<&Owner>) -> bool {
    vlan.owner.is_none() || vlan.owner.as_ref() == owner
}

/// The lowest VLAN of the pool that the project may use, that no network is on and that `fits`.
pub(super) fn lowest_free(cx: &Cx<'_>, owner: Option<&Owner>, fits: impl Fn(u16) -> bool) -> Result<u16, Fault> {
    let who = owner.map_or_else(|| "a network of everyone's".to_owned(), |o| format!("project {o}"));
    let mut mine: Vec<u16> = cx.view.live::<Vlan>()?.iter().filter(|v| usable(v, owner)).map(|v| v.number).collect();
    mine.sort_unstable();
    if mine.is_empty() {
        return Err(Fault::new(Kind::Limit, format!("the pool has no VLAN that {who} may use"))
            .fix("an administrator puts some in: `bmictl vlan add 100-199 --everyone`; or give --vlan a number"));
    }
    let all = mine.len();
    let mut on_host = 0;
    for number in mine {
        if cx.view.by_key::<Network>(Index::NetworkVlan, &number.to_be_bytes())?.is_some() {
            continue;
        }
        if fits(number) {
            return Ok(number);
        }
        on_host += 1;
    }
    Err(Fault::new(
        Kind::Limit,
        format!(
            "none of the {all} VLANs that {who} may use is free: {} have a network, {on_host} an interface of this host that \
             is not bmid's",
            all - on_host
        ),
    )
    .fix("remove a network, or have an administrator put more into the pool: `bmictl vlan add`"))
}
