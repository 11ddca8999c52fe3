//! What is killed: for each operation that changes something, command lines that bring the engine to where it can run, and
//! the command. A test walks the table of operations against this list, so that none can be forgotten.

/// What is special about a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// All rules hold.
    None,
    /// Its own business is what reconcile does: before reconcile the world may differ from the rows.
    Repairs,
    /// Its parts end each by itself.
    Parts,
    /// An import: without its input it ends as interrupted and leaves its staging for the repeat.
    Import,
    /// The state is lost and comes back out of a dump; there is no datastore `default` then.
    Restore,
    /// The first start: there is nothing yet and no command.
    FirstStart,
}

/// One of them. In the lines `$LAB` is a folder for files, `$VOLUME` the first volume there is and `$OP` the id under which
/// the first line runs.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The operation, as in events: `node.provision`.
    pub op: &'static str,
    /// Which case of it.
    pub case: &'static str,
    /// Run before, on top of the ground.
    pub setup: &'static [&'static str],
    /// What runs when it is killed. A line that begins with `&` is not waited for.
    pub lines: &'static [&'static str],
    /// The line that is repeated after recovery.
    pub repeat: usize,
    /// Faults that belong to it.
    pub faults: &'static str,
    /// What is special.
    pub special: Special,
}

/// Control operations that change nothing.
pub const LOOKS: &[&str] = &["op.ls", "op.show", "op.watch", "event.ls", "event.watch", "state.check"];

/// Where every test's golden image, network and datastore come from: all scenarios but those with [`Special::FirstStart`].
pub const GROUND: &[&str] = &[
    "network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150",
    "image import $LAB/golden.raw --name golden --format raw",
];

const NET2: &str = "network create net2 --interface eth2 --address 10.9.1.1/24 --range 10.9.1.100-10.9.1.150";
const NET3: &str = "network create net3 --interface eth3 --vlan 103 --mtu 1400 --address 10.9.3.1/24";
const DETACH: &str = "network detach net1 web1";
const POOLED: &str = "vlan add 104-106";
const AUTO: &str = "network create net4 --interface eth3 --vlan auto --address 10.9.4.1/24";
/// A datastore of its own.
pub const FAST: &str = "datastore create fast --path /srv/bmid-kill/fast";
const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1";
const WEB1_CHAP: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap";
const WEB1_OUT: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap=out-of-band";
const OTHER: &str = "image import $LAB/other.raw --name other --format raw";
const POOL: &str = "datastore create pool --kind rbd --pool bmi --conf /etc/ceph/kill.conf --id bmi";
const TAKE: &str = "image import --from-rbd vms/debian@ready --name other --datastore pool";
const TAKE_IN_PLACE: &str = "image import --from-rbd bmi/debian --in-place --name other --datastore pool";
const TAG: &str = "tag create web1 base";
const KEEP: &str = "node deprovision web1 --keep-volume";
const GONE: &str = "node deprovision web1";
/// Fails as long as an operation tries before it parks.
const FIVE: &str = "fail storage.remove.before 1\nfail storage.remove.before 2\nfail storage.remove.before 3\n\
    fail storage.remove.before 4\nfail storage.remove.before 5\n";

/// The nodes of the bulk scenarios; what tells them apart does not count when worlds are compared.
pub const BULK: &[&str] = &[
    "node provision --image golden --network net1 --node n1,52:54:00:00:01:01",
    "node provision --image golden --network net1 --node n1,52:54:00:00:01:01 --node n2,52:54:00:00:01:02",
    "node provision --image golden --network net1 --node n1,52:54:00:00:01:01 --node n2,52:54:00:00:01:02 \
     --node n3,52:54:00:00:01:03",
];
const THREE: Lines = &[BULK[2]];
const BULK_ALL: &str = "node provision --image golden --network net1 --node n1,52:54:00:00:01:01 \
    --node n2,52:54:00:00:01:02 --node n3,52:54:00:00:01:03 --all-or-nothing";

/// What another engine has left: its datastore, itself, and an image there.
pub const STRANGE: [&str; 3] = [
    "5f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a01",
    "5f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a02",
    "5f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a03",
];
const ADOPT: &str = "datastore create fast --path /srv/bmid-kill/fast --adopt=5f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a01";

type Lines = &'static [&'static str];

const fn plain(op: &'static str, case: &'static str, setup: Lines, lines: Lines) -> Scenario {
    Scenario { op, case, setup, lines, repeat: lines.len().saturating_sub(1), faults: "", special: Special::None }
}

const fn special(scenario: Scenario, special: Special) -> Scenario {
    Scenario { special, ..scenario }
}

/// A command to an operation that runs; repeated is the operation.
const fn about(op: &'static str, setup: Lines, lines: Lines, faults: &'static str, kind: Special) -> Scenario {
    Scenario { op, case: "", setup, lines, repeat: 0, faults, special: kind }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    plain("datastore.create", "", &[], &[FAST]),
    special(plain("datastore.create", "first start", &[], &[]), Special::FirstStart),
    plain("datastore.create", "taken over", &[], &[ADOPT]),
    special(plain("datastore.scan", "", &[], &["datastore scan default --remove"]), Special::Repairs),
    plain("datastore.rm", "", &[FAST], &["datastore rm fast"]),
    plain("network.create", "", &[], &[NET2]),
    plain("network.create", "on a VLAN", &[], &[NET3]),
    plain("network.create", "on a VLAN of the pool", &[POOLED], &[AUTO]),
    plain("network.rm", "", &[NET2], &["network rm net2"]),
    plain("network.rm", "on a VLAN", &[NET3], &["network rm net3"]),
    plain("network.update", "", &[WEB1], &["network update net1 --range 10.9.0.60-10.9.0.90 --router 10.9.0.254"]),
    plain("network.update", "of a VLAN", &[NET3], &["network update net3 --mtu 1300 --dhcp proxy --name net5"]),
    plain("network.attach", "", &[WEB1_CHAP, NET2], &["network attach net2 web1"]),
    plain("network.attach", "of a detached node", &[WEB1_CHAP, DETACH], &["network attach net1 web1"]),
    plain("network.detach", "", &[WEB1_CHAP], &[DETACH]),
    plain("vlan.add", "", &[], &[POOLED]),
    plain("vlan.rm", "", &[POOLED], &["vlan rm 104-105"]),
    special(plain("image.import", "", &[], &[OTHER]), Special::Import),
    plain("image.import", "out of a pool", &[POOL], &[TAKE]),
    plain("image.import", "in place", &[POOL], &[TAKE_IN_PLACE]),
    plain("image.rename", "", &[], &["image rename golden silver"]),
    plain("image.copy", "", &[], &["image copy golden silver"]),
    plain("image.rm", "", &[WEB1], &["image rm golden"]),
    plain("image.export", "", &[], &["image export golden $LAB/out.raw"]),
    plain("image.create", "", &[WEB1], &["image create silver --from-node web1"]),
    plain("image.create", "from a tag", &[WEB1, TAG], &["image create silver --from-node web1 --from-tag base"]),
    plain("node.provision", "", &[], &[WEB1]),
    plain("node.provision", "with CHAP", &[], &[WEB1_CHAP]),
    plain(
        "node.provision",
        "of a kept volume",
        &[WEB1, KEEP],
        &["node provision web2 --volume $VOLUME --mac 52:54:00:00:00:02 --network net1"],
    ),
    special(plain("node.provision", "of three, each by itself", &[], THREE), Special::Parts),
    plain("node.provision", "of three, all or nothing", &[], &[BULK_ALL]),
    plain("node.deprovision", "", &[WEB1_CHAP], &[GONE]),
    plain("node.deprovision", "keeping the volume", &[WEB1], &[KEEP]),
    plain("node.migrate", "", &[WEB1], &["node migrate web1 --mac 52:54:00:00:00:09 --nic eno2"]),
    plain(
        "node.migrate",
        "to another network",
        &[WEB1_CHAP, NET2],
        &["node migrate web1 --mac 52:54:00:00:00:09 --network net2"],
    ),
    plain("node.rebase", "", &[WEB1, OTHER], &["node rebase web1 --image other"]),
    plain("node.rebase", "discarding the disk", &[WEB1, OTHER], &["node rebase web1 --image other --discard"]),
    plain("node.reprovision", "", &[WEB1], &["node reprovision web1"]),
    plain("node.snapshot", "", &[WEB1], &["node snapshot web1 silver"]),
    plain("node.chap_secret", "", &[WEB1_OUT], &["node chap-secret web1 --rotate"]),
    plain("node.chap_secret", "in the script", &[WEB1_CHAP], &["node chap-secret web1 --rotate"]),
    plain("tag.create", "", &[WEB1], &[TAG]),
    plain("tag.rename", "", &[WEB1, TAG], &["tag rename web1 base first"]),
    plain("tag.rm", "", &[WEB1, TAG], &["tag rm web1 base"]),
    plain("tag.rollback", "", &[WEB1, TAG], &["tag rollback web1 base"]),
    plain("volume.rm", "", &[WEB1, KEEP], &["volume rm $VOLUME"]),
    about(
        "op.cancel",
        &[],
        &["& node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1", "op cancel $OP"],
        "hang storage.clone.before 1 1\n",
        Special::None,
    ),
    about("op.retry", &[WEB1], &[GONE, "op retry $OP"], FIVE, Special::None),
    about("op.abandon", &[WEB1], &[GONE, "op abandon $OP"], "fail storage.remove.before *\n", Special::Repairs),
    plain("state.rebuild", "", &[ADOPT], &["state rebuild --datastore fast"]),
    plain("state.dump", "", &[WEB1], &["state dump $LAB/out.jsonl"]),
    special(plain("state.restore", "", &[WEB1, TAG], &["state restore $LAB/state.jsonl"]), Special::Restore),
    special(plain("reconcile", "", &[WEB1_CHAP, TAG], &["reconcile"]), Special::Repairs),
];

impl Scenario {
    /// Whether it makes, moves or removes bytes of disks. What another's pool holds is taken over in simulators only; the
    /// driver's own tests cut that off in a real one.
    pub fn is_of_disks(&self) -> bool {
        let noun = self.op.split('.').next().unwrap_or_default();
        let more = ["op.cancel", "op.retry", "op.abandon"];
        let first = self.special == Special::FirstStart;
        let nouns = ["datastore", "image", "node", "tag", "volume"].contains(&noun) && self.op != "node.chap_secret";
        (nouns || more.contains(&self.op)) && !first && !self.is_forged() && !self.setup.contains(&POOL)
    }

    /// Whether there is something that no record knows of: it is forged, in the simulators' world alone.
    pub fn is_forged(&self) -> bool {
        self.op == "datastore.scan" || self.lines.iter().chain(self.setup).any(|l| *l == ADOPT)
    }

    /// Its name in reports.
    pub fn name(&self) -> String {
        if self.case.is_empty() { self.op.to_owned() } else { format!("{} ({})", self.op, self.case) }
    }
}
