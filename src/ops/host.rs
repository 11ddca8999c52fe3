//! `status`, `doctor`, `reconcile`: this engine as a whole.

use serde::{Deserialize, Serialize};

use super::operation::control;
use crate::model::{
    Bytes, Fault, Id, Index, Name, Network, Node, NodeState, Place, Server, ServerKind, ServerState, Table, Time,
    Usage, View, ViewExt,
};
use crate::ops::{Answering, Asking, Effect, Op, Right, Shape, Sheet};
use crate::rules::{room, wanted};
use crate::step::{Fact, Finding, Health, Look, Severity};

/// A datastore in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Name.
    pub name: Name,
    /// Usable.
    pub available: bool,
    /// `reflink` or `copy`.
    pub clone_by: String,
    /// How targets get the disks of a pool.
    pub export: Option<String>,
    /// Free bytes.
    pub free: Bytes,
    /// What is wrong.
    pub problem: Option<String>,
}

/// A network in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Name.
    pub name: Name,
    /// Interface.
    pub interface: String,
    /// Nodes on it.
    pub nodes: u64,
    /// Its workers.
    pub workers: Vec<Health>,
}

/// An engine at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Engine's name.
    pub engine: Name,
    /// Engine's id.
    pub engine_id: Id,
    /// Release of bmid.
    pub release: String,
    /// Its time.
    pub now: Time,
    /// Everything is as it should be.
    pub healthy: bool,
    /// What is not.
    pub problems: Vec<String>,
    /// Nodes by state.
    pub nodes_ready: u64,
    /// See above.
    pub nodes_error: u64,
    /// Being provisioned or deprovisioned.
    pub nodes_changing: u64,
    /// Images.
    pub images: u64,
    /// Volumes.
    pub volumes: u64,
    /// What the acting project holds.
    pub usage: Usage,
    /// Datastores.
    pub datastores: Vec<StoreStatus>,
    /// Networks.
    pub networks: Vec<NetworkStatus>,
    /// Nodes that no network serves (`network detach`).
    pub nodes_detached: u64,
}

/// Show this engine at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Status {}

fn datastores(view: &dyn View) -> Result<Vec<Server>, Fault> {
    let mut all = view.live::<Server>()?;
    all.retain(|s| s.kind == ServerKind::Datastore);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

impl Op for Status {
    type Out = StatusView;

    const SHEET: Sheet = Sheet {
        noun: "status",
        verb: "",
        about: "Show this engine at a glance; what is wrong stands first",
        examples: &["status", "status -f json"],
        effect: Effect::Read,
        shape: Shape::One,
        right: Right::Everyone,
        columns: &[],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let mut looks: Vec<Look> = datastores(at.view)?.iter().filter_map(super::datastore::look).collect();
        looks.extend(wanted::networks(at.view)?.iter().map(|(n, _)| Look::Workers(n.id)));
        Ok(looks)
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<StatusView>, Fault> {
        let nodes = at.view.live::<Node>()?;
        let count = |f: &dyn Fn(&Node) -> bool| nodes.iter().filter(|n| f(n)).count() as u64;
        let datastores: Vec<StoreStatus> = datastores(at.view)?.iter().map(|s| store_status(s, at)).collect();
        let (networks, unknown) = networks(at)?;
        let mut problems: Vec<String> = datastores
            .iter()
            .filter(|d| !d.available || d.problem.is_some())
            .map(|d| format!("datastore {}: {}", d.name, d.problem.as_deref().unwrap_or("unavailable")))
            .collect();
        problems.extend(unknown);
        for network in &networks {
            let bad = network.workers.iter().filter(|w| !w.running);
            problems.extend(bad.map(|w| {
                format!(
                    "network {}: {} does not serve: {}",
                    network.name,
                    w.kind.as_str(),
                    w.problem.as_deref().unwrap_or("it has died")
                )
            }));
            let tight = network.workers.iter().filter_map(|w| w.room.as_ref()).flat_map(room::warnings);
            problems.extend(tight.map(|(found, fix)| format!("network {}: {found}; {fix}", network.name)));
        }
        problems.extend(
            nodes
                .iter()
                .filter(|n| n.state == NodeState::Error)
                .map(|n| format!("node {}: {}", n.name, n.cause.as_deref().unwrap_or("in error"))),
        );
        Ok(vec![StatusView {
            engine: at.view.meta().engine_name.clone(),
            engine_id: at.view.meta().engine,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            now: at.now,
            healthy: problems.is_empty(),
            problems,
            nodes_ready: count(&|n| n.state == NodeState::Ready),
            nodes_error: count(&|n| n.state == NodeState::Error),
            nodes_changing: count(&|n| matches!(n.state, NodeState::Provisioning | NodeState::Deprovisioning)),
            images: count_live(at.view, Table::Image)?,
            volumes: count_live(at.view, Table::Volume)?,
            usage: at.view.usage(at.project())?,
            datastores,
            networks,
            nodes_detached: count(&|n| n.state == NodeState::Detached),
        }])
    }
}

/// A sparse datastore is worth a word whenever somebody looks.
fn thin(server: &Server) -> Option<Finding> {
    let Some(Place::Folder { thin: true, path, .. }) = &server.place else { return None };
    Some(Finding {
        check: format!("datastore {}", server.name),
        severity: Severity::Warning,
        found: format!("its file {path}.xfs is sparse: when the host's file system fills up, machines lose writes"),
        fix: "watch the host's free space, or move to a datastore made without --thin".to_owned(),
    })
}

/// How many live rows a table has, without reading them.
fn count_live(view: &dyn View, table: Table) -> Result<u64, Fault> {
    Ok(view.ids(Index::Live, &[table as u8])?.len() as u64)
}

fn store_status(server: &Server, at: &Answering<'_>) -> StoreStatus {
    let known = super::datastore::view_of(server, at.facts);
    let adopted = (server.state == ServerState::Adopted).then(|| {
        format!(
            "it was taken over and its records are not restored: `bmictl state rebuild --datastore {}`",
            server.name
        )
    });
    StoreStatus {
        name: server.name.clone(),
        available: known.available.unwrap_or(false),
        clone_by: known.clone_by.unwrap_or_else(|| "unknown".to_owned()),
        export: known.export,
        free: known.free.unwrap_or_default(),
        problem: known.problem.or(adopted),
    }
}

/// The networks, and those whose workers could not be asked, with why.
fn networks(at: &Answering<'_>) -> Result<(Vec<NetworkStatus>, Vec<String>), Fault> {
    let (mut out, mut unknown) = (Vec::new(), Vec::new());
    for (network, on) in wanted::networks(at.view)? {
        let workers = match at.facts.get(&Look::Workers(network.id)) {
            Some(Fact::Workers(w)) => w.clone(),
            Some(Fact::Unknown(why)) => {
                unknown.push(format!("network {}: its workers could not be asked: {why}", network.name));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let nodes = at.view.ids(Index::NodesOf, &crate::model::record::under(network.id, &[]))?.len() as u64;
        out.push(NetworkStatus { name: network.name, interface: on.interface, nodes, workers });
    }
    Ok((out, unknown))
}

/// Find out what is wrong on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Doctor {}

impl Doctor {
    fn look(view: &dyn View) -> Result<Look, Fault> {
        let networks: Vec<(Network, crate::model::EngineNetwork)> = wanted::networks(view)?;
        Ok(Look::Doctor {
            networks: networks.into_iter().map(|(n, on)| (n.id, on.interface, n.address.to_string())).collect(),
        })
    }
}

impl Op for Doctor {
    type Out = Finding;

    const SHEET: Sheet = Sheet {
        noun: "doctor",
        verb: "",
        about: "Find out what is wrong on this host: tools missing, ports taken, rogue DHCP, portals unreachable, MTU",
        examples: &["doctor"],
        effect: Effect::Read,
        shape: Shape::Many,
        right: Right::Admin,
        columns: &["severity", "check", "found", "fix"],
        destroys: "",
    };

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        Ok(vec![Doctor::look(at.view)?])
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<Finding>, Fault> {
        match at.facts.get(&Doctor::look(at.view)?) {
            Some(Fact::Findings(found)) => {
                let mut found = found.clone();
                found.extend(datastores(at.view)?.iter().filter_map(thin));
                found.sort_by_key(|f| std::cmp::Reverse(f.severity));
                Ok(found)
            }
            Some(Fact::Unknown(why)) => Ok(vec![Finding {
                check: "drivers".to_owned(),
                severity: Severity::Error,
                found: why.clone(),
                fix: "look at bmid's log".to_owned(),
            }]),
            _ => Ok(Vec::new()),
        }
    }
}

/// One difference that reconcile found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    /// What it is about: `network rack1`.
    pub object: String,
    /// What is different.
    pub difference: String,
    /// What is done about it.
    pub action: String,
    /// `done`, `failed`, `proposed`, `left` (nobody asked for its removal), `waiting` (a worker that is silent is given time).
    pub outcome: String,
    /// Why it failed.
    pub message: String,
}

control! {
    /// Compare what should be with what is, and repair.
    Reconcile -> Repair {}
    "reconcile" "" Many "Compare what should be with what is, and repair the differences (--check only lists them)", "reconcile", "reconcile --check";
    Admin; ""; &["object", "difference", "action", "outcome", "message"]
}
