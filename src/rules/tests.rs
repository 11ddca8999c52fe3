//! Reconcile and allocation against rows in memory: what stands as wanted differs in nothing, each missing or foreign thing
//! is found and nothing else is, and free addresses are found while there are any.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::allocate;
use super::reconcile::{self, Action, Expect, Rows, SeenNetwork, SeenSilent};
use super::unnoted;
use super::wanted::{self, NodeRecords};
use crate::model::*;
use crate::rules::Defaults;
use crate::step::{Backing, Entry, Seen, SeenLun, SeenTarget, Step, StopWorker, WorkerKind, WorkerStep};

/// Rows in memory, indexed as the store indexes them.
#[derive(Default)]
struct Memory {
    rows: BTreeMap<(Table, Id), Row>,
    meta: Option<Meta>,
}

impl Memory {
    fn put(&mut self, row: impl Into<Row>) {
        let row = row.into();
        self.rows.insert((row.table(), row.id()), row);
    }
}

impl View for Memory {
    fn row(&self, table: Table, id: Id) -> Result<Option<Row>, Fault> {
        Ok(self.rows.get(&(table, id)).cloned())
    }
    fn find(&self, index: Index, key: &[u8]) -> Result<Option<Id>, Fault> {
        Ok(self.ids(index, key)?.first().copied())
    }
    fn ids(&self, index: Index, key: &[u8]) -> Result<Vec<Id>, Fault> {
        let fits = |row: &&Row| row.indexes().iter().any(|e| e.index == index && e.key == key);
        Ok(self.rows.values().filter(fits).map(Row::id).collect())
    }
    fn usage(&self, _: &Owner) -> Result<Usage, Fault> {
        Ok(Usage::default())
    }
    fn meta(&self) -> &Meta {
        self.meta.as_ref().expect("set by ground()")
    }
}

fn id(n: u8) -> Id {
    Id::from_random([n; 16])
}

fn name(s: &str) -> Name {
    s.parse().expect(s)
}

fn defaults() -> Defaults {
    Defaults { iqn_prefix: "iqn.2026-11.internal.bmi".into(), port: 3260, max_image: Bytes(1 << 40) }
}

const OWNER: fn() -> Owner = Owner::default_project;

fn network() -> Network {
    Network {
        id: id(2),
        owner: Some(OWNER()),
        name: name("net1"),
        vlan: None,
        address: "10.9.0.1/24".parse().expect("an address"),
        range: Some("10.9.0.10-10.9.0.19".parse().expect("a range")),
        dhcp: Dhcp::Serve,
        state: NetworkState::Ready,
        slot: 7,
        created_at: Time(1),
        operation: None,
        router: None,
        dns: Vec::new(),
    }
}

fn store() -> Server {
    Server {
        id: id(3),
        name: name("default"),
        kind: ServerKind::Datastore,
        driver: "file".into(),
        url: None,
        ip: None,
        port: None,
        place: Some(Place::Folder { path: "/d".into(), loop_size: None, thin: false }),
        state: ServerState::Active,
        created_at: Time(1),
        operation: None,
    }
}

/// Where the network is on the engine.
fn on() -> EngineNetwork {
    let interface = "eth1".to_owned();
    EngineNetwork { id: id(4), network: id(2), engine: id(1), interface, address_ours: true, trunk: None }
}

fn disk(id: Id, status: VolumeStatus) -> Volume {
    Volume {
        id,
        owner: OWNER(),
        name: None,
        image: None,
        datastore: self::id(3),
        generation: 3,
        role: Role::Boot,
        size_bytes: Bytes(512),
        status,
        created_at: Time(1),
        deleted_at: None,
        operation: None,
    }
}

/// An engine with a datastore, a network and `nodes` nodes.
fn ground(nodes: u8) -> Memory {
    let mut m = Memory {
        meta: Some(Meta { schema: 1, engine: id(1), engine_name: name("e"), release: "t".into(), created_at: Time(1) }),
        ..Memory::default()
    };
    m.put(store());
    m.put(network());
    m.put(on());
    for n in 0..nodes {
        let (node, volume) = (id(100 + n), id(200u8.wrapping_add(n)));
        m.put(Node {
            id: node,
            owner: OWNER(),
            name: name(&format!("n{n}")),
            kind: NodeType::Physical,
            mac: format!("52:54:00:00:00:{n:02x}").parse().expect("a MAC"),
            nic: None,
            network: id(2),
            address: Some([10, 9, 0, 10 + n].into()),
            state: NodeState::Ready,
            cause: None,
            settings: BTreeMap::new(),
            created_at: Time(1),
            updated_at: Time(1),
            operation: None,
        });
        m.put(disk(volume, VolumeStatus::InUse));
        m.put(Attachment { id: node.derived(1), node, volume, lun: 1, created_at: Time(1) });
        m.put(Target {
            id: node.derived(2),
            node,
            network: id(2),
            tid: u32::from(n) + 1,
            iqn: wanted::iqn(&defaults().iqn_prefix, node),
            initiator: wanted::initiator(&defaults().iqn_prefix, node),
            chap: None,
            created_at: Time(1),
        });
    }
    m
}

fn digest(e: &Entry) -> String {
    format!("{e:?}")
}

fn seen_target(node: &NodeRecords) -> SeenTarget {
    let want = node.make_target();
    SeenTarget {
        tid: want.tid,
        iqn: want.iqn,
        luns: want.luns.into_iter().map(|l| SeenLun { number: l.number, path: l.path }).collect(),
        initiators: vec![want.initiator],
        accounts: Vec::new(),
        sessions: Vec::new(),
    }
}

/// What the outside looks like when all is as the rows want it: (backings, targets, entries).
fn as_wanted(rows: &Rows) -> (Vec<Seen>, Vec<Seen>, Vec<Seen>) {
    let mut backings = vec![Seen::Store(id(3))];
    backings.extend(rows.volumes.iter().map(|(v, g)| Seen::Backing(Backing::volume(*v, *g))));
    let mut targets = vec![Seen::Portal(network().address.address, 3260)];
    targets.extend(rows.nodes.iter().map(|n| Seen::Target(seen_target(n))));
    let entry =
        |n: &NodeRecords| Seen::Entry { node: n.node.id, mac: n.node.mac, digest: digest(&n.entry(&defaults())) };
    (backings, targets, rows.nodes.iter().map(entry).collect())
}

fn differences(rows: &Rows, seen: &(Vec<Seen>, Vec<Seen>, Vec<Seen>)) -> Vec<reconcile::Difference> {
    let mut out = reconcile::orphan_backings(rows, &store(), &seen.0);
    out.extend(reconcile::disks(rows, &store(), &seen.0));
    out.extend(reconcile::targets(rows, &network(), &seen.1));
    out.extend(reconcile::entries(rows, &network(), &seen.2, &defaults(), &digest));
    out
}

proptest! {
    #[test]
    fn one_missing_thing_is_one_difference(nodes in 1u8..8, which in 0usize..3, at in any::<prop::sample::Index>()) {
        let rows = Rows::load(&ground(nodes)).expect("rows");
        let mut seen = as_wanted(&rows);
        prop_assert_eq!(differences(&rows, &seen), vec![]);
        let list = match which { 0 => &mut seen.0, 1 => &mut seen.1, _ => &mut seen.2 };
        // The first of the backings is the store's own mark and of the targets the portal: other rules look at those.
        let skip = usize::from(which != 2);
        let gone = skip + at.index(list.len() - skip);
        list.remove(gone);
        let found = differences(&rows, &seen);
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        prop_assert_eq!(matches!(found[0].action, Action::Mark(Some(_))), which == 0, "a missing disk cannot be put back, it is told");
    }

    #[test]
    fn addresses_are_given_while_there_are_any(taken in 0u8..10, start in any::<u32>()) {
        let m = ground(taken);
        let found = allocate::address(&m, &network(), start, &[]).expect("one is free");
        prop_assert!(network().range.expect("a range").contains(found));
        prop_assert!(m.find(Index::NodeAddress, &record::under(id(2), &crate::model::net::octets(found))).expect("rows").is_none());
    }
}

#[test]
fn in_an_ipv6_network_nodes_get_blocks_that_do_not_overlap() {
    let address = "fd00:7::1/64".parse().expect("a subnet");
    let six = Network { address, range: None, dhcp: Dhcp::Ipv6, ..network() };
    let mut taken = Vec::new();
    // The last ones of all follow one another round.
    for start in [7, 7, 7, 0x0eff_fffe, 0x0eff_fffe, 0x0eff_fffe] {
        taken.push(allocate::address(&ground(0), &six, start, &taken).expect("there are many"));
    }
    let text: Vec<String> = taken.iter().map(ToString::to_string).collect();
    let wanted = ["::1000:70", "::1000:80", "::1000:90", "::ffff:ffe0", "::ffff:fff0", "::1000:0"];
    assert_eq!(text, wanted.map(|a| format!("fd00:7{a}")));
    assert!(taken.iter().all(|a| address.reserved().contains(*a) && !address.leased().contains(*a)));
}

#[test]
fn a_full_range_is_said() {
    assert_eq!(allocate::address(&ground(10), &network(), 5, &[]).map_err(|f| f.kind), Err(Kind::Limit));
    let some: Vec<_> = (14..20).map(|n| std::net::IpAddr::from([10, 9, 0, n])).collect();
    assert_eq!(
        allocate::address(&ground(4), &network(), 5, &some).map_err(|f| f.kind),
        Err(Kind::Limit),
        "claims of the same plan count"
    );
}

#[test]
fn what_no_record_wants_goes_and_only_while_none_does() {
    let m = ground(2);
    let rows = Rows::load(&m).expect("rows");
    let mut seen = as_wanted(&rows);
    seen.0.push(Seen::Backing(Backing::volume(id(200), 2)));
    seen.0.push(Seen::Backing(Backing::image(id(77))));
    let foreign =
        SeenTarget { tid: 99, iqn: wanted::iqn("iqn.2026-11.internal.bmi", id(77)), ..seen_target(&rows.nodes[0]) };
    seen.1.push(Seen::Target(foreign));
    seen.2.push(Seen::Entry { node: id(77), mac: "52:54:00:00:00:77".parse().expect("a MAC"), digest: String::new() });
    let found = differences(&rows, &seen);
    assert_eq!(found.len(), 4, "{found:?}");
    for difference in &found {
        for expect in &difference.expects {
            assert!(expect.holds(&m).expect("rows"), "{difference:?}");
        }
    }
    let current = Expect::NoBacking(Backing::volume(id(200), 3));
    assert!(!current.holds(&m).expect("rows"), "a backing that a row wants is never collected");
}

#[test]
fn an_unavailable_datastore_makes_nobody_believe_disks_gone() {
    let rows = Rows::load(&ground(3)).expect("rows");
    let mut seen = as_wanted(&rows);
    seen.0 = vec![Seen::Backing(Backing::image(id(77)))];
    assert_eq!(differences(&rows, &seen), vec![]);
    assert!(reconcile::datastore(&store(), &seen.0).is_some());
}

#[test]
fn a_target_that_lets_others_in_or_has_another_disk_differs() {
    let rows = Rows::load(&ground(1)).expect("rows");
    type Spoil = fn(&mut SeenTarget);
    let spoils: [Spoil; 4] = [
        |t| t.initiators.push("iqn.2026-11.example:other".into()),
        |t| t.luns[0].path.push('x'),
        |t| t.luns.clear(),
        |t| t.accounts.push("somebody".into()),
    ];
    for spoil in spoils {
        let mut target = seen_target(&rows.nodes[0]);
        spoil(&mut target);
        let found = reconcile::targets(&rows, &network(), &[Seen::Target(target)]);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

#[test]
fn ground_before_doors_and_nothing_twice() {
    let (n, on) = (network(), on());
    let want = wanted::network(&n, &on, &defaults());
    let nothing = SeenNetwork::default();
    assert_eq!(reconcile::ground(&n, &want, "d", &nothing).len(), 3, "address, layout, tgtd");
    assert_eq!(reconcile::doors(&n, &want, &[], &nothing).len(), 3, "portal, dnsmasq, http");
    let kinds = [WorkerKind::Tgtd, WorkerKind::Dnsmasq, WorkerKind::Http];
    let workers = kinds.into_iter().zip(1..).map(|(kind, pid)| Seen::Worker(kind, pid)).collect();
    let whole = SeenNetwork {
        addresses: vec![Seen::Address(n.address)],
        boot: vec![Seen::Service("d".into())],
        workers,
        silent: vec![],
    };
    assert_eq!(reconcile::ground(&n, &want, "d", &whole), vec![]);
    assert_eq!(reconcile::doors(&n, &want, &[Seen::Portal(n.address.address, 3260)], &whole), vec![]);
    let changed = reconcile::ground(&n, &want, "other", &whole);
    assert!(
        matches!(&changed[0].action, Action::Apply(steps) if steps.len() == 5),
        "running ones are started again: {changed:?}"
    );
}

#[test]
fn a_silent_worker_is_left_alone_until_it_hangs_and_is_then_ended_before_a_new_one_starts() {
    let (n, on) = (network(), on());
    let want = wanted::network(&n, &on, &defaults());
    let seen = |hung| SeenNetwork {
        addresses: vec![Seen::Address(n.address)],
        boot: vec![Seen::Service("d".into())],
        workers: vec![],
        silent: [WorkerKind::Tgtd, WorkerKind::Dnsmasq, WorkerKind::Http]
            .map(|kind| SeenSilent { kind, what: "process 7".into(), hung })
            .into(),
    };
    let portal = [Seen::Portal(n.address.address, 3260)];
    let all = |seen| [reconcile::ground(&n, &want, "d", &seen), reconcile::doors(&n, &want, &portal, &seen)].concat();
    assert_eq!(all(seen(false)), vec![]);
    let found = all(seen(true));
    assert_eq!(found.len(), 3, "{found:?}");
    for (difference, kind) in found.iter().zip([WorkerKind::Tgtd, WorkerKind::Dnsmasq, WorkerKind::Http]) {
        let Action::Apply(steps) = &difference.action else { panic!("{difference:?}") };
        assert_eq!(steps[0], StopWorker { network: n.id, kind }.into());
        assert!(matches!(&steps[1..], [Step::Worker(WorkerStep::StartWorker(s))] if s.kind == kind), "{steps:?}");
    }
}

#[test]
fn an_operation_never_leaves_its_line_backwards() {
    use Phase::{Final, Forward, Parked, Unwinding};
    for (from, to) in [(Final, Unwinding), (Final, Forward), (Unwinding, Forward), (Unwinding, Final)] {
        assert!(!from.may_become(to), "{from:?} -> {to:?}");
    }
    for phase in [Forward, Final, Unwinding] {
        assert!(phase.may_become(Parked) && Parked.may_become(phase));
    }
}

#[test]
fn a_target_that_no_record_wants_lets_go_of_disks_in_our_pools_alone() {
    let pool = RbdPlace {
        pool: "p".into(),
        namespace: Some("ns".into()),
        conf: "/c".into(),
        user: "u".into(),
        keyring: None,
        datastore: id(9),
        export: RbdExport::Kernel,
    };
    let place = Place::Rbd(pool.clone());
    let all = [store(), Server { id: id(9), place: Some(place.clone()), ..store() }];
    let lun = |path: String| wanted::lun_seen(&SeenLun { number: 1, path }, &all);
    let volume = Backing::volume(id(7), 3).path(&place);
    let found = lun(volume.clone()).expect("a volume of that datastore");
    assert_eq!((found.path, found.pool), (volume.clone(), Some(pool)));
    let others =
        [volume.replace("/ns/", "/"), volume.replace("rbd:p/", "rbd:q/"), "/dev/rbd7".into(), "/d/x.raw".into()];
    for foreign in others.into_iter().chain([Backing::image(id(7)).path(&place)]) {
        assert_eq!(lun(foreign.clone()), None, "{foreign}");
    }
}

#[test]
fn a_datastore_without_notes_gets_a_hundred_of_them_a_pass_and_what_has_no_record_counts_for_none() {
    let mut memory = ground(0);
    let of = |n: u8, kind: u8| Id::from_random([kind, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let bare = |n: u8, kind: u8| Seen::Bare(Backing::volume(of(n, kind), 3));
    for n in 0..150 {
        memory.put(disk(of(n, 1), VolumeStatus::Available));
    }
    let rows = Rows::load(&memory).expect("they load");
    // First what no record wants, then what has lost its notes.
    let mut seen: Vec<Seen> = (0..120).map(|n| bare(n, 2)).collect();
    seen.extend((0..150).map(|n| bare(n, 1)));
    let pass = |seen: &[Seen]| unnoted::renew(&memory, &rows, &store(), seen).expect("rows are read");
    assert!(pass(&seen).is_empty(), "of a datastore that is not there nothing is known");
    seen.push(Seen::Store(id(3)));
    let first = pass(&seen);
    assert_eq!(first.len(), 100);
    let done: Vec<Id> = first.iter().map(|d| d.id).collect();
    seen.retain(|s| !matches!(s, Seen::Bare(b) if done.contains(&b.id)));
    let second = pass(&seen);
    assert_eq!(second.len(), 50, "the next pass has the rest");
    assert!(second.iter().all(|d| !done.contains(&d.id)));
}
