//! What is wrong with booting on this host: boot loaders missing, ports taken, other DHCP servers. It asks and tells; it
//! never changes anything.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use bmi::model::{Dhcp, Id, Mac};
use bmi::step::{Finding, Severity};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use super::layout::{LOADERS_FROM, Layout, Service};
use super::{conf, packet};
use crate::drivers::Paths;

/// How long other servers have for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// When within it they are asked: a question may be lost, and so may its answer.
const ASKED: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1_000)];

/// Everything found. Networks are asked side by side: each takes [`PATIENCE`].
pub(super) fn findings(paths: &Paths, networks: &[(Id, String, String)]) -> Vec<Finding> {
    let mut out: Vec<Finding> = conf::LOADERS.iter().map(|name| loader(Path::new(LOADERS_FROM), name)).collect();
    let per_network = |id: &Id, interface: &str, address: &str| {
        let layout = Layout::new(paths, *id);
        let service = layout.service().ok().flatten();
        let runs = layout.process().is_some();
        let mut found = Vec::new();
        if !runs {
            found.extend(ports(interface, address.split('/').next().unwrap_or_default(), service.as_ref()));
        }
        found.push(servers(interface, service.as_ref(), runs));
        found
    };
    std::thread::scope(|scope| {
        let asked: Vec<_> = networks.iter().map(|(id, i, a)| scope.spawn(move || per_network(id, i, a))).collect();
        // A thread that panicked has nothing to tell.
        out.extend(asked.into_iter().filter_map(|t| t.join().ok()).flatten());
    });
    out
}

fn finding(check: String, severity: Severity, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, severity, found: found.into(), fix: fix.into() }
}

pub(super) fn loader(folder: &Path, name: &str) -> Finding {
    let check = format!("boot loader {name}");
    if folder.join(name).is_file() {
        return finding(check, Severity::Ok, format!("found in {}", folder.display()), "");
    }
    let found = format!("not in {}: machines without iPXE in their network card cannot boot", folder.display());
    finding(check, Severity::Warning, found, "install Debian's package ipxe, then: bmictl reconcile")
}

/// Whether our dnsmasq, which does not run, could have its ports.
pub(super) fn ports(interface: &str, address: &str, service: Option<&Service>) -> Vec<Finding> {
    let mut out = Vec::new();
    let taken = |port: u16, what: &str| {
        let found = format!("UDP port {port} is taken by another program, so dnsmasq cannot serve {what} there");
        let fix = format!("see who holds it: ss -lunp 'sport = :{port}'; stop it or keep it off {interface}");
        finding(format!("UDP port {port} on {interface}"), Severity::Error, found, fix)
    };
    let dhcp = service.is_none_or(|s| matches!(s.dhcp, Dhcp::Serve | Dhcp::Proxy));
    if dhcp && open(interface, Ipv4Addr::UNSPECIFIED, 67, false).is_err_and(held) {
        out.push(taken(67, "DHCP"));
    }
    if let Ok(address) = address.parse()
        && open(interface, address, 69, false).is_err_and(held)
    {
        out.push(taken(69, "boot files"));
    }
    out
}

fn held(e: io::Error) -> bool {
    e.kind() == io::ErrorKind::AddrInUse
}

/// Which other servers answer a machine that looks for an address.
fn servers(interface: &str, service: Option<&Service>, runs: bool) -> Finding {
    let check = format!("DHCP on {interface}");
    if service.is_some_and(|s| s.dhcp == Dhcp::Ipv6) {
        return finding(
            check,
            Severity::Ok,
            "machines get IPv6 addresses alone; who else gives them is not looked for",
            "",
        );
    }
    let ours = service.map(|s| s.address);
    let others = match ask(interface) {
        Ok(mut found) => {
            found.retain(|a| Some(IpAddr::from(*a)) != ours);
            found
        }
        Err(e) => {
            let fix = "look at the interface: it must exist and be up";
            return finding(check, Severity::Warning, format!("could not ask for other servers: {e}"), fix);
        }
    };
    let names: Vec<String> = others.iter().map(ToString::to_string).collect();
    match (service.map(|s| s.dhcp), names.is_empty()) {
        (Some(Dhcp::Serve) | None, false) => finding(
            check,
            Severity::Error,
            format!("another DHCP server answers there: {}; machines may follow it instead of bmid", names.join(", ")),
            "stop it, or make the network with --dhcp proxy (it gives addresses) or --dhcp off",
        ),
        (Some(Dhcp::Proxy | Dhcp::Off | Dhcp::Ipv6), true) => finding(
            check,
            Severity::Warning,
            "no DHCP server gives addresses there, and this network's mode leaves that to another one",
            "start one, or make the network with --dhcp serve",
        ),
        (Some(Dhcp::Proxy | Dhcp::Off | Dhcp::Ipv6), false) => {
            finding(check, Severity::Ok, format!("addresses come from {}", names.join(", ")), "")
        }
        (Some(Dhcp::Serve), true) if runs => finding(check, Severity::Ok, "no other server answers", ""),
        (Some(Dhcp::Serve), true) => {
            finding(check, Severity::Error, "dnsmasq does not run for this network", "bmictl reconcile")
        }
        (None, true) => finding(check, Severity::Ok, "no server answers", ""),
    }
}

/// Asks as a machine does that has no address, under an invented card, and gathers who offers one. Nothing is taken:
/// an offer that is not accepted lapses.
pub(super) fn ask(interface: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let [a, b, c, d, e, x @ .., _] = random;
    // Locally administered: no real card has such an address.
    let mac: Mac = format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}").parse().map_err(io::Error::other)?;
    let xid = u32::from_be_bytes(x);
    let socket = open(interface, Ipv4Addr::UNSPECIFIED, 68, true)?;
    socket.set_broadcast(true)?;
    let question = packet::client(packet::DISCOVER, xid, mac, Ipv4Addr::UNSPECIFIED, &[(55, &[1, 3, 6])]);
    let began = Instant::now();
    let mut due = ASKED.into_iter().peekable();
    let mut found = BTreeSet::new();
    let mut buffer = [0u8; 1500];
    loop {
        if due.next_if(|at| *at <= began.elapsed()).is_some() {
            socket.send_to(&question, (Ipv4Addr::BROADCAST, 67))?;
        }
        if began.elapsed() >= PATIENCE {
            return Ok(found);
        }
        let left = due.peek().unwrap_or(&PATIENCE).saturating_sub(began.elapsed());
        // No time at all would be no limit.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let Ok(n) = socket.recv(&mut buffer) else { continue };
        if let Some(answer) = packet::answer(&buffer[..n])
            && (answer.kind, answer.xid) == (packet::OFFER, xid)
        {
            found.extend(answer.server);
        }
    }
}

/// A UDP socket on one interface. `shared`: others may hold the port too.
pub(super) fn open(interface: &str, address: Ipv4Addr, port: u16, shared: bool) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface))?;
    setsockopt(&fd, sockopt::ReuseAddr, &shared)?;
    let [a, b, c, d] = address.octets();
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(a, b, c, d, port))?;
    Ok(UdpSocket::from(fd))
}
