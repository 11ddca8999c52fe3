//! Who notices that this host's links or addresses change. The kernel's messages are not read but taken as a bell: they say
//! that somebody should look. Never changes anything.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Netlink;
use super::sim::SimNetwork;

/// Who notices that links and addresses change.
pub trait News: Send + Sync {
    /// Waits until a link or an address of this host may have changed, for at most `limit`. Changes that come close together
    /// are told once.
    fn changed(&self, limit: Duration) -> bool;
}

/// Changes come in bursts: so long without one ends them.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is told after so long.
const BURST: Duration = Duration::from_secs(1);

/// The kernel's messages of links and addresses, in the network namespace of the thread that began to listen.
pub(super) fn listen() -> std::io::Result<Socket> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let mask = groups.into_iter().fold(0, |mask, group| mask | 1 << (group as u32 - 1));
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, mask))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Waits for a message and takes all there are. Too many of them at once are an error of the socket, and news as well.
fn heard(socket: &Socket, limit: Duration) -> bool {
    let limit = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], limit) {
        Ok(0) => false,
        Ok(_) => {
            while socket.recv_from_full().is_ok() {}
            true
        }
        Err(_) => {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    }
}

impl News for Netlink {
    fn changed(&self, limit: Duration) -> bool {
        let Some(socket) = &self.news else {
            std::thread::sleep(limit);
            return false;
        };
        if !heard(socket, limit) {
            return false;
        }
        let end = Instant::now() + BURST;
        while Instant::now() < end && heard(socket, QUIET) {}
        true
    }
}

impl News for SimNetwork {
    fn changed(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let before = self.interfaces().ok();
        while Instant::now() < end {
            std::thread::sleep(QUIET);
            if self.interfaces().ok() != before {
                return true;
            }
        }
        false
    }
}
