//! `vlan add`: VLANs of the data centre come into the pool. Nothing is done outside: a switch's trunk is not bmid's.

use serde::{Deserialize, Serialize};

use super::{VlanView, called, numbers, pool, taken, view_of, whose};
use crate::model::{Fault, Kind, Vlan, Vlans};
use crate::ops::{Answering, Cx, Effect, Op, PartPlan, Plan, Right, Shape, Sheet};

/// Put VLANs into the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VlanAdd {
    /// Their numbers: 100, or 100-199
    #[arg(required = true, value_name = "N|N-M")]
    pub vlans: Vec<Vlans>,
    /// For every project; else they are for the acting project (--project) alone
    #[arg(long)]
    #[serde(default)]
    pub everyone: bool,
}

impl Op for VlanAdd {
    type Out = VlanView;

    const SHEET: Sheet = Sheet {
        noun: "vlan",
        verb: "add",
        about: "Put VLANs into the pool that networks take theirs from, for one project or for everyone",
        examples: &["vlan add 100-199 --everyone", "vlan add 200-219 300"],
        effect: Effect::Change,
        shape: Shape::Many,
        right: Right::Admin,
        columns: &["number", "owner", "network"],
        destroys: "",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let owner = (!self.everyone).then(|| cx.project().clone());
        let (pool, taken) = (pool(cx.view)?, taken(cx.view)?);
        let mut part = PartPlan::default();
        let mut first = None;
        for number in numbers(&self.vlans) {
            if let Some(old) = pool.get(&number) {
                first = first.or(Some(old.id));
                if old.owner == owner {
                    continue;
                }
                let whose = whose(old.owner.as_ref());
                return Err(Fault::new(
                    Kind::Duplicate,
                    format!("VLAN {number} is in the pool already and is {whose}"),
                )
                .fix(format!("take it out first: `bmictl vlan rm {number}`")));
            }
            if let Some(network) = taken.get(&number).filter(|n| owner.is_some() && n.owner != owner) {
                let whose = whose(network.owner.as_ref());
                return Err(Fault::conflict(format!("network {} on VLAN {number} is {whose}", network.name))
                    .fix("leave that number out, or add it for that project or for everyone"));
            }
            let vlan = Vlan { id: cx.id(), number, owner: owner.clone(), created_at: cx.now };
            first = first.or(Some(vlan.id));
            part.commit.push(vlan.into());
        }
        // One line in the trail for all of them.
        let first = first.ok_or_else(|| Fault::invalid("no VLAN is named").fix("give numbers, as 100-199"))?;
        if part.commit.is_empty() {
            return Ok(Plan::already("vlan", first, called(&self.vlans)));
        }
        part.about("vlan", first, called(&self.vlans));
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<VlanView>, Fault> {
        let (mut pool, taken) = (pool(at.view)?, taken(at.view)?);
        Ok(numbers(&self.vlans).iter().filter_map(|n| pool.remove(n)).map(|v| view_of(v, &taken)).collect())
    }
}
