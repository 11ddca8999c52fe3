//! `network rm`: a network without nodes stops serving.

use serde::{Deserialize, Serialize};

use super::find;
use crate::model::record::under;
use crate::model::{Change, Fault, Index, Network, NetworkState, Node, Ref, ViewExt};
use crate::ops::{Answering, Cx, Effect, Gone, Op, PartPlan, Plan, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{DropAddress, DropVlan, StopWorker, Unserve, WorkerKind};

/// Stop serving a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkRm {
    /// Name or id
    pub network: Ref,
}

impl Op for NetworkRm {
    type Out = Gone;

    const SHEET: Sheet = Sheet {
        noun: "network",
        verb: "rm",
        about: "Stop serving a network that has no nodes",
        examples: &["network rm rack1 --yes"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "the network's DHCP and boot service",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let network = find(cx.view, cx.project(), &self.network)?;
        let nodes: Vec<Node> = cx.view.all(Index::NodesOf, &under(network.id, &[]))?;
        if !nodes.is_empty() {
            let some: Vec<_> = nodes.iter().take(5).map(|n| n.name.as_str()).collect();
            return Err(Fault::conflict(format!(
                "network {} has {} nodes: {}{}",
                network.name,
                nodes.len(),
                some.join(", "),
                if nodes.len() > 5 { ", …" } else { "" }
            ))
            .fix("deprovision or migrate them first"));
        }
        let on = wanted::engine_network(cx.view, network.id)?;
        let stop = |kind| StopWorker { network: network.id, kind };
        let mut part = PartPlan::default();
        part.about("network", network.id, &network.name);
        part.script.then(stop(WorkerKind::Dnsmasq));
        part.script.then(stop(WorkerKind::Http));
        part.script.then(stop(WorkerKind::Tgtd));
        part.script.then(Unserve { network: network.id });
        part.script.then(DropAddress {
            network: network.id,
            interface: on.interface.clone(),
            address: network.address,
            ours: on.address_ours,
        });
        if on.trunk.is_some() {
            part.script.then(DropVlan { network: network.id, interface: on.interface.clone() });
        }
        part.commit.push(Change::delete(&on));
        part.row(
            Network { state: NetworkState::Deleting, operation: Some(cx.operation), ..network.clone() },
            Change::delete(&network),
        );
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Gone>, Fault> {
        Ok(Gone::all(at.subjects))
    }
}
