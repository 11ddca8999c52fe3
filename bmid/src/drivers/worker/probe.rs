//! Finding workers and asking whether they answer. No effect, and no belief in numbers: a process is a worker if its
//! arguments and environment name the network's files.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bmi::model::Id;
use bmi::step::WorkerKind;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use crate::drivers::host::{self, Process};
use crate::drivers::{DriverError, Paths};

/// How long a worker has for an answer. A tgtd with thousands of targets needs most of a second for its longest work.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The same for the doctor, who has other questions too.
pub(super) const GLANCE: Duration = Duration::from_secs(1);

/// The worker's process: by its pid file or socket if they tell the truth, else among all processes.
pub(super) fn find(paths: &Paths, network: Id, kind: WorkerKind) -> Result<Option<Process>, DriverError> {
    let is = identity(paths, network, kind);
    let hint = match kind {
        WorkerKind::Tgtd => pid_in(&paths.network(network).join("tgtd/pid")).or_else(|| peer(paths, network)),
        WorkerKind::Dnsmasq | WorkerKind::Http => pid_in(&super::own(paths, network, kind).join("pid")),
    };
    if let Some(process) = hint.and_then(|pid| Process::open(pid, &is)) {
        return Ok(Some(process));
    }
    Ok(find_all(paths, network, kind)?.pop())
}

/// The number that a worker's process had when it was last known to run; none once it was told to end.
pub(super) fn noted(paths: &Paths, network: Id, kind: WorkerKind) -> Option<u32> {
    match kind {
        WorkerKind::Tgtd => pid_in(&paths.network(network).join("tgtd/pid")),
        WorkerKind::Dnsmasq | WorkerKind::Http => {
            // What it was started with stays until it is told to end; its own file may be gone with it.
            let own = super::own(paths, network, kind);
            own.join("started").exists().then(|| pid_in(&own.join("pid")).unwrap_or(0))
        }
    }
}

/// All processes of the worker. More than one only after a start that was cut off.
pub(super) fn find_all(paths: &Paths, network: Id, kind: WorkerKind) -> Result<Vec<Process>, DriverError> {
    Process::find(&identity(paths, network, kind)).map_err(|e| DriverError::io("list processes", e))
}

/// It has come so far in its start that it may be asked.
pub(super) fn ready(paths: &Paths, network: Id, kind: WorkerKind) -> bool {
    match kind {
        WorkerKind::Tgtd => paths.tgtd_socket(network).exists(),
        WorkerKind::Dnsmasq | WorkerKind::Http => {
            let is = identity(paths, network, kind);
            pid_in(&super::own(paths, network, kind).join("pid")).is_some_and(|pid| Process::open(pid, &is).is_some())
        }
    }
}

/// Whether it answers. dnsmasq has no question that costs nothing, and a server that machines keep busy is not silent: there,
/// not being stopped is answering.
pub(super) fn answers(paths: &Paths, network: Id, kind: WorkerKind, limit: Duration) -> bool {
    match kind {
        WorkerKind::Tgtd => tgtd_answers(&paths.tgtd_socket(network), limit),
        WorkerKind::Dnsmasq | WorkerKind::Http => true,
    }
}

fn identity(paths: &Paths, network: Id, kind: WorkerKind) -> impl Fn(&Path) -> bool + use<> {
    let (conf, ipc) = (super::conf(paths, network, kind), paths.tgtd_ipc(network));
    move |process| match kind {
        WorkerKind::Tgtd => host::is_tgtd(process, &ipc),
        WorkerKind::Dnsmasq => host::is_dnsmasq(process, &conf),
        WorkerKind::Http => host::is_http(process, &conf),
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    host::read(file).ok()??.trim().parse().ok()
}

/// Whether somebody else listens there, or on all addresses.
pub(super) fn port_is_taken(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
}

/// Who listens on the management socket, as the kernel knows it.
fn peer(paths: &Paths, network: Id) -> Option<u32> {
    let stream = ask(&paths.tgtd_socket(network), Instant::now() + ANSWER)?;
    u32::try_from(getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid()).ok()
}

/// The cheapest request there is, answered whole: whatever hangs in tgtd's loop holds it up.
fn tgtd_answers(path: &Path, limit: Duration) -> bool {
    ask(path, Instant::now() + limit).is_some()
}

/// `SYSTEM SHOW` in tgtd's words: what its state is. 120 bytes and no payload.
fn question() -> [u8; 120] {
    let mut request = [0; 120];
    request[4] = 2;
    request[8..13].copy_from_slice(b"iscsi");
    request[72] = 120;
    request
}

/// A connection that tgtd has answered on, read to its end.
///
/// Never connect without a whole request: tgtd takes an end where it expects bytes for "not yet" if its last read anywhere
/// would have blocked, keeps the connection, and from then on turns in circles on it, answering nobody. That was seen with a
/// node that had just logged in and a probe that only connected.
fn ask(path: &Path, end: Instant) -> Option<OwnedFd> {
    let stream = dial(path, end)?;
    // The socket's buffer takes 120 bytes at once: nothing of it is ever missing.
    if nix::unistd::write(&stream, &question()).ok()? != question().len() {
        return None;
    }
    let mut answer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return None,
            Ok(_) => match nix::unistd::read(&stream, &mut answer) {
                Ok(0) => return Some(stream),
                Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => return None,
            },
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Connects. A queue that is full is asked again until `end`; an ordinary connect would wait without one.
fn dial(path: &Path, end: Instant) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new(path).ok()?;
    loop {
        match connect(stream.as_raw_fd(), &address).map_err(std::io::Error::from) {
            Ok(()) => return Some(stream),
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => return None,
        }
    }
}
