//! `accept` as tgtd calls it: the kernel's, and a connection that is not from the network is closed before tgtd hears of it.

#![allow(unsafe_code, reason = "a function with a C library's name, called by C")]

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::null_mut;

use super::near;

/// As libc's, but a connection from elsewhere is closed and told as none (`EAGAIN`).
///
/// # Safety
/// As libc's: `address` has room for `*len` bytes, or both are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(socket: c_int, address: *mut libc::sockaddr, len: *mut libc::socklen_t) -> c_int {
    // SAFETY: the system call of that name, with the caller's arguments.
    let taken = unsafe { libc::accept4(socket, address, len, 0) };
    if taken < 0 || from_here(taken) {
        return taken;
    }
    // SAFETY: a descriptor that was given above and to nobody else; the place of this thread's error number.
    unsafe {
        libc::close(taken);
        *libc::__errno_location() = libc::EAGAIN;
    }
    -1
}

type Name = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

/// Not a connection over IP (the management socket), or one from the subnet of the address it came to.
fn from_here(taken: c_int) -> bool {
    let family = |name| ip_of(taken, name);
    match (family(libc::getsockname), family(libc::getpeername)) {
        (Ok(None), _) => true,
        (Ok(Some(local)), Ok(Some(peer))) => near(local, peer, &addresses()),
        // Gone already, or nobody knows from where.
        _ => false,
    }
}

/// One end's address; nothing for a family without any.
fn ip_of(socket: c_int, name: Name) -> Result<Option<IpAddr>, ()> {
    // SAFETY: plain data, for which zeros are a value.
    let mut room: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&room)).unwrap_or_default();
    // SAFETY: room for an address of any family, and its size.
    if unsafe { name(socket, (&raw mut room).cast(), &raw mut len) } != 0 {
        return Err(());
    }
    // SAFETY: filled above.
    Ok(unsafe { read((&raw const room).cast()) })
}

/// An address of the kernel's.
///
/// # Safety
/// Null, or an address with as many bytes as its family has.
unsafe fn read(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: not null, and every address begins with its family.
    let family = unsafe { address.as_ref()?.sa_family };
    match c_int::from(family) {
        // SAFETY: an address of that family; it may lie anywhere.
        libc::AF_INET => Some(unsafe {
            let a = address.cast::<libc::sockaddr_in>().read_unaligned();
            IpAddr::V4(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)))
        }),
        // SAFETY: as above.
        libc::AF_INET6 => Some(unsafe {
            let a = address.cast::<libc::sockaddr_in6>().read_unaligned();
            IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr))
        }),
        _ => None,
    }
}

/// This host's addresses and their masks; none if they cannot be listed.
fn addresses() -> Vec<(IpAddr, IpAddr)> {
    let mut out = Vec::new();
    let mut all = null_mut();
    // SAFETY: a place for the list, which is walked while it stands and freed once.
    unsafe {
        if libc::getifaddrs(&raw mut all) != 0 {
            return out;
        }
        let mut at = all;
        while let Some(entry) = at.as_ref() {
            if let (Some(address), Some(mask)) = (read(entry.ifa_addr), read(entry.ifa_netmask)) {
                out.push((address, mask));
            }
            at = entry.ifa_next;
        }
        libc::freeifaddrs(all);
    }
    out
}
