//! What is judged of interfaces on VLANs, and the simulator through the suite. The kernel's own are in User-mode Linux (tests/rack).

use bmi::step::{NetworkStep, Scope, Seen};

use super::*;
use crate::drivers::network::sim::SimNetwork;
use crate::drivers::proving::{both_ways, fails_at_each, id};
use crate::drivers::sim::World;
use crate::drivers::{Driver, StepCx};

const GIVEN: Tagging = Tagging::Dot1q;

fn mark() -> Mark {
    Mark::new(Path::new("/run/bmid"))
}

fn link(index: u32, name: &str) -> Link {
    let (name, up, loopback) = (name.to_owned(), true, name == "lo");
    Link { index, name, up, carrier: up, loopback, mtu: 1500, group: 0, alias: None, vlan: None }
}

fn tagged(index: u32, name: &str, parent: u32, vlan: u16, network: Option<Id>) -> Link {
    let alias = network.map(|n| mark().of(n));
    let group = if network.is_some() { GROUP } else { 0 };
    Link { alias, group, vlan: Some((parent, vlan, GIVEN)), ..link(index, name) }
}

fn step(network: Id) -> MakeVlan {
    let (interface, parent) = ("bmi-v100".to_owned(), "eth1".to_owned());
    MakeVlan { network, interface, parent, vlan: 100, tagging: GIVEN, mtu: None }
}

fn host(more: &[Link]) -> Vec<Link> {
    [&[link(1, "lo"), link(2, "eth1"), link(3, "eth2")], more].concat()
}

#[test]
fn what_is_missing_is_made_what_is_half_made_or_different_is_put_right() {
    let network = id();
    let todo = |more: &[Link]| judge(&mark(), &host(more), &step(network)).unwrap();
    let ours = tagged(9, "bmi-v100", 2, 100, Some(network));
    let make = |first: &[u32]| Todo::Make { parent: 2, mtu: 1500, first: first.to_vec() };
    let finish = Todo::Finish { index: 9, mtu: 1500 };
    assert_eq!(todo(&[]), make(&[]));
    assert_eq!(todo(&[tagged(9, "eth2.100", 3, 100, None)]), make(&[]), "the same VLAN on another cable");
    assert_eq!(todo(std::slice::from_ref(&ours)), Todo::Nothing);
    assert_eq!(todo(&[Link { up: false, ..ours.clone() }]), finish);
    assert_eq!(todo(&[Link { mtu: 1400, ..ours.clone() }]), finish);
    assert_eq!(todo(&[Link { alias: None, ..ours.clone() }]), finish, "bmid died before it gave the alias");
    assert_eq!(todo(&[Link { vlan: Some((3, 100, GIVEN)), ..ours.clone() }]), make(&[9]), "on another parent");
    assert_eq!(todo(&[Link { vlan: Some((2, 100, Tagging::Dot1ad)), ..ours.clone() }]), make(&[9]));
    assert_eq!(todo(&[Link { name: "renamed".into(), ..ours }]), make(&[9]));
}

#[test]
fn what_is_not_ours_is_refused_by_name_and_told_from_what_is() {
    let network = id();
    let refused = |more: &[Link], s: MakeVlan| judge(&mark(), &host(more), &s).unwrap_err();
    let s = || step(network);
    let foreign = [link(9, "bmi-v100")];
    assert_eq!(refused(&foreign, s()).kind, Kind::Conflict, "an interface that only has our name");
    let elsewhere = refused(&[tagged(9, "eth1.100", 2, 100, None)], s());
    assert!(elsewhere.kind == Kind::Conflict && elsewhere.why.contains("eth1.100"), "{elsewhere}");
    let another = Link { alias: Some(Mark::new(Path::new("/run/b")).of(network)), ..tagged(9, "x", 2, 100, None) };
    assert_eq!(refused(&[another], s()).kind, Kind::Conflict, "another bmid's");
    let other = id();
    let other_network = refused(&[tagged(9, "bmi-v100", 2, 100, Some(other))], s());
    assert!(other_network.why.contains(&other.to_string()), "{other_network}");
    let grouped = Link { group: GROUP, ..link(9, "bmi-v100") };
    assert_eq!(refused(&[grouped], s()).kind, Kind::Conflict, "in our group, and no VLAN");

    assert_eq!(refused(&[], MakeVlan { parent: "eth7".into(), ..s() }).kind, Kind::NotFound);
    assert_eq!(refused(&[], MakeVlan { parent: "lo".into(), ..s() }).kind, Kind::Invalid);
    let on_vlan = [tagged(9, "eth2.7", 3, 7, None), tagged(10, "bmi-v8", 3, 8, Some(other))];
    assert_eq!(refused(&on_vlan, MakeVlan { parent: "eth2.7".into(), ..s() }).kind, Kind::Invalid);
    let own = refused(&on_vlan, MakeVlan { parent: "bmi-v8".into(), ..s() });
    assert!(own.why.contains("bmid's own"), "{own}");
    let wide = refused(&[], MakeVlan { mtu: Some(9_000), ..s() });
    assert!(wide.kind == Kind::Invalid && wide.fix.contains("mtu 9000"), "{wide}");
}

#[test]
fn the_simulator_makes_and_drops_interfaces_both_ways_and_fails_where_the_script_says() {
    let network = id();
    let make = NetworkStep::MakeVlan(step(network));
    let drop = make.inverse().unwrap();
    let bmi::step::Step::Network(drop) = drop else { panic!("{drop:?}") };
    let is_so = |seen: &[Seen]| matches!(seen, [Seen::Vlan(v)] if (v.vlan, v.parent.as_str()) == (100, "eth1"));
    let scope = Scope::Network { network, interface: "bmi-v100".to_owned() };
    let dir = tempfile::tempdir().unwrap();
    let driver = SimNetwork::new(World::open(dir.path()).unwrap());
    both_ways(&driver, &scope, &make, &drop, &is_so);
    driver.apply(&make, &StepCx::PLAIN).unwrap();
    assert_eq!(driver.observe(&Scope::Networks).unwrap(), [Seen::Network(network)]);
    let other = NetworkStep::MakeVlan(step(id()));
    assert_eq!(driver.apply(&other, &StepCx::PLAIN).unwrap_err().kind, Kind::Conflict);
    let names = [(&make, "network.make_vlan"), (&drop, "network.drop_vlan")];
    fails_at_each(&SimNetwork::new, &scope, &[], names, &is_so);
}
