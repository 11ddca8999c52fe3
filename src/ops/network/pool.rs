//! Which VLAN a network may have: the pool's word. Pure.

use crate::model::{Fault, Index, Kind, Network, ViewExt, Vlan};
use crate::ops::Cx;
use crate::ops::vlan::whose;

/// Refuses a VLAN of the pool that is another project's, and one outside the pool to whoever is no administrator: the pool says
/// which VLANs tenants have, an administrator knows which others the switches carry.
pub(super) fn may_use(cx: &Cx<'_>, number: u16) -> Result<(), Fault> {
    match cx.view.by_key::<Vlan>(Index::VlanNumber, &number.to_be_bytes())? {
        Some(vlan) if usable(&vlan, cx) => Ok(()),
        Some(vlan) => Err(Fault::conflict(format!("VLAN {number} is {}", whose(vlan.owner.as_ref())))
            .fix("act for that project (--project), or use --vlan auto; `bmictl vlan ls` lists what this one may use")),
        None if cx.caller.admin => Ok(()),
        None => Err(Fault::new(Kind::Forbidden, format!("VLAN {number} is not in the pool"))
            .fix("use --vlan auto; `bmictl vlan ls` lists what may be used")),
    }
}

fn usable(vlan: &Vlan, cx: &Cx<'_>) -> bool {
    vlan.owner.as_ref().is_none_or(|o| o == cx.project())
}

/// The lowest VLAN of the pool that the project may use, that no network is on and that `fits`.
pub(super) fn lowest_free(cx: &Cx<'_>, fits: impl Fn(u16) -> bool) -> Result<u16, Fault> {
    let mut mine: Vec<u16> = cx.view.live::<Vlan>()?.iter().filter(|v| usable(v, cx)).map(|v| v.number).collect();
    mine.sort_unstable();
    if mine.is_empty() {
        return Err(Fault::new(Kind::Limit, format!("the pool has no VLAN that project {} may use", cx.project()))
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
            "none of the {all} VLANs that project {} may use is free: {} have a network, {on_host} an interface of this \
             host that is not bmid's",
            cx.project(),
            all - on_host
        ),
    )
    .fix("remove a network, or have an administrator put more into the pool: `bmictl vlan add`"))
}
