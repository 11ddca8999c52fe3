//! `bind` as dnsmasq calls it: the kernel's, with a program on sockets of netlink.

#![allow(unsafe_code, reason = "a function with a C library's name, called by C")]

use std::ffi::{c_int, c_void};

use super::{HEARS, addresses, program};

/// As libc's, but a socket of netlink hears only of the addresses that [`HEARS`] names, if it names any.
///
/// # Safety
/// As libc's: an address of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(socket: c_int, address: *const libc::sockaddr, len: libc::socklen_t) -> c_int {
    // SAFETY: every address that is not empty begins with its family.
    let family = if address.is_null() || len < 2 { 0 } else { unsafe { address.cast::<u16>().read_unaligned() } };
    if c_int::from(family) == libc::AF_NETLINK
        && let Some(text) = std::env::var_os(HEARS)
        && let Some(all) = text.to_str().and_then(addresses)
    {
        attach(socket, &all);
    }
    // SAFETY: the system call of that name, with the caller's arguments.
    unsafe { libc::syscall(libc::SYS_bind, socket, address, len) as c_int }
}

/// Gives a socket its program. Without one it hears everything, which only costs time.
fn attach(socket: c_int, all: &[std::net::IpAddr]) {
    let op = |(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k };
    let mut ops: Vec<libc::sock_filter> = program(all).into_iter().map(op).collect();
    let Ok(len) = u16::try_from(ops.len()) else { return };
    let whole = libc::sock_fprog { len, filter: ops.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until after the call.
    unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const whole).cast::<c_void>(),
            size_of_val(&whole) as libc::socklen_t,
        );
    }
}
