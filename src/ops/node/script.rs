//! `node boot-script`: what the machine is told. It may hold the CHAP secret, so only the node's owner reads it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Kind, Network, Node, Ref, ViewExt};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::boot::HTTP_PORT;
use crate::step::{Fact, Look};

/// Print a node's boot script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeBootScript {
    /// Name or id
    pub node: Ref,
    /// Of a machine whose port is a trunk (--vlan-in-firmware): the script that its iPXE starts with, to go over to the VLAN
    #[arg(long)]
    #[serde(default)]
    pub start: bool,
}

/// The value for drivers that says that a node's port is a trunk.
pub const TRUNK: &str = "vlan-in-firmware";
/// What it is then.
pub const YES: &str = "yes";

/// Whether the machine's port is a trunk.
#[must_use]
pub fn on_trunk(node: &Node) -> bool {
    node.settings.get(TRUNK).is_some_and(|v| v == YES)
}

/// A boot script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptView {
    /// The node's name.
    pub name: String,
    /// The iPXE script as the machine gets it.
    pub script: String,
}

impl Op for NodeBootScript {
    type Out = ScriptView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "boot-script",
        about: "Print the iPXE script a machine gets",
        examples: &["node boot-script web1", "node boot-script web2 --start"],
        effect: Effect::Read,
        shape: Shape::Text,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let node = at.view.node(at.project(), &self.node)?;
        super::secret::owners_alone(&node, at.project())?;
        if self.start {
            return Ok(Vec::new());
        }
        Ok(vec![Look::Script(node.network, node.mac)])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ScriptView>, Fault> {
        let node = at.view.node(at.project(), &self.node)?;
        if self.start {
            let script = start(&node, &at.view.must::<Network>(node.network)?)?;
            return Ok(vec![ScriptView { name: node.name.to_string(), script }]);
        }
        match at.facts.get(&Look::Script(node.network, node.mac)) {
            Some(Fact::Script(Some(script))) => {
                Ok(vec![ScriptView { name: node.name.to_string(), script: script.clone() }])
            }
            Some(Fact::Unknown(why)) => {
                Err(Fault::new(Kind::Unavailable, format!("the script of node {} could not be read: {why}", node.name)))
            }
            _ => Err(Fault::conflict(format!("node {} has no script on disk", node.name))
                .fix("`bmictl reconcile` writes what is missing")),
        }
    }
}

/// What an iPXE runs that is reached by tagged frames alone: it finds its card, speaks on the VLAN from there on, and runs what every
/// machine of the network does. What the system is handed (iBFT) then names the VLAN. It never holds a secret.
fn start(node: &Node, network: &Network) -> Result<String, Fault> {
    let Some(vlan) = network.vlan.filter(|_| on_trunk(node)) else {
        return Err(Fault::conflict(format!("node {} is not provisioned as one whose port is a trunk", node.name))
            .fix("provision it with --vlan-in-firmware on a network with a VLAN"));
    };
    let (mac, base) = (node.mac, SocketAddr::new(wanted::portal(network), HTTP_PORT));
    Ok(format!(
        "#!ipxe
# bmid: the machine with card {mac}, whose port is a trunk, goes over to VLAN {vlan}
set n:int32 0
:card
iseq ${{net${{n}}/mac}} {mac} && goto found ||
inc n
iseq ${{n}} 32 && goto none || goto card
:found
vcreate --tag {vlan} net${{n}} || goto cannot
:again
dhcp net${{n}}-{vlan} && chain --autofree http://{base}/boot.ipxe ||
echo bmid: no answer on VLAN {vlan}. Trying again in 5 seconds.
sleep 5
goto again
:none
echo bmid: this machine has no card {mac}
exit 1
:cannot
echo bmid: this iPXE knows no VLANs: it was built without VLAN_CMD
exit 1
"
    ))
}
