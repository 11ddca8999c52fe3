//! `vlan rm`: VLANs without networks leave the pool.

use serde::{Deserialize, Serialize};

use super::{called, numbers, pool, taken};
use crate::model::{Change, Fault, Vlans};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};

/// Take VLANs out of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct VlanRm {
    /// Their numbers, whoever they are for: 100, or 100-199
    #[arg(required = true, value_name = "N|N-M")]
    pub vlans: Vec<Vlans>,
}

impl Op for VlanRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "vlan",
        verb: "rm",
        about: "Take VLANs that have no network out of the pool",
        examples: &["vlan rm 300", "vlan rm 100-199"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let numbers = numbers(&self.vlans);
        let taken = taken(cx.view)?;
        let mut going = pool(cx.view)?;
        going.retain(|number, _| numbers.contains(number));
        let Some(first) = going.values().next() else {
            return Err(Fault::not_found("VLAN", called(&self.vlans)).fix("`bmictl vlan ls --all` lists the pool"));
        };
        let mut part = PartPlan::default();
        part.about("vlan", first.id, called(&self.vlans));
        for (number, vlan) in &going {
            if let Some(network) = taken.get(number) {
                return Err(Fault::conflict(format!("network {} is on VLAN {number}", network.name))
                    .fix("remove that network first, or leave that number out"));
            }
            part.commit.push(Change::delete(vlan));
        }
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
