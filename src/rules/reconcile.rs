//! Wanted against seen. Each difference becomes a repair of one object; what carries no mark of ours is not in `seen` at
//! all. Pure: it is told what is and what should be, and says what to do.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::model::{
    EngineNetwork, Fault, Id, Image, Mac, Network, Node, NodeState, Row, Server, ServerKind, ServerState, Snapshot,
    View, ViewExt, Volume,
};
use crate::rules::Defaults;
use crate::rules::wanted::{self, NetworkWanted, NodeRecords};
use crate::step::{
    Backing, BackingKind, DropEntry, DropTarget, DropVlan, MakeVlan, OpenStore, Remove, Seen, SeenTarget, Step,
    StopWorker, Unserve, WorkerKind,
};

/// All that should exist, out of one consistent look.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Datastores in use.
    pub datastores: Vec<Server>,
    /// Live images.
    pub images: HashSet<Id>,
    /// Live volumes and their current generation.
    pub volumes: HashMap<Id, u32>,
    /// Live snapshots.
    pub snapshots: HashSet<Id>,
    /// Networks served here.
    pub networks: Vec<(Network, EngineNetwork)>,
    /// Nodes with all around them.
    pub nodes: Vec<NodeRecords>,
}

impl Rows {
    /// Reads them.
    pub fn load(view: &dyn View) -> Result<Rows, Fault> {
        let mut datastores = view.live::<Server>()?;
        let stands = |s: &Server| matches!(s.state, ServerState::Active | ServerState::Adopted);
        datastores.retain(|s| s.kind == ServerKind::Datastore && stands(s));
        Ok(Rows {
            datastores,
            images: view.live::<Image>()?.into_iter().map(|i| i.id).collect(),
            volumes: view.live::<Volume>()?.into_iter().map(|v| (v.id, v.generation)).collect(),
            snapshots: view.live::<Snapshot>()?.into_iter().map(|s| s.id).collect(),
            networks: wanted::networks(view)?,
            nodes: view.live::<Node>()?.into_iter().map(|n| NodeRecords::load(view, n)).collect::<Result<_, _>>()?,
        })
    }

    /// The nodes that a network serves.
    pub fn nodes_of(&self, network: Id) -> impl Iterator<Item = &NodeRecords> {
        let served = move |n: &&NodeRecords| n.network.id == network && n.node.state != NodeState::Detached;
        self.nodes.iter().filter(served)
    }
}

/// What a repair does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Steps, in order.
    Apply(Vec<Step>),
    /// The node cannot boot, and why; or it can again.
    Mark(Option<String>),
}

/// One difference and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `network`, `node`, …
    pub noun: &'static str,
    /// The object claimed for the repair.
    pub id: Id,
    /// Its name, for people.
    pub name: String,
    /// What is different.
    pub what: String,
    /// What to do.
    pub action: Action,
    /// What must still hold when the repair begins.
    pub expects: Vec<Expect>,
    /// It removes what no record wants. Done only when somebody asks: after a lost store or an older dump the records, not
    /// the disks, are what is wrong.
    pub removes: bool,
}

impl Difference {
    /// Whether it is about what operations stand on: a datastore or a network that is there, and lacks something.
    #[must_use]
    pub fn ground(&self) -> bool {
        matches!(self.noun, "datastore" | "network")
    }
}

/// A condition on rows, judged again under the repair's claim: an operation may have ended between looking and repairing.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// This row stands exactly so.
    Row(Row),
    /// No row wants these bytes.
    NoBacking(Backing),
    /// No node wants a target in this network.
    NoTarget(Id, Id),
    /// The node does not boot from this card on this network.
    NoEntry(Id, Id, Mac),
    /// No row of that network.
    NoNetwork(Id),
}

impl Expect {
    /// Whether it holds.
    pub fn holds(&self, view: &dyn View) -> Result<bool, Fault> {
        Ok(match self {
            Expect::Row(row) => view.row(row.table(), row.id())?.as_ref() == Some(row),
            Expect::NoBacking(b) => match b.kind {
                BackingKind::Image => view.get::<Image>(b.id)?.is_none_or(|i| i.deleted_at.is_some()),
                BackingKind::Snapshot => view.get::<Snapshot>(b.id)?.is_none_or(|s| s.deleted_at.is_some()),
                BackingKind::Volume => {
                    view.get::<Volume>(b.id)?.is_none_or(|v| v.deleted_at.is_some() || v.generation != b.generation)
                }
            },
            Expect::NoTarget(network, node) => {
                view.get::<Node>(*node)?.is_none_or(|n| n.network != *network || n.state == NodeState::Detached)
            }
            Expect::NoEntry(network, node, mac) => view
                .get::<Node>(*node)?
                .is_none_or(|n| n.network != *network || n.mac != *mac || n.state == NodeState::Detached),
            Expect::NoNetwork(id) => view.get::<Network>(*id)?.is_none(),
        })
    }
}

fn of_node(records: &NodeRecords, what: impl Into<String>, action: Action) -> Difference {
    let node = &records.node;
    Difference {
        noun: "node",
        id: node.id,
        name: node.name.to_string(),
        what: what.into(),
        action,
        expects: vec![Expect::Row(node.clone().into()), Expect::Row(records.target.clone().into())],
        removes: false,
    }
}

fn of_network(network: &Network, what: impl Into<String>, steps: Vec<Step>) -> Difference {
    Difference {
        noun: "network",
        id: network.id,
        name: network.name.to_string(),
        what: what.into(),
        action: Action::Apply(steps),
        expects: vec![Expect::Row(network.clone().into())],
        removes: false,
    }
}

fn orphan(noun: &'static str, id: Id, what: String, steps: Vec<Step>, expect: Expect) -> Difference {
    Difference {
        noun,
        id,
        name: id.to_string(),
        what,
        action: Action::Apply(steps),
        expects: vec![expect],
        removes: true,
    }
}

/// A datastore that is not within reach.
#[must_use]
pub fn datastore(server: &Server, seen: &[Seen]) -> Option<Difference> {
    let place = server.place.clone()?;
    if seen.contains(&Seen::Store(server.id)) {
        return None;
    }
    Some(Difference {
        noun: "datastore",
        id: server.id,
        name: server.name.to_string(),
        what: "its folder is not there or is not this datastore's".to_owned(),
        action: Action::Apply(vec![OpenStore { datastore: server.id, place }.into()]),
        expects: vec![Expect::Row(server.clone().into())],
        removes: false,
    })
}

/// Backings on a reachable datastore that no row wants.
#[must_use]
pub fn orphan_backings(rows: &Rows, server: &Server, seen: &[Seen]) -> Vec<Difference> {
    let Some(place) = &server.place else { return Vec::new() };
    // What stands on one that was taken over has no records yet.
    if server.state != ServerState::Active || !seen.contains(&Seen::Store(server.id)) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for thing in seen {
        let Seen::Backing(what) = thing else { continue };
        let (noun, current) = match what.kind {
            BackingKind::Image => ("image", rows.images.contains(&what.id)),
            BackingKind::Snapshot => ("tag", rows.snapshots.contains(&what.id)),
            BackingKind::Volume => ("volume", rows.volumes.get(&what.id) == Some(&what.generation)),
        };
        if current {
            continue;
        }
        let remove: Step = Remove { datastore: server.id, place: place.clone(), what: *what }.into();
        let text = format!("{} stands on datastore {} and no record wants it", what.name(), server.name);
        out.push(orphan(noun, what.id, text, vec![remove], Expect::NoBacking(*what)));
    }
    out
}

/// Nodes whose disk is missing on a reachable datastore, and nodes whose disk is there again.
#[must_use]
pub fn disks(rows: &Rows, server: &Server, seen: &[Seen]) -> Vec<Difference> {
    if !seen.contains(&Seen::Store(server.id)) {
        return Vec::new();
    }
    let there: HashSet<Backing> =
        seen.iter().filter_map(|s| if let Seen::Backing(b) = s { Some(*b) } else { None }).collect();
    let mut out = Vec::new();
    for node in rows.nodes.iter().filter(|n| matches!(n.node.state, NodeState::Ready | NodeState::Error)) {
        let mut disks = node.disks.iter().filter(|d| d.volume.datastore == server.id).peekable();
        if disks.peek().is_none() {
            continue;
        }
        let missing = disks.find(|d| !there.contains(&Backing::volume(d.volume.id, d.volume.generation)));
        match (missing, node.node.state) {
            (Some(disk), NodeState::Ready) => {
                let cause = format!(
                    "the disk {} is missing on datastore {}",
                    Backing::volume(disk.volume.id, disk.volume.generation).name(),
                    server.name
                );
                out.push(of_node(node, cause.clone(), Action::Mark(Some(cause))));
            }
            (None, NodeState::Error) => out.push(of_node(node, "its disk is there again", Action::Mark(None))),
            _ => {}
        }
    }
    out
}

/// What one network's drivers have seen.
#[derive(Clone, Debug, Default)]
pub struct SeenNetwork {
    /// By the network driver.
    pub addresses: Vec<Seen>,
    /// By the boot driver.
    pub boot: Vec<Seen>,
    /// By the worker driver: those that run and answer.
    pub workers: Vec<Seen>,
    /// Those that live and do not answer.
    pub silent: Vec<SeenSilent>,
}

/// A worker that lives and does not answer.
#[derive(Clone, Debug)]
pub struct SeenSilent {
    /// Which.
    pub kind: WorkerKind,
    /// What is known of it, for people.
    pub what: String,
    /// It has been silent for so long that it serves nobody any more.
    pub hung: bool,
}

impl SeenNetwork {
    /// What has a worker run again, if it does not. One that is silent is left alone until it hangs: machines may still have
    /// their disks there, and ending it cuts them off.
    fn run_again(&self, network: &Network, kind: WorkerKind, start: Step) -> Option<Difference> {
        if runs(&self.workers, kind) {
            return None;
        }
        let its = kind.as_str();
        match self.silent.iter().find(|s| s.kind == kind) {
            None => Some(of_network(network, format!("its {its} does not run"), vec![start])),
            Some(silent) if silent.hung => {
                let stop = StopWorker { network: network.id, kind }.into();
                Some(of_network(network, format!("its {its} hangs: {}", silent.what), vec![stop, start]))
            }
            Some(_) => None,
        }
    }
}

fn runs(workers: &[Seen], kind: WorkerKind) -> bool {
    workers.iter().any(|s| matches!(s, Seen::Worker(k, _) if *k == kind))
}

/// A network's ground: address, layout, tgtd. Before its targets can be looked at.
#[must_use]
pub fn ground(network: &Network, want: &NetworkWanted, digest: &str, seen: &SeenNetwork) -> Vec<Difference> {
    let mut out = Vec::new();
    if let Some(vlan) = want.vlan.as_ref().filter(|v| !stands(v, &seen.addresses)) {
        let what = format!("interface {} for VLAN {} is missing, down or different", vlan.interface, vlan.vlan);
        out.push(of_network(network, what, vec![vlan.clone().into(), want.address.clone().into()]));
    } else if !seen.addresses.contains(&Seen::Address(want.address.address)) {
        let what = format!("{} is not on interface {}", want.address.address, want.address.interface);
        out.push(of_network(network, what, vec![want.address.clone().into()]));
    }
    if !seen.boot.iter().any(|s| matches!(s, Seen::Service(d) if d == digest)) {
        // Both read their configuration once: one that runs with another layout is started again.
        let mut steps: Vec<Step> = vec![want.serve.clone().into()];
        for start in [&want.dnsmasq, &want.http].into_iter().filter(|w| runs(&seen.workers, w.kind)) {
            steps.push(StopWorker { network: network.id, kind: start.kind }.into());
            steps.push(start.clone().into());
        }
        out.push(of_network(network, "its boot service is laid out differently", steps));
    }
    out.extend(seen.run_again(network, WorkerKind::Tgtd, want.tgtd.clone().into()));
    out
}

/// Whether a VLAN's interface is as it should be.
fn stands(want: &MakeVlan, seen: &[Seen]) -> bool {
    seen.iter().any(|s| {
        let Seen::Vlan(v) = s else { return false };
        (v.interface.as_str(), v.parent.as_str(), v.vlan, v.tagging)
            == (want.interface.as_str(), want.parent.as_str(), want.vlan, want.tagging)
            && v.mtu == want.mtu.unwrap_or(v.parent_mtu)
    })
}

fn whole(target: &SeenTarget, want: &crate::step::MakeTarget) -> bool {
    target.tid == want.tid
        && target.initiators == [want.initiator.clone()]
        && target.accounts.len() == usize::from(want.account.is_some())
        && target.luns.len() == want.luns.len()
        && want.luns.iter().all(|l| target.luns.iter().any(|s| s.number == l.number && s.path == l.path))
}

/// The node an IQN of ours belongs to.
fn node_of(iqn: &str) -> Option<Id> {
    iqn.rsplit(':').next()?.parse().ok()
}

/// Targets that are missing, differ or are wanted by nobody.
#[must_use]
pub fn targets(rows: &Rows, network: &Network, seen: &[Seen]) -> Vec<Difference> {
    let there: HashMap<&str, &SeenTarget> =
        seen.iter().filter_map(|s| if let Seen::Target(t) = s { Some((t.iqn.as_str(), t)) } else { None }).collect();
    let mut wanted_iqns = HashSet::new();
    let mut out = Vec::new();
    for node in rows.nodes_of(network.id) {
        let want = node.make_target();
        wanted_iqns.insert(want.iqn.clone());
        // A node whose disk is missing has no target: its LUN could not be opened.
        if node.node.state != NodeState::Ready {
            continue;
        }
        match there.get(want.iqn.as_str()) {
            None => out.push(of_node(node, "its target is missing", Action::Apply(vec![want.into()]))),
            Some(target) if !whole(target, &want) => {
                out.push(of_node(node, "its target differs", Action::Apply(vec![want.into()])))
            }
            Some(_) => {}
        }
    }
    for target in there.values().filter(|t| !wanted_iqns.contains(&t.iqn)) {
        let drop = DropTarget {
            network: network.id,
            tid: target.tid,
            iqn: target.iqn.clone(),
            account: target.accounts.first().cloned(),
            force: true,
            luns: target.luns.iter().filter_map(|l| wanted::lun_seen(l, &rows.datastores)).collect(),
        };
        let node = node_of(&target.iqn).unwrap_or(network.id);
        let text = format!("target {} is wanted by no record", target.iqn);
        out.push(orphan("target", node, text, vec![drop.into()], Expect::NoTarget(network.id, node)));
    }
    out
}

/// Scripts and reservations that are missing, differ or are wanted by nobody. `digest` is the driver's.
#[must_use]
pub fn entries(
    rows: &Rows,
    network: &Network,
    seen: &[Seen],
    defaults: &Defaults,
    digest: &dyn Fn(&crate::step::Entry) -> String,
) -> Vec<Difference> {
    let mut out = Vec::new();
    for node in rows.nodes_of(network.id) {
        let want = node.entry(defaults);
        let expected = digest(&want);
        let same = seen.iter().any(|s| matches!(s, Seen::Entry { node: n, mac, digest } if (*n, *mac) == (node.node.id, node.node.mac) && *digest == expected));
        if !same {
            out.push(of_node(node, "its boot script is missing or differs", Action::Apply(vec![want.into()])));
        }
    }
    for thing in seen {
        let Seen::Entry { node, mac, .. } = thing else { continue };
        let wanted = rows.nodes_of(network.id).any(|n| (n.node.id, n.node.mac) == (*node, *mac));
        if !wanted {
            let step = DropEntry { network: network.id, node: *node, mac: *mac };
            let text = format!("the boot script of {mac} is wanted by no record");
            out.push(orphan("node", *node, text, vec![step.into()], Expect::NoEntry(network.id, *node, *mac)));
        }
    }
    out
}

/// A network's doors, opened when everything behind them stands: portal, dnsmasq and HTTP.
#[must_use]
pub fn doors(network: &Network, want: &NetworkWanted, targets: &[Seen], seen: &SeenNetwork) -> Vec<Difference> {
    let mut out = Vec::new();
    if !targets.contains(&Seen::Portal(want.portal.address, want.portal.port)) {
        out.push(of_network(
            network,
            format!("portal {} is not open", SocketAddr::new(want.portal.address, want.portal.port)),
            vec![want.portal.clone().into()],
        ));
    }
    for start in [&want.dnsmasq, &want.http] {
        out.extend(seen.run_again(network, start.kind, start.clone().into()));
    }
    out
}

/// A network of which something stands and that no record wants.
#[must_use]
pub fn unknown_network(id: Id) -> Difference {
    let stop = |kind| Step::from(StopWorker { network: id, kind });
    let text = "workers, files or an interface of a network that no record wants".to_owned();
    let vlan = DropVlan { network: id, interface: String::new() };
    let steps = vec![
        stop(WorkerKind::Dnsmasq),
        stop(WorkerKind::Http),
        stop(WorkerKind::Tgtd),
        Unserve { network: id }.into(),
        vlan.into(),
    ];
    orphan("network", id, text, steps, Expect::NoNetwork(id))
}
