//! Leases that stand in the way: dnsmasq gives nobody a reserved address while it is leased to another machine, and
//! remembers a lease for hours after its machine is gone.
//!
//! dnsmasq keeps leases in memory, so they are ended the way a machine ends one: by a release, sent from this host. It is
//! best effort: a lease that stays ends by itself.

use std::ffi::OsString;
use std::net::{Ipv4Addr, UdpSocket};

use bmi::model::{Id, Mac};
use nix::sys::socket::{setsockopt, sockopt};

use super::packet;
use crate::drivers::{Paths, host};

/// A machine has an address for some time.
pub(super) struct Lease {
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
}

/// Ends those leases of a network's dnsmasq, which serves on that interface with that address.
pub(super) fn free(paths: &Paths, network: Id, serves: (&str, Ipv4Addr), which: impl Fn(&Lease) -> bool) {
    let text = host::read(&paths.dnsmasq(network).join("leases")).ok().flatten().unwrap_or_default();
    for lease in text.lines().filter_map(read).filter(|l| which(l)) {
        if let Err(e) = release(serves, &lease) {
            tracing::debug!(mac = %lease.mac, address = %lease.address, "could not release a lease: {e}");
        }
    }
}

/// A line of dnsmasq's lease file: when it ends, MAC, address, name, client id.
fn read(line: &str) -> Option<Lease> {
    let mut words = line.split(' ').skip(1);
    Some(Lease { mac: words.next()?.parse().ok()?, address: words.next()?.parse().ok()? })
}

fn release((interface, server): (&str, Ipv4Addr), lease: &Lease) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // dnsmasq listens on its interface alone: a packet from this host counts as from there if its socket is bound to it.
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))?;
    let packet = packet::release(lease.mac, lease.address, server);
    socket.send_to(&packet, (server, 67)).map(|_| ())
}
