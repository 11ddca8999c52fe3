//! Against a real dnsmasq: what machines of every kind are told when they ask.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmi::step::{Finding, Severity, Step};

use super::super::packet::{Answer, DISCOVER, OFFER, answer, client};
use super::super::*;
use super::{apply, dropped, entry, paths, serve};
use crate::drivers::proving::{Rack, Running, dnsmasq, id, open, sh};
use bmi::model::{Dhcp, Id};

const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// An engine that serves a network, with its dnsmasq.
struct Served {
    rack: Rack,
    driver: Dnsmasq,
    paths: Paths,
    network: Id,
    _dnsmasq: Running,
    _dir: tempfile::TempDir,
}

fn served(change: impl FnOnce(&mut Serve)) -> Served {
    let (dir, rack, network) = (tempfile::tempdir().unwrap(), Rack::new(), id());
    let (paths, mut serve) = (paths(&dir), serve(network));
    change(&mut serve);
    let driver = Dnsmasq::new(paths.clone(), open());
    apply(&driver, serve);
    let prefix = bmi::step::network::ipv6_prefix(network);
    let dnsmasq = rack.engine(|| {
        sh(&format!("ip addr add 10.9.0.1/24 dev v0; ip addr add {prefix}1/64 dev v0 nodad"));
        dnsmasq(&paths.boot(network).join("dnsmasq.conf"), &paths.dnsmasq(network).join("pid"))
    });
    Served { rack, driver, paths, network, _dnsmasq: dnsmasq, _dir: dir }
}

/// What a machine says of itself: its kind, its firmware.
type Options<'a> = &'a [(u8, &'a [u8])];
const IPXE: Options = &[(175, &[1, 1, 1]), (93, &[0, 0])];
const IPXE_BY_CLASS: Options = &[(77, b"iPXE"), (93, &[0, 7])];
const BIOS: Options = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0]), (94, &[1, 2, 1])];
/// iPXE's own list of what it can do holds 19, HTTP.
const IPXE_WITH_HTTP: Options = &[(175, &[0xb1, 1, 0x10, 19, 1, 1]), (93, &[0, 7])];
const HTTP: Options = &[(60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16]), (94, &[1, 3, 1])];
const EFI: Options = &[(60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[0, 7]), (94, &[1, 3, 16])];

impl Served {
    /// Carries a step out as the engine does: in its network namespace.
    fn apply(&self, step: impl Into<Step> + Send) -> bool {
        self.rack.engine(|| apply(&self.driver, step))
    }

    /// What the PXE boot server tells a machine that has an address and was sent there (PXE 2.1, port 4011).
    fn boot_server(&self, options: Options) -> String {
        self.rack.machine(|| {
            sh("ip addr replace 10.9.0.200/24 dev v1");
            let socket = UdpSocket::bind("10.9.0.200:68").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            for xid in xids(20) {
                let question = client(REQUEST, xid, MAC.parse().unwrap(), "10.9.0.200".parse().unwrap(), options);
                socket.send_to(&question, "10.9.0.1:4011").unwrap();
                while let Some(a) = receive(&socket) {
                    if (a.kind, a.xid) == (ACK, xid) {
                        return a.file;
                    }
                }
            }
            panic!("no answer to {options:?}");
        })
    }

    /// Asks in the order given, until the last one, which must be answered, is. Earlier ones may get nothing: dnsmasq
    /// answers in order.
    fn ask(&self, questions: &[(&str, Options)]) -> Vec<Option<Answer>> {
        self.rack.machine(|| {
            let socket = doctor::open("v1", Ipv4Addr::UNSPECIFIED, 68, true).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            for first in xids(20) {
                let mut answers = BTreeMap::new();
                for (xid, (mac, options)) in (first..).zip(questions) {
                    let question = client(DISCOVER, xid, mac.parse().unwrap(), Ipv4Addr::UNSPECIFIED, options);
                    socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).unwrap();
                }
                let last = first + questions.len() as u32 - 1;
                while !answers.contains_key(&last) {
                    let Some(a) = receive(&socket) else { break };
                    if a.kind == OFFER && a.xid >= first {
                        answers.insert(a.xid, a);
                    }
                }
                if answers.contains_key(&last) {
                    return (first..=last).map(|x| answers.remove(&x)).collect();
                }
            }
            panic!("no answer to {questions:?}");
        })
    }

    fn ask_one(&self, mac: &str, options: Options) -> Answer {
        self.ask(&[(mac, options)]).remove(0).unwrap()
    }

    /// Takes an offered address for good.
    fn take(&self, mac: &str, address: Ipv4Addr) {
        self.rack.machine(|| {
            let socket = doctor::open("v1", Ipv4Addr::UNSPECIFIED, 68, true).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            for xid in xids(20) {
                let (server, wanted) = ([10, 9, 0, 1], address.octets());
                let options: Options = &[(50, &wanted), (54, &server)];
                let question = client(REQUEST, xid, mac.parse().unwrap(), Ipv4Addr::UNSPECIFIED, options);
                socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).unwrap();
                while let Some(a) = receive(&socket) {
                    if (a.kind, a.xid, a.address) == (ACK, xid, address) {
                        return;
                    }
                }
            }
            panic!("{mac} does not get {address}");
        });
    }

    /// Fetches a file as a boot loader does (RFC 1350); none if the server says there is none.
    fn fetch(&self, name: &str) -> Option<Vec<u8>> {
        self.rack.machine(|| {
            sh("ip addr replace 10.9.0.200/24 dev v1");
            let socket = UdpSocket::bind("10.9.0.200:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(&[b"\0\x01", name.as_bytes(), b"\0octet\0"].concat(), "10.9.0.1:69").unwrap();
            let (mut file, mut buffer, mut block) = (Vec::new(), [0u8; 1500], 1u16);
            loop {
                let (n, from) = socket.recv_from(&mut buffer).unwrap();
                match buffer[1] {
                    3 if buffer[2..4] == block.to_be_bytes() => {
                        file.extend_from_slice(&buffer[4..n]);
                        socket.send_to(&[&[0, 4], &buffer[2..4]].concat(), from).unwrap();
                        block += 1;
                        if n < 516 {
                            return Some(file);
                        }
                    }
                    3 => {}
                    _ => return None,
                }
            }
        })
    }
}

/// Numbers for questions, a hundred apart. None comes twice: an answer may be late.
fn xids(n: usize) -> impl Iterator<Item = u32> {
    static LAST: AtomicU32 = AtomicU32::new(0);
    std::iter::repeat_with(|| LAST.fetch_add(100, Ordering::Relaxed)).take(n)
}

fn receive(socket: &UdpSocket) -> Option<Answer> {
    let mut buffer = [0u8; 1500];
    let n = socket.recv(&mut buffer).ok()?;
    answer(&buffer[..n])
}

const ADDRESS: &str = "10.9.0.50";
const MAC: &str = "52:54:00:00:00:01";
const STRANGER: &str = "52:54:00:00:00:99";

#[test]
fn every_kind_of_machine_gets_its_reserved_address_and_its_boot_file() {
    let s = served(|_| {});
    // Added while dnsmasq runs: nobody tells it.
    s.apply(entry(s.network, MAC, ADDRESS));
    for (options, file) in
        [(IPXE, "boot.ipxe"), (IPXE_BY_CLASS, "boot.ipxe"), (BIOS, "undionly.kpxe"), (EFI, "snponly.efi")]
    {
        let a = s.ask_one(MAC, options);
        assert_eq!((a.address.to_string().as_str(), a.file.as_str()), (ADDRESS, file), "{options:?}");
        assert_eq!(a.server, Some(Ipv4Addr::new(10, 9, 0, 1)));
        let content = s.fetch(file).expect(file);
        assert!(content.len() > 500, "{file}");
    }
    let script = s.fetch("mac/52-54-00-00-00-01.ipxe").unwrap();
    assert_eq!(script, std::fs::read(s.paths.boot(s.network).join("tftp/mac/52-54-00-00-00-01.ipxe")).unwrap());
    assert_eq!(s.fetch("mac/52-54-00-00-00-99.ipxe"), None);
    assert_eq!(s.fetch("../hosts"), None);
    assert_eq!(s.fetch("/etc/passwd"), None);
}

#[test]
fn firmware_that_boots_by_http_is_told_a_url_and_an_ipxe_that_can_too() {
    let s = served(|_| {});
    s.apply(entry(s.network, MAC, ADDRESS));
    for (options, file, class) in [
        (HTTP, "http://10.9.0.1:8067/snponly.efi", "HTTPClient"),
        (IPXE_WITH_HTTP, "http://10.9.0.1:8067/boot.ipxe", ""),
        (IPXE, "boot.ipxe", ""),
    ] {
        let a = s.ask_one(MAC, options);
        assert_eq!((a.address.to_string().as_str(), a.file.as_str()), (ADDRESS, file), "{options:?}");
        let said = a.options.iter().find(|(number, _)| *number == 60).map(|(_, value)| value.clone());
        assert_eq!(String::from_utf8_lossy(&said.unwrap_or_default()), class, "{options:?}");
    }
}

#[test]
fn an_unknown_machine_gets_an_address_where_there_is_a_range_and_silence_where_there_is_none() {
    let s = served(|_| {});
    s.apply(entry(s.network, MAC, ADDRESS));
    let answers = s.ask(&[(STRANGER, IPXE), (MAC, IPXE)]);
    assert_eq!(answers[0], None);
    let s = served(|serve| serve.range = Some("10.9.0.100-10.9.0.110".parse().unwrap()));
    s.apply(entry(s.network, MAC, ADDRESS));
    let answers = s.ask(&[(STRANGER, IPXE), (MAC, IPXE)]);
    let stranger = answers[0].clone().unwrap();
    assert!((100..=110).contains(&stranger.address.octets()[3]), "{stranger:?}");
    assert_eq!(stranger.file, "boot.ipxe");
    assert_eq!(answers[1].as_ref().map(|a| a.address.to_string()).as_deref(), Some(ADDRESS), "outside the range");
}

#[test]
fn a_machine_is_told_of_the_router_and_name_servers_that_were_given_and_of_none_else() {
    let asks: (u8, &[u8]) = (55, &[1, 3, 6]);
    let told = |s: &Served| {
        s.apply(entry(s.network, MAC, ADDRESS));
        let a = s.ask_one(MAC, &[IPXE, &[asks]].concat());
        [3, 6].map(|n| a.options.iter().find(|(number, _)| *number == n).map(|(_, value)| value.clone()))
    };
    assert_eq!(told(&served(|_| {})), [None, None]);
    let given = served(|serve| {
        serve.router = Some("10.9.0.254".parse().unwrap());
        serve.dns = vec!["10.9.0.253".parse().unwrap(), "192.0.2.53".parse().unwrap()];
    });
    assert_eq!(told(&given), [Some(vec![10, 9, 0, 254]), Some(vec![10, 9, 0, 253, 192, 0, 2, 53])]);
}

#[test]
fn a_removed_machine_loses_its_reservation_and_its_address_is_free_for_another() {
    let s = served(|_| {});
    let (old, other) = (entry(s.network, MAC, ADDRESS), entry(s.network, "52:54:00:00:00:02", "10.9.0.52"));
    s.apply(old.clone());
    s.apply(other.clone());
    assert_eq!(s.ask_one(MAC, BIOS).address.to_string(), ADDRESS);
    s.take(MAC, ADDRESS.parse().unwrap());
    s.apply(dropped(&old));
    let answers = s.ask(&[(MAC, IPXE), ("52:54:00:00:00:02", IPXE)]);
    assert_eq!(answers[0], None, "the removed one is a stranger now");
    // The old machine's lease would have stood in the way for hours.
    let heir = Entry { address: old.address, ..other };
    s.apply(heir);
    assert_eq!(s.ask_one("52:54:00:00:00:02", IPXE).address.to_string(), ADDRESS, "changed values are heard of");
}

#[test]
fn an_address_leased_to_a_stranger_goes_to_the_machine_it_is_reserved_for() {
    let s = served(|serve| serve.range = Some("10.9.0.100-10.9.0.100".parse().unwrap()));
    assert_eq!(s.ask_one(STRANGER, IPXE).address.to_string(), "10.9.0.100");
    s.take(STRANGER, "10.9.0.100".parse().unwrap());
    s.apply(entry(s.network, MAC, "10.9.0.100"));
    assert_eq!(s.ask_one(MAC, IPXE).address.to_string(), "10.9.0.100");
}

#[test]
fn as_a_proxy_it_gives_boot_files_and_no_addresses() {
    let s = served(|serve| serve.dhcp = Dhcp::Proxy);
    let nobody = Ipv4Addr::UNSPECIFIED;
    let pxe: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");
    let a = s.ask_one(MAC, &[pxe, (93, &[0, 0]), (94, &[1, 2, 1]), (175, &[1, 1, 1])]);
    assert_eq!((a.address, a.file.as_str()), (nobody, "boot.ipxe"));
    // BIOS machines name the item they chose from the menu (there is one), UEFI machines only ask.
    let chosen: (u8, &[u8]) = (43, &[71, 4, 0x80, 0, 0, 0, 255]);
    for (options, file) in [(&[BIOS, &[chosen]].concat()[..], "undionly.kpxe"), (EFI, "snponly.efi")] {
        assert_eq!(s.ask_one(MAC, options).address, nobody);
        assert_eq!(s.boot_server(options), file);
    }
}

#[test]
fn dnsmasq_accepts_the_configuration_of_every_mode() {
    for dhcp in [Dhcp::Serve, Dhcp::Proxy, Dhcp::Off, Dhcp::Ipv6] {
        for range in [None, Some("10.9.0.100-10.9.0.110".parse().unwrap())] {
            let (dir, network) = (tempfile::tempdir().unwrap(), id());
            let paths = paths(&dir);
            let address = if dhcp == Dhcp::Ipv6 { "fd00:7::1/64" } else { "10.9.0.1/24" }.parse().unwrap();
            apply(&Dnsmasq::new(paths.clone(), open()), Serve { dhcp, range, address, ..serve(network) });
            let conf = paths.boot(network).join("dnsmasq.conf");
            let out = Command::new("dnsmasq").arg("--test").arg("-C").arg(&conf).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

#[test]
fn two_networks_are_served_side_by_side() {
    let s = served(|_| {});
    let other = id();
    let mut second = serve(other);
    (second.interface, second.address) = ("w0".to_owned(), "10.8.0.1/24".parse().unwrap());
    s.apply(second);
    s.apply(entry(s.network, MAC, ADDRESS));
    let _second = s.rack.engine(|| {
        sh("ip link add w0 type veth peer name w1; ip link set w0 up; ip link set w1 up; ip addr add 10.8.0.1/24 dev w0");
        dnsmasq(&s.paths.boot(other).join("dnsmasq.conf"), &s.paths.dnsmasq(other).join("pid"))
    });
    assert_eq!(s.ask_one(MAC, IPXE).address.to_string(), ADDRESS);
    assert!(s.fetch("boot.ipxe").is_some());
}

fn doctor(s: &Served) -> Vec<Finding> {
    let networks = [(s.network, "v0".to_owned(), "10.9.0.1/24".to_owned())];
    s.rack.engine(|| doctor::findings(&s.paths, &networks))
}

fn about(found: &[Finding], check: &str) -> Option<Finding> {
    found.iter().find(|f| f.check.starts_with(check)).cloned()
}

#[test]
fn the_doctor_names_another_dhcp_server_and_not_our_own() {
    let s = served(|serve| serve.range = Some("10.9.0.100-10.9.0.110".parse().unwrap()));
    let alone = about(&doctor(&s), "DHCP").unwrap();
    assert_eq!(alone.severity, Severity::Ok, "{alone:?}");
    let pid = s.paths.run.join("rogue.pid");
    let _rogue = s.rack.machine(|| {
        sh("ip addr add 10.9.0.7/24 dev v1");
        let conf = s.paths.run.join("rogue.conf");
        let text = format!(
            "port=0\ninterface=v1\nbind-interfaces\nuser=root\ndhcp-range=10.9.0.150,10.9.0.160\nno-ping\n\
             dhcp-leasefile={}\npid-file={}\nlog-facility=-\n",
            s.paths.run.join("rogue.leases").display(),
            pid.display()
        );
        std::fs::write(&conf, text).unwrap();
        dnsmasq(&conf, &pid)
    });
    let found = about(&doctor(&s), "DHCP").unwrap();
    assert_eq!(found.severity, Severity::Error);
    assert!(found.found.contains("10.9.0.7") && !found.found.contains("10.9.0.1;"), "{found:?}");
}

#[test]
fn the_doctor_finds_ports_that_others_hold_and_loaders_that_are_missing() {
    let (dir, rack) = (tempfile::tempdir().unwrap(), Rack::new());
    let networks = [(id(), "v0".to_owned(), "10.9.0.1/24".to_owned())];
    rack.engine(|| {
        sh("ip addr add 10.9.0.1/24 dev v0");
        let free = doctor::findings(&paths(&dir), &networks);
        assert_eq!(about(&free, "UDP port"), None);
        let _dhcp = UdpSocket::bind("0.0.0.0:67").unwrap();
        let _tftp = UdpSocket::bind("10.9.0.1:69").unwrap();
        let held = doctor::findings(&paths(&dir), &networks);
        for port in ["UDP port 67", "UDP port 69"] {
            assert_eq!(about(&held, port).map(|f| f.severity), Some(Severity::Error), "{port}");
        }
        let gone = [(id(), "nowhere".to_owned(), "10.7.0.1/24".to_owned())];
        let found = about(&doctor::findings(&paths(&dir), &gone), "DHCP on nowhere").unwrap();
        assert_eq!(found.severity, Severity::Warning);
    });
    assert_eq!(doctor::loader(dir.path(), "undionly.kpxe").severity, Severity::Warning);
    assert_eq!(doctor::loader(std::path::Path::new("/usr/lib/ipxe"), "undionly.kpxe").severity, Severity::Ok);
}

#[test]
fn only_root_may_read_the_scripts_on_the_host() {
    let (dir, network) = (tempfile::tempdir().unwrap(), id());
    let paths = paths(&dir);
    apply(&Dnsmasq::new(paths.clone(), open()), serve(network));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(paths.network(network)).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
}
