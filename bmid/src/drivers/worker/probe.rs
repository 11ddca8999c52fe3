//! Finding workers and asking whether they answer. No effect, and no belief in numbers: a process is a worker if its
//! arguments and environment name the network's files.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi::model::Id;
use bmi::step::WorkerKind;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use crate::drivers::host::{self, Process, Shared};
use crate::drivers::{DriverError, Paths};

/// How long a worker has for an answer. A tgtd with thousands of targets needs most of a second for its longest work.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The same for the doctor, who has other questions too.
pub(super) const GLANCE: Duration = Duration::from_secs(1);

/// The worker's process, if its pid file or its socket tells the truth.
pub(super) fn hinted(paths: &Paths, network: Id, kind: WorkerKind) -> Option<Process> {
    let hint = match kind {
        WorkerKind::Tgtd => pid_in(&paths.network(network).join("tgtd/pid")).or_else(|| peer(paths, network)),
        WorkerKind::Dnsmasq | WorkerKind::Http => pid_in(&super::own(paths, network, kind).join("pid")),
    };
    hint.and_then(|pid| is(paths, network, kind, pid))
}

/// The process with that number, if it is the worker.
pub(super) fn is(paths: &Paths, network: Id, kind: WorkerKind, pid: u32) -> Option<Process> {
    Process::open(pid, &identity(paths, network, kind))
}

/// Whether a start of the worker has left something: its log or what its unit starts it with comes before its process, what was
/// written later stays until it was seen to have ended.
pub(super) fn has_trace(paths: &Paths, network: Id, kind: WorkerKind) -> bool {
    let own = super::own(paths, network, kind);
    let env = paths.network(network).join(format!("{}.env", kind.as_str()));
    ["log", "pid", "started"].iter().any(|name| own.join(name).exists()) || env.exists()
}

/// All processes that look like workers, by the network whose files they name.
#[derive(Debug)]
pub(super) struct Listing(HashMap<Id, Vec<u32>>);

impl Listing {
    /// Of which networks there are any.
    pub(super) fn networks(&self) -> HashSet<Id> {
        self.0.keys().copied().collect()
    }
}

/// Lists them, for all who ask at the same time: with hundreds of networks each would else read of thousands of processes.
pub(super) fn list(paths: &Paths, shared: &Shared<Listing>) -> Result<Arc<Listing>, DriverError> {
    shared.now(|| {
        let mut all: HashMap<Id, Vec<u32>> = HashMap::new();
        let folder = paths.run.join("net");
        for name in host::names(Path::new("/proc")).map_err(|e| DriverError::io("list processes", e))? {
            let Ok(pid) = name.parse() else { continue };
            if let Some(network) = network_of(&Path::new("/proc").join(name), &folder) {
                all.entry(network).or_default().push(pid);
            }
        }
        Ok(Listing(all))
    })
}

/// The network whose files a process names: in its arguments, or as a tgtd in its environment.
fn network_of(process: &Path, folder: &Path) -> Option<Id> {
    let in_words = |file: &str, begins: &[u8]| {
        let bytes = std::fs::read(process.join(file)).ok()?;
        let words = bytes.split(|b| *b == 0).filter_map(|w| w.strip_prefix(begins));
        words.map(OsStr::from_bytes).find_map(|word| {
            let network = Path::new(word).strip_prefix(folder).ok()?.iter().next()?;
            network.to_str()?.parse().ok()
        })
    };
    in_words("cmdline", b"").or_else(|| in_words("environ", host::TGT_SOCKET))
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
pub(super) fn find_all(
    paths: &Paths,
    shared: &Shared<Listing>,
    network: Id,
    kind: WorkerKind,
) -> Result<Vec<Process>, DriverError> {
    let all = list(paths, shared)?;
    let of = all.0.get(&network).map(Vec::as_slice).unwrap_or_default();
    Ok(of.iter().filter_map(|pid| is(paths, network, kind, *pid)).collect())
}

/// It has come so far in its start that it may be asked.
pub(super) fn ready(paths: &Paths, network: Id, kind: WorkerKind) -> bool {
    match kind {
        WorkerKind::Tgtd => paths.tgtd_socket(network).exists(),
        WorkerKind::Dnsmasq | WorkerKind::Http => {
            let pid = pid_in(&super::own(paths, network, kind).join("pid"));
            pid.is_some_and(|pid| is(paths, network, kind, pid).is_some())
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
