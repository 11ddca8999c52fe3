//! Changes by rtnetlink. Each call has a connection and a runtime of its own, so it belongs to the network namespace of
//! the thread that calls, and nothing outlives it. "There already" and "gone already" are success.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec};

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

/// The MTU of every interface. A link that cannot be decoded is missing, not an error.
pub(super) fn mtus() -> io::Result<BTreeMap<String, u32>> {
    run(|handle| async move {
        let mut found = BTreeMap::new();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(told)? {
            let (mut name, mut mtu) = (None, None);
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(n) => name = Some(n),
                    LinkAttribute::Mtu(m) => mtu = Some(m),
                    _ => {}
                }
            }
            found.extend(name.zip(mtu));
        }
        Ok(found)
    })
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
