//! dnsmasq's configuration for one network, and the lines by which it knows machines. Pure.
//!
//! One dnsmasq serves one network and shares the host with others: it answers what comes by its interface, has no DNS, and
//! reads nothing of the host's own configuration.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bmi::model::net::BLOCK;
use bmi::model::{Dhcp, Range};
use bmi::step::boot::HTTP_PORT;
use bmi::step::network::{ipv6_address, ipv6_prefix};
use bmi::step::{Entry, Serve};

use crate::drivers::Paths;
use crate::drivers::host::HEARS;

/// What the boot loaders are called, here and in Debian's package `ipxe`.
pub(super) const LOADERS: [&str; 2] = ["undionly.kpxe", "snponly.efi"];

/// The configuration, without the lines that mark it.
pub(super) fn dnsmasq(s: &Serve, paths: &Paths) -> String {
    let (boot, own) = (paths.boot(s.network), paths.dnsmasq(s.network));
    let mut c = String::new();
    let mut line = |text: &str| {
        c.push_str(text);
        c.push('\n');
    };
    line(
        "# No DNS; one interface, so that others may serve other networks of this host. What comes for its address by another",
    );
    line("# interface is dropped: so dnsmasq does with bind-dynamic, as long as no listen-address is named.");
    line("port=0");
    line(&format!("interface={}", s.interface));
    line("bind-dynamic");
    line("# News of other addresses than these, and of routes, is kept from it by what is preloaded into it.");
    line(&format!("{HEARS}{} {}", s.address.address, ipv6_address(s.network)));
    line("except-interface=lo");
    line("no-hosts\nno-resolv\nno-poll");
    line("# Kept: dnsmasq's uid and gid are made 0 so that it needs no right to change them later.");
    line("user=root\ngroup=root");
    line(&format!("pid-file={}", own.join("pid").display()));
    line("log-facility=-");
    line("enable-tftp");
    line("tftp-max=500");
    line(&format!("tftp-root={}", boot.join("tftp").display()));
    match s.dhcp {
        Dhcp::Serve => line(&serve(s, &boot, &own)),
        Dhcp::Proxy => line(&proxy(s, &own)),
        Dhcp::Off => line("# Addresses and boot files are somebody else's to announce."),
        Dhcp::Ipv6 => line(&serve_ipv6(s, &boot, &own)),
    }
    c
}

/// A mode as it stands in the mark.
pub(super) fn word(dhcp: Dhcp) -> &'static str {
    match dhcp {
        Dhcp::Serve => "serve",
        Dhcp::Proxy => "proxy",
        Dhcp::Off => "off",
        Dhcp::Ipv6 => "ipv6",
    }
}

/// Which machine gets which file.
const KINDS: &str = "\
# iPXE says so by option 175 or by its user class; other machines get an iPXE for their kind first.
dhcp-match=set:ipxe,175
dhcp-userclass=set:ipxe,iPXE
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:efi64,option:client-arch,7
dhcp-match=set:efi64,option:client-arch,9";

/// For firmware that boots by HTTP (UEFI 2.5, architecture 16): it takes only who calls itself so. An iPXE that can do HTTP says so
/// in its option 175 (19).
const BY_HTTP: &str = "\
dhcp-match=set:ipxe-http,175,19
dhcp-match=set:http64,option:client-arch,16
dhcp-option-force=tag:http64,tag:!ipxe,60,HTTPClient";

/// Router advertisements of a private subnet, or iPXE waits 16 seconds for one. Lifetime 0: nobody routes by them.
fn advertise(s: &Serve) -> String {
    let prefix = ipv6_prefix(s.network);
    format!("enable-ra\nra-param={},30,0\ndhcp-range={prefix},ra-only,64\nquiet-ra\nquiet-dhcp6", s.interface)
}

/// A machine's loader and its system name themselves differently but have one card: client ids are not looked at, or the
/// second would not get the first one's address.
fn serve(s: &Serve, boot: &Path, own: &Path) -> String {
    let mask = Ipv4Addr::from(u32::MAX << 32u8.saturating_sub(s.address.prefix).min(31));
    let range = match s.range {
        Some(r) => format!("{},{},{mask},12h", r.first, last(r)),
        None => format!("{},static,{mask},12h", s.address.network()),
    };
    let mut out = format!(
        "dhcp-authoritative\nno-ping\ndhcp-ignore-clid\ndhcp-lease-max={LEASES}\ndhcp-range={range}\n\
         dhcp-leasefile={}\ndhcp-hostsdir={}\n{KINDS}\n",
        own.join("leases").display(),
        boot.join("hosts").display(),
    );
    // The engine is no router: without these two lines dnsmasq names itself as one, and as a name server.
    let told = |option: &str, all: &mut dyn Iterator<Item = &Ipv4Addr>| {
        all.fold(format!("dhcp-option=option:{option}"), |line, a| format!("{line},{a}")) + "\n"
    };
    out.push_str(&told("router", &mut s.router.iter()));
    out.push_str(&told("dns-server", &mut s.dns.iter()));
    out.push_str("dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe\ndhcp-boot=tag:!ipxe,tag:efi64,snponly.efi\n");
    let base = format!("http://{}:{}", s.address.address, HTTP_PORT);
    let _ = writeln!(out, "{BY_HTTP}\ndhcp-boot=tag:!ipxe,tag:http64,{base}/snponly.efi");
    let _ =
        writeln!(out, "dhcp-boot=tag:ipxe,tag:!ipxe-http,boot.ipxe\ndhcp-boot=tag:ipxe,tag:ipxe-http,{base}/boot.ipxe");
    // iPXE's option 175.176 (no-pxedhcp): it need not wait for a proxy's offer.
    out.push_str("dhcp-option=tag:ipxe,encap:175,176,1b\n");
    let _ = write!(out, "{}", advertise(s));
    out
}

/// The same without IPv4: addresses by DHCPv6 or made by the machine itself, boot files by their URLs (RFC 5970). HTTP's firmware takes
/// only a server of vendor class `HTTPClient`, whose enterprise number is of no account.
fn serve_ipv6(s: &Serve, boot: &Path, own: &Path) -> String {
    let (address, leased) = (s.address.address, s.address.leased());
    let base = format!("http://[{address}]:{}", HTTP_PORT);
    let class: String = b"HTTPClient".iter().map(|b| format!(":{b:02x}")).collect();
    format!(
        "enable-ra\nra-param={},30,0\ndhcp-authoritative\ndhcp-lease-max={LEASES}\ndhcp-leasefile={}\n\
         dhcp-hostsdir={}\ndhcp-range={},{},slaac,64,12h\ndhcp-userclass=set:ipxe,iPXE\n\
         dhcp-match=set:http64,option6:61,16\ndhcp-match=set:efi64,option6:61,7\n\
         dhcp-option=tag:ipxe,option6:bootfile-url,{base}/boot.ipxe\n\
         dhcp-option=tag:!ipxe,tag:http64,option6:bootfile-url,{base}/snponly.efi\n\
         dhcp-option-force=tag:!ipxe,tag:http64,option6:16,00:00:01:57:00:0a{class}\n\
         dhcp-option=tag:!ipxe,tag:efi64,option6:bootfile-url,tftp://[{address}]/snponly.efi",
        s.interface,
        own.join("leases").display(),
        boot.join("hosts").display(),
        leased.first,
        leased.last,
    )
}

/// Leases that a dnsmasq keeps: 300 bytes each, and a line of the file that it writes anew with every lease. Half of them are for
/// machines with a reservation, however many others there seem to be: one machine can ask under any number of MACs.
const LEASES: u32 = 65_536;

/// The last address that a machine without a reservation may get.
fn last(range: Range) -> IpAddr {
    range.at((LEASES / 2).min(range.len()) - 1)
}

fn proxy(s: &Serve, own: &Path) -> String {
    format!(
        "dhcp-range={},proxy\ndhcp-leasefile={}\n{KINDS}\ndhcp-boot=tag:ipxe,boot.ipxe\n\
         pxe-service=tag:!ipxe,x86PC,\"bmid\",undionly.kpxe\n\
         pxe-service=tag:!ipxe,BC_EFI,\"bmid\",snponly.efi\n\
         pxe-service=tag:!ipxe,x86-64_EFI,\"bmid\",snponly.efi\n{}",
        s.address.network(),
        own.join("leases").display(),
        advertise(s),
    )
}

/// The line by which dnsmasq knows a machine.
pub(super) fn host(e: &Entry) -> String {
    let mut line = e.mac.to_string();
    match e.address {
        Some(IpAddr::V4(address)) => line.push_str(&format!(",{address}")),
        // A lease is of one program of the machine's: the next one gets the next address of the node's block.
        Some(IpAddr::V6(address)) => line.push_str(&format!(",[{address}/{}]", 128 - BLOCK.ilog2())),
        None => {}
    }
    if let Some(name) = hostname(&e.hostname) {
        let _ = write!(line, ",{name}");
    }
    line.push('\n');
    line
}

/// A name that DHCP may hand out; none if nothing of it is left, or if dnsmasq would read it as something else: a word of
/// its own (a node called `ignore` would never get an answer) or a lease time (`12h`).
fn hostname(name: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().take(63).map(plain).collect();
    let name = name.trim_matches('-');
    let time = name.strip_suffix(['s', 'm', 'h', 'd', 'w']).unwrap_or(name);
    let word = ["ignore", "infinite"].contains(&name) || time.bytes().all(|b| b.is_ascii_digit());
    (!word).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leaves_leases_for_machines_with_a_reservation() {
        let of = |first: &str, to: &str| {
            last(Range { first: first.parse().unwrap(), last: to.parse().unwrap() }).to_string()
        };
        assert_eq!(of("10.9.0.100", "10.9.0.150"), "10.9.0.150");
        assert_eq!(of("10.0.0.0", "10.255.255.254"), "10.0.127.255");
        assert_eq!(of("255.255.255.0", "255.255.255.254"), "255.255.255.254");
    }
}
