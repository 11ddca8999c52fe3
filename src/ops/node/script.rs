//! `node boot-script`: what the machine is told. It may hold the CHAP secret, so only the node's owner reads it.

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Kind, Ref, ViewExt};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::step::{Fact, Look};

/// Print a node's boot script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeBootScript {
    /// Name or id
    pub node: Ref,
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
        examples: &["node boot-script web1"],
        effect: Effect::Read,
        shape: Shape::Text,
        right: Right::Member,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let node = at.view.node(at.project(), &self.node)?;
        super::secret::owners_alone(&node, at.project())?;
        Ok(vec![Look::Script(node.network, node.mac)])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ScriptView>, Fault> {
        let node = at.view.node(at.project(), &self.node)?;
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
