//! The server of a network's boot files by HTTP: a process of its own beside the network's dnsmasq, started by the worker driver
//! as `bmid --boot-files CONF`. It reads files of one folder for machines of one network. It never writes anything but its
//! process id, never follows a path that a machine sent, and has no way to reach what bmid knows.
//!
//! Everything a machine can make it do has an end: bytes of a request, seconds of a connection, connections of a machine and of
//! all, lines of the log.

mod fed;
mod said;
mod server;

pub use fed::Fed;

use std::io;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::drivers::boot::http::Conf;

/// Serves as the configuration says, until it is told to end. The exit code is for the worker's manager.
#[must_use]
pub fn serve(conf: &Path) -> bool {
    match begin(conf) {
        Ok(()) => true,
        Err(why) => {
            eprintln!("bmid --boot-files {}: {why}", conf.display());
            false
        }
    }
}

fn begin(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("read it: {e}"))?;
    let conf = Conf::read(&text)?;
    let mut doors = Vec::new();
    for address in &conf.listen {
        doors.push(door(*address).map_err(|e| format!("listen on {address}: {e}"))?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|e| format!("start its threads: {e}"))?;
    // Whoever reads it may ask: the doors are open.
    write_pid(&conf.pid).map_err(|e| format!("write {}: {e}", conf.pid.display()))?;
    runtime.block_on(server::run(conf, server::LIMITS, doors)).map_err(|e| format!("serve: {e}"))
}

/// A socket that listens there. The address may come later than the process (an interface that flaps), or go and come back.
fn door(address: std::net::SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(std::net::TcpListener::from(fd))
}

/// Whole or not at all: the worker driver reads it while it is written.
fn write_pid(path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, std::process::id().to_string())?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests;
