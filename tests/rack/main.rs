//! The rack: machines without a disk power on and boot an operating system from their clones, with the real daemon, client,
//! tgtd, dnsmasq and firmware. Minutes, because the machines are emulated. It must never look into the daemon: everything is
//! asked through the client or seen from outside.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/ceph.rs"]
mod ceph;
#[path = "../support/mod.rs"]
mod support;
mod vlan;

use std::path::Path;
use std::process::Command;

use support::engine::Engine;
use support::host::Host;
use support::machine::{Firmware, Machine, file_on, golden};

const MAC: &str = "52:54:00:12:34:56";

fn sha256(file: &Path) -> String {
    support::run(Command::new("sha256sum").arg(file)).split_whitespace().next().unwrap().to_owned()
}

/// A host with one network card, an engine that serves it, and one golden image imported.
fn rack<'a>(host: &'a Host, id: &str, mode: &str) -> Engine<'a> {
    host.add_tap("tap0");
    let image = golden(host, id, mode);
    let engine = Engine::start(host);
    engine.ctl(&["image", "import", image.to_str().unwrap(), "--name", id]);
    let range = ["--address", "10.9.0.1/24", "--range", "10.9.0.100-10.9.0.150"];
    engine.ctl(&[&["network", "create", "lab", "--interface", "tap0"], &range[..]].concat());
    engine
}

fn provision(engine: &Engine<'_>, image: &str, more: &[&str]) -> serde_json::Value {
    engine.ctl(&[&["node", "provision", "n1", "--image", image, "--mac", MAC, "--network", "lab"], more].concat());
    engine.json(&["node", "show", "n1"])
}

/// Boots the node once and checks what it says of itself, what its clone holds and that the golden image is untouched.
fn boots(firmware: Firmware, more: &[&str]) {
    boots_by(firmware, more, |_| ());
}

/// The same; `by` does what somebody at the machine would, and looks at how it starts.
fn boots_by(firmware: Firmware, more: &[&str], by: impl Fn(&Machine<'_>)) {
    let host = Host::new("rack");
    let engine = rack(&host, "golden-one", "once");
    let before = sha256(&host.path("golden-one.raw"));
    let node = provision(&engine, "golden-one", more);
    let mut machine = Machine::boot(&host, "tap0", MAC, firmware, None);
    by(&machine);
    machine.powered_off();

    let ibft = machine.line("IBFT");
    for (field, value) in [("target", "iqn"), ("portal", "portal"), ("ip", "address"), ("initiator", "initiator")] {
        assert!(ibft.contains(&format!("{field}={}", node[value].as_str().unwrap())), "{value} of {node}: {ibft}");
    }
    let mark = machine.line("NODE-MARK");
    assert!(mark.contains("golden-id=golden-one root=/dev/sda1 disk=IET"), "{mark}");
    assert!(mark.contains("session=session"), "the disk is not an iSCSI session's: {mark}");
    let wrote = machine.line("written by node");
    assert_eq!(file_on(&engine.disk_of("n1"), "/var/node-wrote").trim(), wrote.trim(), "the clone");

    engine.ctl(&["image", "export", "golden-one", host.path("exported.raw").to_str().unwrap()]);
    assert_eq!(sha256(&host.path("exported.raw")), before, "the golden image was changed");
    // A machine that loses its power says no goodbye to its target: its session is still there.
    engine.ctl(&["node", "deprovision", "n1", "--force", "--yes"]);
    assert_eq!(engine.json(&["node", "ls"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_machine_without_a_disk_boots_from_its_clone_by_bios() {
    boots(Firmware::Bios, &[]);
}

#[test]
fn a_machine_without_a_disk_boots_from_its_clone_by_uefi_and_logs_in_with_chap() {
    boots(Firmware::Uefi, &["--chap"]);
}

#[test]
fn a_machine_that_knows_no_ipxe_is_given_it_by_uefi() {
    boots_by(Firmware::UefiPxe, &[], |machine| {
        // The firmware's own words: it asked by DHCP and fetched what it was told to.
        machine.wait("Start PXE over IPv4");
        machine.wait("NBP filename is snponly.efi");
    });
}

#[test]
fn a_machine_that_boots_by_http_is_given_its_loader_and_its_scripts_so() {
    boots_by(Firmware::UefiHttp, &[], |machine| {
        machine.wait("Start HTTP Boot over IPv4");
        machine.wait("http://10.9.0.1:8067/boot.ipxe... ok");
        machine.wait("mac/52-54-00-12-34-56.ipxe... ok");
    });
}

#[test]
fn a_machine_boots_where_there_is_no_ipv4() {
    let host = Host::new("rack");
    host.add_tap("tap0");
    let image = golden(&host, "golden-six", "once");
    let engine = Engine::start(&host);
    engine.ctl(&["image", "import", image.to_str().unwrap(), "--name", "golden-six"]);
    let network = ["--interface", "tap0", "--address", "fd00:7:1:2::1/64", "--dhcp", "ipv6"];
    engine.ctl(&[&["network", "create", "lab"], &network[..]].concat());
    let node = provision(&engine, "golden-six", &[]);
    let portal = node["portal"].as_str().unwrap();
    assert_eq!(portal, "[fd00:7:1:2::1]:3260");
    assert_eq!(host.sh("ip -4 -br address show dev tap0").trim(), "", "the engine has no IPv4 there, either");
    let mut machine = Machine::boot(&host, "tap0", MAC, Firmware::Bios, None);
    machine.powered_off();
    let said = machine.said();
    let address = format!("net0: {}/64", node["address"].as_str().unwrap());
    assert!(said.contains(&address), "it has not the address that is kept for it, {address}:\n{said}");
    assert!(!said.contains("255.255."), "it had IPv4:\n{said}");
    assert!(machine.line("boot.ipxe... ok").contains("http://[fd00:7:1:2::1]:8067/"), "{said}");
    let mark = machine.line("NODE-MARK");
    assert!(mark.contains("golden-id=golden-six root=/dev/sda1 disk=IET"), "{mark}");
    let wrote = machine.line("written by node");
    assert_eq!(file_on(&engine.disk_of("n1"), "/var/node-wrote").trim(), wrote.trim(), "the clone");
}

#[test]
fn a_machine_that_knows_no_ipxe_is_given_it_by_bios() {
    boots_by(Firmware::Bios, &[], |machine| {
        // There is no other PXE ROM to emulate: the card's iPXE is stopped and told to start what such a ROM would be given.
        // That finds the network card by the PXE interface of the ROM below it, as on any machine.
        machine.wait("SeaBIOS");
        while !machine.said().contains("iPXE>") {
            machine.type_keys("\x02");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        // A firmware that is slow to listen loses characters: it says so, and is told again.
        while !machine.said().contains("undionly.kpxe... ok") {
            let prompts = machine.said().matches("iPXE>").count();
            machine.type_slowly("dhcp && chain tftp://${next-server}/undionly.kpxe\n");
            machine.wait_until(|said| said.contains("undionly.kpxe... ok") || said.matches("iPXE>").count() > prompts);
        }
        machine.wait("UNDI");
    });
}

#[test]
fn an_unknown_machine_is_told_so_and_goes_on_to_its_own_disk() {
    let host = Host::new("rack");
    let engine = rack(&host, "golden-two", "once");
    provision(&engine, "golden-two", &[]);
    let own_disk = host.path("golden-two.raw");
    let machine = Machine::boot(&host, "tap0", "52:54:00:99:99:99", Firmware::Bios, Some(&own_disk));
    machine.wait("NODE-FAIL");
    // Its own disk booted, and the system on it found that no firmware had handed it a network disk.
    assert!(machine.line("NODE-FAIL").contains("no iBFT"));
    assert!(
        machine.said().to_lowercase().contains("52:54:00:99:99:99"),
        "nobody named the machine:\n{}",
        machine.said()
    );
    assert!(!machine.said().contains("Registered SAN device"), "it was given somebody's disk");
}

#[test]
fn a_rolled_back_node_boots_what_it_was_at_the_tag() {
    let host = Host::new("rack");
    let engine = rack(&host, "golden-three", "once");
    provision(&engine, "golden-three", &[]);
    engine.ctl(&["tag", "create", "n1", "fresh"]);
    let boot = || {
        let mut machine = Machine::boot(&host, "tap0", MAC, Firmware::Bios, None);
        machine.powered_off();
        machine.line("NODE-MARK")
    };
    assert!(boot().contains("before=nothing"));
    engine.ctl(&["tag", "rollback", "n1", "fresh", "--force", "--yes"]);
    assert!(boot().contains("before=nothing"), "what the first boot wrote is still there");
    assert!(boot().contains("before=written by node"), "what the second boot wrote is gone");
}

#[test]
fn a_node_loses_no_write_while_bmid_is_killed_and_started_again() {
    let host = Host::new("rack");
    let mut engine = rack(&host, "golden-four", "loop");
    provision(&engine, "golden-four", &[]);
    let mut machine = Machine::boot(&host, "tap0", MAC, Firmware::Bios, None);
    machine.wait("NODE-SEQ 2$");
    let sessions = engine.json(&["node", "show", "n1"])["sessions"].clone();
    assert!(sessions.as_array().is_some_and(|s| !s.is_empty()), "{sessions}");

    engine.kill();
    machine.wait(&format!("NODE-SEQ {}$", last_number(&machine) + 3));
    engine.restart();
    machine.wait(&format!("NODE-SEQ {}$", last_number(&machine) + 3));
    // That of its firmware, which never logs out, may have been ended meanwhile.
    let now = engine.json(&["node", "show", "n1"])["sessions"].clone();
    let (before, now) = (sessions.as_array().unwrap(), now.as_array().unwrap());
    assert!(!now.is_empty() && now.iter().all(|s| before.contains(s)), "it had to log in again: {now:?}, {before:?}");
    assert_eq!(engine.json(&["node", "show", "n1"])["state"], "ready");

    machine.type_line("stop");
    machine.powered_off();
    let said = machine.said();
    assert!(!said.contains("NODE-IO-ERROR") && !said.contains("I/O error"), "{said}");
    let numbers = said.lines().filter_map(|l| l.strip_prefix("NODE-SEQ ")).map(str::trim).collect::<Vec<_>>();
    let kept = file_on(&engine.disk_of("n1"), "/var/sequence");
    assert_eq!(kept.lines().map(str::trim).collect::<Vec<_>>(), numbers, "what it said is not what its disk holds");
}

/// The first number that the node said it had written.
fn first_number(machine: &Machine<'_>) -> u32 {
    machine.line("NODE-SEQ ").trim().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_node_on_a_pool_that_destroyed_its_disk_boots_after_a_rollback_with_what_it_wrote_before_the_tag() {
    ceph::guard();
    let host = Host::new("rack");
    let cluster = ceph::Ceph::beside(host.init());
    cluster.tool(&["rbd", "pool", "init", "rbd"]);
    let key = cluster.user("bmi", "profile rbd", "profile rbd pool=rbd");
    host.add_tap("tap0");
    let image = golden(&host, "golden-pool", "loop");
    let engine = Engine::start(&host);
    let pool = ["datastore", "create", "ceph", "--kind", "rbd", "--pool", "rbd", "--id", "bmi"];
    let conf = cluster.conf();
    engine.ctl(&[&pool[..], &["--conf", conf.to_str().unwrap(), "--keyring", key.to_str().unwrap()]].concat());
    engine.ctl(&["image", "import", image.to_str().unwrap(), "--name", "golden-pool", "--datastore", "ceph"]);
    let range = ["--address", "10.9.0.1/24", "--range", "10.9.0.100-10.9.0.150"];
    engine.ctl(&[&["network", "create", "lab", "--interface", "tap0"], &range[..]].concat());
    provision(&engine, "golden-pool", &[]);
    assert!(cluster.tool(&["rbd", "ls", "rbd"]).contains(".v."), "its disk is in the pool");

    // Tagged while it runs: what it said to be on its disk is there.
    let mut machine = Machine::boot(&host, "tap0", MAC, Firmware::Bios, None);
    machine.wait("NODE-SEQ 3$");
    let before = last_number(&machine);
    engine.ctl(&["tag", "create", "n1", "good"]);
    let after = last_number(&machine) + 1;
    let wrote = machine.line("written by node");
    machine.wait(&format!("NODE-SEQ {}$", after + 2));
    machine.type_line("break");
    machine.wait("NODE-BROKEN");
    machine.powered_off();

    // It tries again and again, and that is how it finds its disk when that is whole.
    let mut machine = Machine::boot(&host, "tap0", MAC, Firmware::Bios, None);
    machine.wait("Boot from SAN device 0x80 failed");
    machine.wait("try 2 of");
    assert!(!machine.said().contains("GRUB-UP") && !machine.said().contains("NODE-MARK"), "{}", machine.said());
    engine.ctl(&["tag", "rollback", "n1", "good", "--force", "--yes"]);
    machine.wait("NODE-SEQ ");
    let mark = machine.line("NODE-MARK");
    assert!(mark.contains(&format!("before={}", wrote.trim())), "{mark}, and it wrote {wrote}");
    let goes_on = first_number(&machine);
    assert!(
        (before + 1..=after + 1).contains(&goes_on),
        "it goes on with {goes_on}; tagged between {before} and {after}"
    );
    machine.type_line("stop");
    machine.powered_off();
    engine.ctl(&["tag", "rm", "n1", "good", "--yes"]);
    engine.ctl(&["node", "deprovision", "n1", "--force", "--yes"]);
    assert!(!cluster.tool(&["rbd", "ls", "rbd"]).contains(".v."));
}

/// The last number that the node said it had written.
fn last_number(machine: &Machine<'_>) -> u32 {
    let said = machine.said();
    said.lines().rev().find_map(|l| l.trim().strip_prefix("NODE-SEQ ")?.parse().ok()).unwrap()
}
