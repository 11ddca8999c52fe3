//! What the boot driver and its simulator do alike, and the texts that are written. The rest: real machines' questions.

mod real;

use bmi::model::{Cidr, Dhcp, Id, Mac, Sealed};
use bmi::step::boot::ScriptSecret;
use bmi::step::{BootStep, ChangeServe, DropEntry, Entry, Fact, Look, Scope, Seen, Serve, Step, Undoable, Unserve};

use super::sim::SimBoot;
use super::*;
use crate::drivers::Paths;
use crate::drivers::proving::{both_ways, fails_at_each, id, open};

pub(super) fn paths(dir: &tempfile::TempDir) -> Paths {
    Paths { state: dir.path().join("state"), run: dir.path().join("run") }
}

pub(super) fn serve(network: Id) -> Serve {
    let address: Cidr = "10.9.0.1/24".parse().unwrap();
    let (interface, dns) = ("v0".to_owned(), Vec::new());
    Serve { network, interface, address, range: None, dhcp: Dhcp::Serve, router: None, dns }
}

pub(super) fn entry(network: Id, mac: &str, address: &str) -> Entry {
    Entry {
        network,
        node: id(),
        mac: mac.parse().unwrap(),
        address: Some(address.parse().unwrap()),
        hostname: "node-1".to_owned(),
        portal: "10.9.0.1".parse().unwrap(),
        port: 3260,
        iqn: "iqn.2026-01.org.example:node.1".to_owned(),
        lun: 17,
        initiator: "iqn.2026-01.org.example:initiator.1".to_owned(),
        secret: Some(ScriptSecret { user: "u1".to_owned(), secret: Sealed(b"s3cret!|&#".to_vec()) }),
    }
}

pub(super) fn dropped(e: &Entry) -> DropEntry {
    DropEntry { network: e.network, node: e.node, mac: e.mac }
}

/// As the step of this family.
pub(super) fn step(step: impl Into<Step>) -> BootStep {
    match step.into() {
        Step::Boot(s) => s,
        other => panic!("{other:?}"),
    }
}

pub(super) fn apply(d: &impl Driver<Step = BootStep>, s: impl Into<Step>) -> bool {
    d.apply(&step(s), &StepCx::PLAIN).unwrap().changed
}

fn scope(network: Id) -> Scope {
    Scope::Network { network, interface: "v0".to_owned() }
}

fn script(d: &impl Driver<Step = BootStep>, network: Id, mac: Mac) -> Option<String> {
    match d.look(&Look::Script(network, mac)).unwrap().unwrap() {
        Fact::Script(text) => text,
        other => panic!("{other:?}"),
    }
}

fn suite(driver: &impl Driver<Step = BootStep>) {
    let network = id();
    let (serve, entry) = (serve(network), entry(network, "52:54:00:00:00:01", "10.9.0.50"));
    let served = |seen: &[Seen]| seen.contains(&Seen::Service(service_digest(&serve)));
    let there = Seen::Entry { node: entry.node, mac: entry.mac, digest: digest(&entry) };
    let unserve = step(Unserve { network });
    assert_eq!(driver.observe(&Scope::Networks).unwrap(), vec![]);
    both_ways(driver, &scope(network), &step(serve.clone()), &unserve, &served);
    assert!(driver.apply(&step(entry.clone()), &StepCx::PLAIN).is_err(), "an entry needs a layout");
    apply(driver, serve.clone());
    assert_eq!(driver.observe(&Scope::Networks).unwrap(), vec![Seen::Network(network)]);
    let other = Serve { router: Some("10.9.0.254".parse().unwrap()), ..serve.clone() };
    let change = ChangeServe { to: other.clone(), from: serve.clone() };
    assert!(apply(driver, change.clone()) && !apply(driver, change.clone()));
    assert!(driver.observe(&scope(network)).unwrap().contains(&Seen::Service(service_digest(&other))));
    assert!(driver.apply(&step(change.undo()), &StepCx::PLAIN).unwrap().changed);
    assert!(served(&driver.observe(&scope(network)).unwrap()));
    both_ways(driver, &scope(network), &step(entry.clone()), &step(dropped(&entry)), &|seen| seen.contains(&there));

    apply(driver, entry.clone());
    let text = script(driver, network, entry.mac).unwrap();
    assert!(text.starts_with("#!ipxe\n") && text.contains("set password s3cret!|&#\n"), "{text}");
    let other = Entry { node: id(), ..entry.clone() };
    assert!(!apply(driver, dropped(&other)), "another node's entry stays");
    assert_eq!(script(driver, network, entry.mac), Some(text));
    let moved = Entry { address: Some("10.9.0.51".parse().unwrap()), ..entry.clone() };
    assert!(apply(driver, moved.clone()), "other values replace it");
    let seen = driver.observe(&scope(network)).unwrap();
    assert!(!seen.contains(&there));
    assert!(seen.contains(&Seen::Entry { node: moved.node, mac: moved.mac, digest: digest(&moved) }), "{seen:?}");
    assert!(apply(driver, Unserve { network }));
    assert_eq!(driver.observe(&scope(network)).unwrap(), vec![]);
    assert_eq!(driver.observe(&Scope::Networks).unwrap(), vec![]);
}

#[test]
fn the_driver_goes_both_ways_and_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    suite(&Dnsmasq::new(paths(&dir), open()));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("run/net")).unwrap().collect();
    assert!(left.is_empty(), "nothing stays: {left:?}");
}

#[test]
fn the_simulator_passes_the_same_suite_and_fails_where_the_script_says() {
    let dir = tempfile::tempdir().unwrap();
    let make = |world| SimBoot::new(world, open());
    suite(&make(crate::drivers::sim::World::open(dir.path()).unwrap()));
    let network = id();
    let (serve, entry) = (serve(network), entry(network, "52:54:00:00:00:01", "10.9.0.50"));
    let unserve = step(Unserve { network });
    let steps = [(&step(serve.clone()), "boot.serve"), (&unserve, "boot.unserve")];
    fails_at_each(&make, &scope(network), &[], steps, &|seen| seen.contains(&Seen::Service(service_digest(&serve))));
    let steps = [(&step(entry.clone()), "boot.entry"), (&step(dropped(&entry)), "boot.drop_entry")];
    let there = Seen::Entry { node: entry.node, mac: entry.mac, digest: digest(&entry) };
    fails_at_each(&make, &scope(network), &[step(serve)], steps, &|seen| seen.contains(&there));
}

#[test]
fn a_node_that_moved_to_another_card_loses_only_the_old_cards_script() {
    let dir = tempfile::tempdir().unwrap();
    let driver = Dnsmasq::new(paths(&dir), open());
    let network = id();
    let old = entry(network, "52:54:00:00:00:01", "10.9.0.50");
    let new = Entry { mac: "52:54:00:00:00:02".parse().unwrap(), ..old.clone() };
    apply(&driver, serve(network));
    apply(&driver, old.clone());
    apply(&driver, new.clone());
    assert!(apply(&driver, dropped(&old)));
    let seen = driver.observe(&scope(network)).unwrap();
    assert_eq!(seen[1..], [Seen::Entry { node: new.node, mac: new.mac, digest: digest(&new) }]);
    // A card that another node has by now: the first one's reservation of it must not stay beside.
    let other = Entry { node: id(), ..new.clone() };
    apply(&driver, other.clone());
    assert!(!apply(&driver, dropped(&new)));
    let seen = driver.observe(&scope(network)).unwrap();
    assert_eq!(seen[1..], [Seen::Entry { node: other.node, mac: other.mac, digest: digest(&other) }]);
}

#[test]
fn what_somebody_changed_by_hand_is_seen_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(&dir);
    let driver = Dnsmasq::new(paths.clone(), open());
    let network = id();
    let (serve, entry) = (serve(network), entry(network, "52:54:00:00:00:01", "10.9.0.50"));
    let whole = [
        Seen::Service(service_digest(&serve)),
        Seen::Entry { node: entry.node, mac: entry.mac, digest: digest(&entry) },
    ];
    let boot = paths.boot(network);
    let host = format!("hosts/{}", entry.node);
    for file in
        ["dnsmasq.conf", "http.conf", "tftp/boot.ipxe", "tftp/autoexec.ipxe", &host, "tftp/mac/52-54-00-00-00-01.ipxe"]
    {
        for harm in ["append", "remove", "empty"] {
            apply(&driver, serve.clone());
            apply(&driver, entry.clone());
            assert_eq!(driver.observe(&scope(network)).unwrap(), whole);
            let file = boot.join(file);
            match harm {
                "append" => std::fs::write(&file, [std::fs::read(&file).unwrap(), b"#\n".to_vec()].concat()).unwrap(),
                "remove" => std::fs::remove_file(&file).unwrap(),
                _ => std::fs::write(&file, "").unwrap(),
            }
            assert_ne!(driver.observe(&scope(network)).unwrap(), whole, "{harm} {}", file.display());
        }
    }
    apply(&driver, serve.clone());
    apply(&driver, entry.clone());
    assert_eq!(driver.observe(&scope(network)).unwrap(), whole);
}

#[test]
fn a_machines_script_is_this_text() {
    let network: Id = "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
    let text = script::machine(&entry(network, "52:54:00:00:00:01", "10.9.0.50"), Some("s3cret")).unwrap();
    assert_eq!(text, include_str!("machine.ipxe"));
    assert_eq!(script::first(network), include_str!("first.ipxe"));
    assert!(script::alone(network).ends_with("\nautoboot\n"), "it must get an address before anything else");
}

#[test]
fn no_value_breaks_out_of_a_script() {
    let good = entry(id(), "52:54:00:00:00:01", "10.9.0.50");
    for bad in ["a b", "a\nsanboot x", "${net0/mac}", "ü", "", "a\0b", &"a".repeat(300)] {
        let iqn = Entry { iqn: bad.to_owned(), ..good.clone() };
        let initiator = Entry { initiator: bad.to_owned(), ..good.clone() };
        let mut user = good.clone();
        user.secret.as_mut().unwrap().user = bad.to_owned();
        for e in [iqn, initiator, user] {
            assert_eq!(script::machine(&e, Some("s")).unwrap_err().kind, Kind::Invalid, "{bad:?}");
        }
        let error = script::machine(&good, Some(bad)).unwrap_err().to_string();
        assert!(bad.is_empty() || !error.contains(bad), "the secret stands in the error: {error}");
        let named = script::machine(&Entry { hostname: bad.to_owned(), ..good.clone() }, None).unwrap();
        assert_eq!(named.lines().count(), script::machine(&good, None).unwrap().lines().count());
        assert!(!named.contains("${net0"));
    }
    let mut outside = serve(id());
    for bad in ["", "eth0\nconf-file=/etc/shadow", "eth*", "a,b", "e th"] {
        outside.interface = bad.to_owned();
        let dir = tempfile::tempdir().unwrap();
        let step = step(outside.clone());
        let error = Dnsmasq::new(paths(&dir), open()).apply(&step, &StepCx::PLAIN).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{bad:?}");
    }
}

#[test]
fn no_name_of_a_node_means_something_else_to_dnsmasq() {
    let host =
        |name: &str| conf::host(&Entry { hostname: name.to_owned(), ..entry(id(), "52:54:00:00:00:01", "10.9.0.50") });
    assert_eq!(host("node-1"), "52:54:00:00:00:01,10.9.0.50,node-1\n");
    assert_eq!(host("Web.Server_3"), "52:54:00:00:00:01,10.9.0.50,web-server-3\n");
    for name in ["ignore", "infinite", "12", "12h", "7d", "--", "", "日本", "Ignore"] {
        assert_eq!(host(name), "52:54:00:00:00:01,10.9.0.50\n", "{name}");
    }
}
