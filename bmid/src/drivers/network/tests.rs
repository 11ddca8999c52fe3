//! The network driver on real interfaces in namespaces of a test's own, and its simulator through the same suite.

use std::time::Duration;

use bmi::model::Kind;
use bmi::step::NetworkStep;

use super::sim::SimNetwork;
use super::*;
use crate::drivers::proving::{Rack, both_ways, fails_at_each, id, sh, shown, until};
use crate::drivers::sim::World;

fn real() -> Netlink {
    Netlink::new(&Paths { state: "/nowhere".into(), run: "/run/bmid".into() })
}

fn steps(network: Id, interface: &str, address: &str, ours: bool) -> (NetworkStep, NetworkStep) {
    let (interface, address) = (interface.to_owned(), address.parse().unwrap());
    let put = NetworkStep::PutAddress(PutAddress { network, interface: interface.clone(), address, ours });
    let take = NetworkStep::DropAddress(DropAddress { network, interface, address, ours });
    (put, take)
}

fn scope(network: Id, interface: &str) -> Scope {
    Scope::Network { network, interface: interface.to_owned() }
}

fn suite(driver: &impl Driver<Step = NetworkStep>, interface: &str) {
    let network = id();
    let (put, take) = steps(network, interface, "10.9.0.1/24", true);
    let there = Seen::Address("10.9.0.1/24".parse().unwrap());
    let scope = scope(network, interface);
    both_ways(driver, &scope, &put, &take, &|seen| seen.contains(&there));

    apply(driver, &put).unwrap();
    let (not_ours, leave) = steps(network, interface, "10.9.0.1/24", false);
    assert!(!apply(driver, &not_ours).unwrap());
    apply(driver, &leave).unwrap();
    let Fact::Interfaces(all) = driver.look(&Look::Interfaces).unwrap().unwrap() else { panic!() };
    let at = all.iter().find(|i| i.name == interface).unwrap();
    assert_eq!(at.addresses, ["10.9.0.1/24".parse().unwrap()], "what is not ours stays");
    assert!(at.up && at.carrier && !at.loopback && at.mtu == 1500, "{at:?}");
    assert!(all.iter().any(|i| i.name == "lo" && i.loopback));

    let refused = |interface: &str, address: &str| apply(driver, &steps(id(), interface, address, true).0).unwrap_err();
    assert_eq!(refused("nowhere", "10.8.0.1/24").kind, Kind::NotFound);
    let other = refused("eth5", "10.9.0.1/24");
    assert!(other.kind == Kind::Conflict && other.why.contains(interface), "{other}");
    assert_eq!(refused(interface, "10.9.0.1/16").kind, Kind::Conflict, "another prefix length");
    let gone = steps(id(), "nowhere", "10.8.0.1/24", true).1;
    assert!(!apply(driver, &gone).unwrap(), "an interface that is gone has no address of ours");
    apply(driver, &take).unwrap();
}

fn apply(driver: &impl Driver<Step = NetworkStep>, step: &NetworkStep) -> Result<bool, DriverError> {
    driver.apply(step, &StepCx::PLAIN).map(|d| d.changed)
}

#[test]
fn the_simulator_passes_the_same_suite_and_fails_where_the_script_says() {
    let dir = tempfile::tempdir().unwrap();
    suite(&SimNetwork::new(World::open(dir.path()).unwrap()), "eth1");
    let network = id();
    let (put, take) = steps(network, "eth1", "10.9.0.1/24", true);
    let there = Seen::Address("10.9.0.1/24".parse().unwrap());
    let names = [(&put, "network.put_address"), (&take, "network.drop_address")];
    fails_at_each(&SimNetwork::new, &scope(network, "eth1"), &[], names, &|seen| seen.contains(&there));
}

#[test]
fn addresses_come_and_go_on_a_real_interface() {
    let rack = Rack::new();
    rack.engine(|| {
        sh("ip link add eth5 type veth peer name eth6; ip link set eth5 up");
        suite(&real(), "v0");
    });
}

#[test]
fn an_interface_that_is_down_is_brought_up_and_has_the_private_address_at_once() {
    let rack = Rack::new();
    rack.engine(|| {
        sh("ip link set v0 down");
        let network = id();
        let (put, take) = steps(network, "v0", "10.9.0.1/24", true);
        assert!(apply(&real(), &put).unwrap());
        let private = private(network);
        let text = shown("ip -6 -o addr show dev v0");
        let line = text.lines().find(|l| l.contains(&private.to_string())).expect("the private address");
        assert!(line.contains("/64") && line.contains("nodad") && !line.contains("tentative"), "{line}");
        // Down and up again, the kernel has dropped it: that is not what the step brought about.
        sh("ip link set v0 down; ip link set v0 up");
        assert_eq!(real().observe(&scope(network, "v0")).unwrap(), vec![]);
        assert!(apply(&real(), &put).unwrap());
        assert_eq!(real().observe(&scope(network, "v0")).unwrap(), [Seen::Address("10.9.0.1/24".parse().unwrap())]);
        apply(&real(), &take).unwrap();
        let left = real().look(&Look::Interfaces).unwrap().unwrap();
        let Fact::Interfaces(left) = left else { panic!() };
        assert!(left.iter().all(|i| i.name != "v0" || i.addresses.is_empty()));
    });
}

#[test]
fn an_operators_addresses_on_the_interface_stay() {
    let rack = Rack::new();
    rack.engine(|| {
        let (put, take) = steps(id(), "v0", "10.9.0.1/24", true);
        apply(&real(), &put).unwrap();
        // Of the same subnet and later: the kernel would take it off with ours. One with a label, one of another subnet.
        sh("ip addr add 10.9.0.2/24 dev v0; ip addr add 10.9.0.3/24 dev v0 label v0:x; ip addr add 10.8.0.1/24 dev v0");
        assert!(apply(&real(), &take).unwrap());
        let Fact::Interfaces(all) = real().look(&Look::Interfaces).unwrap().unwrap() else { panic!() };
        let mut left: Vec<String> =
            all.iter().find(|i| i.name == "v0").unwrap().addresses.iter().map(ToString::to_string).collect();
        left.sort();
        assert_eq!(left, ["10.8.0.1/24", "10.9.0.2/24", "10.9.0.3/24"]);
    });
}

#[test]
fn without_ipv6_there_is_no_private_address_and_the_doctor_says_what_it_costs() {
    let rack = Rack::new();
    rack.engine(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/v0/disable_ipv6", "1").unwrap();
        let network = id();
        let (put, _) = steps(network, "v0", "10.9.0.1/24", true);
        assert!(apply(&real(), &put).unwrap());
        assert!(!apply(&real(), &put).unwrap());
        assert_eq!(real().observe(&scope(network, "v0")).unwrap().len(), 1);
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [(Severity::Warning, "IPv6 is off".to_owned())]);
    });
}

/// Severities with the beginnings of what was found.
fn doctor(network: Id, interface: &str, address: &str) -> Vec<(Severity, String)> {
    let look = Look::Doctor { networks: vec![(network, interface.to_owned(), address.to_owned())] };
    let Fact::Findings(found) = real().look(&look).unwrap().unwrap() else { panic!() };
    found.into_iter().map(|f| (f.severity, f.found.chars().take(11).collect())).collect()
}

#[test]
fn the_doctor_sees_what_is_wrong_with_an_interface() {
    let rack = Rack::new();
    rack.engine(|| {
        let network = id();
        let error = |text: &str| (Severity::Error, text.to_owned());
        // What a namespace begins with follows the host.
        let forwards = |v4: &str, v6: &str| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", v4).unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", v6).unwrap();
            let Fact::Routing(routing) = real().look(&Look::Routing).unwrap().unwrap() else { panic!() };
            routing.told()
        };
        assert_eq!(forwards("0", "0"), None);
        assert_eq!(doctor(network, "nowhere", "10.9.0.1/24"), [error("this host h")]);
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [error("the engine'")]);
        apply(&real(), &steps(network, "v0", "10.9.0.1/24", true).0).unwrap();
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [(Severity::Ok, "up, MTU 150".to_owned())]);
        assert_eq!(forwards("1", "0"), Some("IPv4"));
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [(Severity::Warning, "this host f".to_owned())]);
        assert_eq!(
            [forwards("0", "1"), forwards("1", "1"), forwards("0", "0")],
            [Some("IPv6"), Some("IPv4 and IPv6"), None]
        );
        sh("ip link set v0 mtu 1400");
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [(Severity::Warning, "its MTU is ".to_owned())]);
        sh("ip link set v0 mtu 1500 down");
        assert_eq!(doctor(network, "v0", "10.9.0.1/24"), [error("it is down")]);
        sh("ip link set v0 up");
        rack.machine(|| sh("ip link set v1 down"));
        until(|| doctor(network, "v0", "10.9.0.1/24").contains(&error("no carrier")));
    });
}

#[test]
fn one_interface_is_asked_for_alone_and_told_as_in_a_list_that_comes_in_many_parts() {
    let rack = Rack::new();
    rack.engine(|| {
        // A part has room for some thirty links.
        sh("for n in $(seq 50); do echo \"link add p$n type veth peer name q$n\"; done | ip -batch -");
        sh("ip link set v0 alias 'some words' mtu 1400; ip link property add dev v0 altname another");
        sh("ip addr add 10.9.0.1/24 dev v0; ip addr add fd00::1/64 dev v0 nodad; ip addr add 10.8.0.1/16 dev p7");
        let all = ask::links().unwrap();
        assert!((1..=50).all(|n| all.iter().any(|l| l.name == format!("p{n}")) && all.iter().any(|l| l.name == format!("q{n}"))));
        let v0 = ask::link("v0").unwrap().unwrap();
        assert_eq!((v0.mtu, v0.alias.as_deref(), v0.up, v0.carrier), (1400, Some("some words"), true, true));
        assert_eq!(Some(&v0), all.iter().find(|l| l.name == "v0"));
        for none in ["another", "nowhere", "a-name-that-is-too-long"] {
            assert_eq!(ask::link(none).unwrap(), None, "{none}");
        }
        let everywhere = ask::addresses(Of::Everywhere).unwrap();
        let (own, rest): (Vec<_>, Vec<_>) = everywhere.into_iter().partition(|a| a.index == v0.index);
        assert_eq!(ask::addresses(Of::Interface(v0.index)).unwrap(), own);
        let told: Addresses = own.iter().collect();
        assert_eq!(told.given, ["10.9.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()]);
        let v4 = ask::addresses(Of::Like([0; 4].into())).unwrap();
        assert!(v4.iter().all(|a| a.address.is_ipv4()) && rest.iter().any(|a| a.prefix == 16 && v4.contains(a)));
        assert_eq!(ask::addresses(Of::Interface(u32::MAX >> 1)).unwrap(), []);
    });
}

#[test]
fn changes_of_links_and_addresses_are_heard_and_a_burst_is_told_once() {
    let rack = Rack::new();
    rack.engine(|| {
        let listening = Netlink::listening();
        assert!(!listening.changed(Duration::ZERO), "nothing has happened");
        let long = Duration::from_secs(60);
        for change in [
            "ip addr add 10.9.0.1/24 dev v0",
            "ip addr del 10.9.0.1/24 dev v0",
            "ip addr add fd00::1/64 dev v0",
            "ip link set v0 down; ip link set v0 up; ip link set v0 down",
            "ip link del v0",
            "ip link add v0 type veth peer name v7",
        ] {
            sh(change);
            assert!(listening.changed(long), "{change}");
            // What is still on its way: duplicate address detection of IPv6 goes on for a while.
            while listening.changed(Duration::from_millis(200)) {}
        }
        assert!(!real().changed(Duration::ZERO), "who does not listen hears nothing");
    });
}

#[test]
fn simulated_changes_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let sim = SimNetwork::new(World::open(dir.path()).unwrap());
    let hears = sim.clone();
    let waiting = std::thread::spawn(move || hears.changed(Duration::from_secs(60)));
    // It may look for the first time after one of them.
    let mut n = 0;
    while !waiting.is_finished() {
        n = n % 200 + 1;
        apply(&sim, &steps(id(), "eth1", &format!("10.9.0.{n}/24"), true).0).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(waiting.join().unwrap());
}
