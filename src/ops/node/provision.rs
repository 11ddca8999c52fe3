//! `node provision`: a machine gets a disk. One node or many in one call; each is a part of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use super::given::{Machine, Setting};
use super::{NodeView, script, view_of};
use crate::model::record::{mac_key, owned};
use crate::model::{
    Attachment, Change, ChapMode, Dhcp, Fault, Image, Index, Kind, Mac, Name, Network, Node, NodeState, NodeType, Ref,
    Role, Server, Target, ViewExt, Volume, VolumeStatus,
};
use crate::ops::datastore;
use crate::ops::{Answering, Asking, Cx, Effect, Op, PartPlan, Plan, Resolve, Right, Shape, Sheet};
use crate::rules::wanted::{Disk, NodeRecords, initiator, iqn};
use crate::rules::{allocate, room, wanted};
use crate::step::{Backing, Clone as CloneStep, Look};

/// Most nodes in one call: what one plan claims at once.
const MOST: usize = 1_000;

/// Give machines their disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeProvision {
    /// The node's name
    #[arg(required_unless_present_any = ["nodes", "file"])]
    #[serde(default)]
    pub name: Option<Name>,
    /// The image its disk is cloned from
    #[arg(long, required_unless_present = "volume", conflicts_with = "volume")]
    #[serde(default)]
    pub image: Option<Ref>,
    /// A kept volume to use as it is, instead of a fresh clone
    #[arg(long)]
    #[serde(default)]
    pub volume: Option<Ref>,
    /// The MAC of the card it boots from
    #[arg(long, requires = "name")]
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The network it boots on
    #[arg(long)]
    pub network: Ref,
    /// Which card that is, as you call it
    #[arg(long, value_name = "LABEL")]
    #[serde(default)]
    pub nic: Option<Name>,
    /// Have the machine prove itself by CHAP; in-script puts the secret into its boot script, out-of-band only into this answer
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "in-script")]
    #[serde(default)]
    pub chap: Option<ChapMode>,
    /// physical or virtual
    #[arg(long = "type", default_value = "physical")]
    #[serde(rename = "type", default = "physical")]
    pub kind: NodeType,
    /// A value for drivers; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// One machine of many; may be repeated
    #[arg(long = "node", value_name = "NAME,MAC[,NIC]", conflicts_with = "name")]
    #[serde(default)]
    pub nodes: Vec<Machine>,
    /// A file with a line NAME,MAC[,NIC] per machine; - is standard input
    #[arg(long, value_name = "FILE|-", conflicts_with = "name")]
    #[serde(default)]
    pub file: Option<String>,
    /// All machines or none
    #[arg(long)]
    #[serde(default)]
    pub all_or_nothing: bool,
    /// The machine's port is a trunk: its firmware goes over to the network's VLAN (`node boot-script --start` prints how)
    #[arg(long)]
    #[serde(default)]
    pub vlan_in_firmware: bool,
}

fn physical() -> NodeType {
    NodeType::Physical
}

/// What every part of one call shares.
struct Common {
    network: Network,
    source: Result<Image, Volume>,
    store: Server,
}

/// Names, MACs, addresses and numbers claimed by earlier parts of the same plan.
#[derive(Default)]
struct Taken {
    names: Vec<Name>,
    macs: Vec<Mac>,
    addresses: Vec<IpAddr>,
    tids: Vec<u32>,
}

impl NodeProvision {
    fn machines(&self) -> Result<Vec<Machine>, Fault> {
        let mut all = self.nodes.clone();
        if let Some(name) = &self.name {
            let mac = self.mac.ok_or_else(|| {
                Fault::invalid(format!("node {name} needs the MAC of the card it boots from")).fix("add --mac")
            })?;
            all.push(Machine { name: name.clone(), mac, nic: self.nic.clone() });
        }
        match all.len() {
            0 => Err(Fault::invalid("no machine is named").fix("give NAME and --mac, or --node, or --file")),
            n if n > MOST => {
                Err(Fault::new(Kind::Limit, format!("{n} machines in one call are more than {MOST}"))
                    .fix("split the list"))
            }
            n if n > 1 && self.volume.is_some() => {
                Err(Fault::invalid("one volume cannot be the disk of several machines")
                    .fix("use --image, or one machine"))
            }
            _ => Ok(all),
        }
    }

    /// The values for drivers, of which the trunk is one.
    fn values(&self) -> BTreeMap<String, String> {
        let given = self.settings.iter().map(|s| (s.key.to_string(), s.value.clone()));
        let trunk = self.vlan_in_firmware.then(|| (script::TRUNK.to_owned(), script::YES.to_owned()));
        given.chain(trunk).collect()
    }

    fn common(&self, at: &Asking<'_>) -> Result<Common, Fault> {
        let network = crate::ops::network::usable(at.view, at.project(), at.project(), &self.network)?;
        if self.vlan_in_firmware && network.vlan.is_none() {
            return Err(Fault::invalid(format!(
                "network {} is on no VLAN that a firmware could go over to",
                network.name
            ))
            .fix("leave --vlan-in-firmware out, or name a network with a VLAN"));
        }
        let source = match (&self.image, &self.volume) {
            (Some(image), None) => Ok(crate::ops::image::usable(at.view, at.project(), image)?),
            (None, Some(volume)) => Err(self.kept(at, volume)?),
            _ => {
                return Err(Fault::invalid("a node's disk comes from an image or from a kept volume")
                    .fix("give --image or --volume"));
            }
        };
        let store = at.view.must(match &source {
            Ok(image) => image.datastore,
            Err(volume) => volume.datastore,
        })?;
        Ok(Common { network, source, store })
    }

    /// The volume to use: one that is free, or one that a repeat of this call finds as its own node's disk.
    fn kept(&self, at: &Asking<'_>, volume: &Ref) -> Result<Volume, Fault> {
        let found = crate::ops::volume::find(at.view, at.project(), volume)?;
        let user = crate::ops::volume::attachment(at.view, found.id)?;
        let user = user.map(|a| at.view.must::<Node>(a.node)).transpose()?;
        if user.is_some_and(|n| n.owner == *at.project() && Some(&n.name) == self.name.as_ref()) {
            return Ok(found);
        }
        crate::ops::volume::free(at.view, at.project(), volume)
    }

    /// What of the node is another than was asked for. A NIC and settings that the call does not give may be anything.
    fn differs(
        &self,
        records: &NodeRecords,
        machine: &Machine,
        common: &Common,
    ) -> Result<Option<&'static str>, Fault> {
        let (node, disk) = (&records.node, &records.boot()?.volume);
        let disk_equal = match &common.source {
            Ok(image) => disk.image == Some(image.id),
            Err(volume) => disk.id == volume.id,
        };
        let has = |s: &Setting| node.settings.get(s.key.as_str()) == Some(&s.value);
        Ok([
            (node.mac == machine.mac, "its MAC"),
            (node.network == common.network.id, "its network"),
            (disk_equal, "its disk"),
            (records.target.chap.as_ref().map(|c| c.mode) == self.chap, "CHAP"),
            (node.kind == self.kind, "its type"),
            (machine.nic.is_none() || node.nic == machine.nic, "its NIC"),
            (self.settings.iter().all(has), "its settings"),
            (!self.vlan_in_firmware || script::on_trunk(node), "its port"),
            (node.state == NodeState::Ready, "its state"),
        ]
        .into_iter()
        .find_map(|(equal, what)| (!equal).then_some(what)))
    }

    /// An identical live node: the call is a repeat and nothing is to be done.
    fn same(&self, cx: &Cx<'_>, machine: &Machine, common: &Common) -> Result<Option<Node>, Fault> {
        let Some(old) = cx.view.by_key::<Node>(Index::NodeName, &owned(cx.project(), &machine.name))? else {
            return Ok(None);
        };
        let records = NodeRecords::load(cx.view, old)?;
        let Some(what) = self.differs(&records, machine, common)? else { return Ok(Some(records.node)) };
        Err(Fault::new(Kind::Duplicate, format!("there is a node {} already, and {what} differs", machine.name))
            .fix(format!("`bmictl node show {}` shows it; deprovision it or choose another name", machine.name)))
    }

    fn part(&self, cx: &mut Cx<'_>, machine: &Machine, common: &Common, taken: &mut Taken) -> Result<PartPlan, Fault> {
        let mut part = PartPlan::default();
        if let Some(old) = self.same(cx, machine, common)? {
            part.subjects.push(crate::model::journal::Subject {
                noun: "node".to_owned(),
                id: old.id,
                name: old.name.to_string(),
            });
            return Ok(part);
        }
        claim(cx, machine, taken)?;
        let (records, clone) = self.records(cx, machine, common, taken)?;
        let disk = records.boot()?;
        part.about("node", records.node.id, &records.node.name);
        part.changes.push(disk.volume.id);
        part.uses.extend([common.network.id, common.store.id]);
        if let Ok(image) = &common.source {
            part.uses.push(image.id);
        }
        // The boot entry waits for nothing, so it stands beside what takes longest. A machine that reads it too early tries
        // again, and its target is not there before its disk is whole.
        match clone {
            Some(from) => {
                part.script.first(CloneStep {
                    datastore: disk.volume.datastore,
                    place: disk.place.clone(),
                    from,
                    to: Backing::volume(disk.volume.id, disk.volume.generation),
                    note: None,
                });
                part.script.beside(records.entry(cx.defaults));
                part.script.first(records.make_target());
            }
            None => {
                part.script.first(records.make_target());
                part.script.beside(records.entry(cx.defaults));
            }
        }
        let operation = Some(cx.operation);
        part.row(Node { operation, ..records.node.clone() }, Node { state: NodeState::Ready, ..records.node.clone() });
        let making = if clone.is_some() { VolumeStatus::Creating } else { VolumeStatus::InUse };
        part.row(
            Volume { status: making, operation, ..disk.volume.clone() },
            Volume { operation: None, ..disk.volume.clone() },
        );
        part.begin.push(records.target.clone().into());
        part.begin.push(Change::from(disk.attachment.clone()));
        Ok(part)
    }

    /// The node with its records as they shall stand, and what its disk is cloned from.
    fn records(
        &self,
        cx: &mut Cx<'_>,
        machine: &Machine,
        common: &Common,
        taken: &mut Taken,
    ) -> Result<(NodeRecords, Option<Backing>), Fault> {
        let network = &common.network;
        let address = match network.dhcp {
            Dhcp::Serve | Dhcp::Ipv6 => {
                let start = cx.number();
                let found = allocate::address(cx.view, network, start, &taken.addresses)?;
                taken.addresses.push(found);
                Some(found)
            }
            Dhcp::Proxy | Dhcp::Off => None,
        };
        let node = Node {
            id: cx.id(),
            owner: cx.project().clone(),
            name: machine.name.clone(),
            kind: self.kind,
            mac: machine.mac,
            nic: machine.nic.clone(),
            network: network.id,
            address,
            state: NodeState::Provisioning,
            cause: None,
            settings: self.values(),
            created_at: cx.now,
            updated_at: cx.now,
            operation: None,
        };
        let (volume, clone) = match &common.source {
            Ok(image) => (fresh_volume(cx, image), Some(Backing::image(image.id))),
            Err(kept) => (Volume { role: Role::Boot, status: VolumeStatus::InUse, ..kept.clone() }, None),
        };
        let tid = {
            let (view, id) = (cx.view, network.id);
            allocate::tid(view, id, || cx.number(), &taken.tids)?
        };
        taken.tids.push(tid);
        let chap = self.chap.map(|mode| super::secret::fresh(cx, node.id, mode));
        let target = Target {
            id: cx.id(),
            node: node.id,
            network: network.id,
            tid,
            iqn: iqn(&cx.defaults.iqn_prefix, node.id),
            initiator: initiator(&cx.defaults.iqn_prefix, node.id),
            chap,
            created_at: cx.now,
        };
        let attachment = Attachment { id: cx.id(), node: node.id, volume: volume.id, lun: 1, created_at: cx.now };
        let place = wanted::place(cx.view, volume.datastore)?;
        Ok((
            NodeRecords { node, target, network: network.clone(), disks: vec![Disk { attachment, volume, place }] },
            clone,
        ))
    }
}

fn claim(cx: &Cx<'_>, machine: &Machine, taken: &mut Taken) -> Result<(), Fault> {
    let twice =
        |what: String| Err(Fault::invalid(format!("{what} stands twice in this call")).fix("name each machine once"));
    if taken.names.contains(&machine.name) {
        return twice(machine.name.to_string());
    }
    if taken.macs.contains(&machine.mac) {
        return twice(machine.mac.to_string());
    }
    if let Some(other) = cx.view.by_key::<Node>(Index::NodeMac, &mac_key(machine.mac))? {
        return Err(Fault::new(Kind::Duplicate, format!("{} is the card of node {}", machine.mac, other.name))
            .fix("deprovision or migrate that node first, or check the MAC"));
    }
    taken.names.push(machine.name.clone());
    taken.macs.push(machine.mac);
    Ok(())
}

fn fresh_volume(cx: &mut Cx<'_>, image: &Image) -> Volume {
    Volume {
        id: cx.id(),
        owner: cx.project().clone(),
        name: None,
        image: Some(image.id),
        datastore: image.datastore,
        generation: 0,
        role: Role::Boot,
        size_bytes: image.size_bytes,
        status: VolumeStatus::InUse,
        created_at: cx.now,
        deleted_at: None,
        operation: None,
    }
}

impl Op for NodeProvision {
    type Out = NodeView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "provision",
        about: "Give a machine a disk cloned from an image, and let it boot",
        examples: &[
            "node provision web1 --image debian-12 --mac 52:54:00:12:34:56 --network rack1",
            "node provision web1 --volume web1 --mac 52:54:00:12:34:56 --network rack1 --chap",
            "node provision --image debian-12 --network rack1 --file machines.csv --all-or-nothing",
            "node provision web2 --image debian-12 --mac 52:54:00:12:34:57 --network tenant7 --vlan-in-firmware",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &["name", "state", "mac", "address", "portal", "iqn", "chap_user", "chap_secret"],
        destroys: "",
    };

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        if let Some(file) = &self.file {
            let shown = if file == "-" { "standard input" } else { file.as_str() };
            for (number, line) in (1..).zip(client.lines(file)?) {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    let bad = |why: String| {
                        Fault::invalid(why)
                            .trying(format!("read line {number} of {shown}"))
                            .fix("write a machine a line: NAME,MAC[,NIC]; nothing was begun")
                    };
                    self.nodes.push(line.parse().map_err(bad)?);
                }
            }
        }
        Ok(())
    }

    fn many(&self) -> bool {
        self.name.is_none()
    }

    fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        let common = self.common(at)?;
        Ok(datastore::look(&common.store).into_iter().chain([room::look(&common.network)]).collect())
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let machines = self.machines()?;
        let common = self.common(&Asking { view: cx.view, caller: cx.caller, defaults: cx.defaults })?;
        datastore::must_have(&common.store, cx.facts, None)?;
        let mut taken = Taken::default();
        let mut plan =
            Plan { parts: Vec::with_capacity(machines.len()), atomic: self.all_or_nothing || machines.len() == 1 };
        for machine in &machines {
            let part = self
                .part(cx, machine, &common, &mut taken)
                .map_err(|f| f.trying(format!("provision node {}", machine.name)))?;
            plan.parts.push(part);
        }
        let fresh = plan.parts.iter().filter(|p| !p.changes.is_empty()).count();
        let room = cx.facts.get(&room::look(&common.network));
        room::must_fit(cx.view, room, &common.network, &common.store, fresh)?;
        Ok(plan)
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<NodeView>, Fault> {
        let mut out = Vec::new();
        for subject in at.subjects {
            if let Some(node) = at.view.get::<Node>(subject.id)? {
                out.push(view_of(at.view, node, at.facts, at.defaults)?);
            }
        }
        Ok(out)
    }
}

/// Refuses a MAC that another node has.
pub fn mac_free(cx: &Cx<'_>, mac: Mac, but: &Node) -> Result<(), Fault> {
    match cx.view.find(Index::NodeMac, &mac_key(mac))? {
        Some(other) if other != but.id => {
            let other = cx.view.must::<Node>(other)?;
            Err(Fault::new(Kind::Duplicate, format!("{mac} is the card of node {}", other.name))
                .fix("deprovision or migrate that node first, or check the MAC"))
        }
        _ => Ok(()),
    }
}

/// The claims a change of a node's disk makes.
pub fn disk_claims(part: &mut PartPlan, records: &NodeRecords) {
    part.about("node", records.node.id, &records.node.name);
    part.changes.extend(records.disks.iter().map(|d| d.volume.id));
    part.uses.push(records.network.id);
    part.uses.extend(records.disks.iter().map(|d| d.volume.datastore));
}

/// The tags that stand in the way, named.
pub fn tags_go_first(view: &dyn crate::model::View, node: &Node, what: &str) -> Result<(), Fault> {
    let tags = crate::ops::tag::of(view, node.id)?;
    if tags.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = tags.iter().map(|t| t.name.as_str()).collect();
    Err(Fault::conflict(format!("node {} has tags: {}", node.name, names.join(", ")))
        .trying(format!("{what} node {}", node.name))
        .fix(format!("remove them first: `bmictl tag rm {} {}`", node.name, names.first().copied().unwrap_or("TAG"))))
}
