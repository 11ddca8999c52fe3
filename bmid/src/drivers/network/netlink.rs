//! Changes by rtnetlink. Each call has a connection and a runtime of its own, so it belongs to the network namespace of
//! the thread that calls, and nothing outlives it. "There already" and "gone already" are success.

use std::future::Future;
use std::io;
use std::net::IpAddr;

use bmi::model::Tagging;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::VlanProtocol;
use rtnetlink::{Handle, LinkUnspec, LinkVlan};

use super::vlan::GROUP;

/// Puts an address on an interface. False: it was there.
pub(super) fn add(interface: &str, address: IpAddr, prefix: u8) -> io::Result<bool> {
    let index = index(interface)?;
    run(|handle| async move {
        let mut request = handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            // Nobody else has a private address of ours: no probing, so it may be used at once.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        ignoring(request.execute().await, &[libc::EEXIST])
    })
}

/// Takes an address off an interface. False: it was not there.
pub(super) fn remove(interface: &str, address: IpAddr, prefix: u8) -> io::Result<bool> {
    let Ok(index) = index(interface) else { return Ok(false) };
    run(|handle| async move {
        // The message that adds an address also names one to take off.
        let message = handle.address().add(index, address, prefix).message_mut().clone();
        ignoring(handle.address().del(message).execute().await, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    })
}

/// Brings an interface up.
pub(super) fn bring_up(interface: &str) -> io::Result<()> {
    let index = index(interface)?;
    run(|handle| async move {
        let message = LinkUnspec::new_with_index(index).up().build();
        ignoring(handle.link().set(message).execute().await, &[]).map(|_| ())
    })
}

/// Makes an interface on a VLAN, down, in bmid's group; gives its index.
pub(super) fn make_vlan(name: &str, parent: u32, vlan: u16, tagging: Tagging, mtu: u32) -> io::Result<u32> {
    let protocol = match tagging {
        Tagging::Dot1q => VlanProtocol::Ieee8021Q,
        Tagging::Dot1ad => VlanProtocol::Ieee8021Ad,
    };
    let message = LinkVlan::new(name, parent, vlan).protocol(protocol).mtu(mtu).link_group(GROUP).build();
    run(|handle| async move { handle.link().add(message).execute().await.map_err(told) })?;
    index(name)
}

/// Gives an interface its alias and its MTU, and brings it up.
pub(super) fn finish(index: u32, alias: &str, mtu: u32) -> io::Result<()> {
    let message = LinkUnspec::new_with_index(index).alias(alias).mtu(mtu).up().build();
    run(|handle| async move { handle.link().set(message).execute().await.map_err(told) })
}

/// Deletes an interface. False: it was gone.
pub(super) fn delete(index: u32) -> io::Result<bool> {
    run(|handle| async move { ignoring(handle.link().del(index).execute().await, &[libc::ENODEV]) })
}

fn index(interface: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(interface).map_err(io::Error::from)
}

fn run<T, F: Future<Output = io::Result<T>>>(work: impl FnOnce(Handle) -> F) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let serving = tokio::spawn(connection);
        let done = work(handle).await;
        serving.abort();
        done
    })
}

fn ignoring(done: Result<(), rtnetlink::Error>, codes: &[i32]) -> io::Result<bool> {
    match done.map_err(told) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error().is_some_and(|c| codes.contains(&c)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The kernel's own error number, where there is one.
fn told(e: rtnetlink::Error) -> io::Error {
    match e {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
