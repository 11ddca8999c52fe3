//! The system calls of this room that no crate wraps safely: recvmsg with descriptors, the peer's groups, a listener that
//! systemd opened. Nothing else here, and no decisions.
#![allow(unsafe_code, reason = "three system interfaces that no safe wrapper covers")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::ReadBuf;

/// Most descriptors the kernel passes with one message (SCM_MAX_FD).
const KERNEL_MOST: usize = 253;
/// Room for them in 8-byte words, so that the buffer is aligned as a `cmsghdr` must be.
const WORDS: usize = (16 + KERNEL_MOST * mem::size_of::<RawFd>()).div_ceil(8);

/// One recvmsg: bytes into `buf`, descriptors (closed on exec) into `fds`. Says whether descriptors were lost because this
/// process could not take them.
pub(super) fn receive(socket: BorrowedFd<'_>, buf: &mut ReadBuf<'_>, fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    // SAFETY: the bytes are only handed to the kernel, which writes and never reads them; nothing is un-initialised by it.
    let free = unsafe { buf.unfilled_mut() };
    let mut iov = libc::iovec { iov_base: free.as_mut_ptr().cast(), iov_len: free.len() };
    let mut control = [0u64; WORDS];
    // SAFETY: msghdr is a C struct of integers and pointers, for which all zeroes is a valid value.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: the descriptor is open (borrowed), and msg points at an iovec and a control buffer that live through the call
    // and have the lengths given.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: msg was filled by a successful recvmsg and its control buffer is still alive.
    unsafe { take_descriptors(&msg, fds) };
    // SAFETY: recvmsg wrote n bytes at the start of the unfilled part, and n is at most its length.
    unsafe { buf.assume_init(n) };
    buf.advance(n);
    Ok(msg.msg_flags & libc::MSG_CTRUNC != 0)
}

/// # Safety
/// `msg` was filled by a successful recvmsg, its control buffer is alive, and this is called once for it.
unsafe fn take_descriptors(msg: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the caller's promise; the CMSG macros stay within msg_controllen.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(msg) };
    while !at.is_null() {
        // SAFETY: a non-null header of the macros lies whole within the control buffer, which is 8-byte aligned.
        let header = unsafe { &*at };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: as above; the data begins behind the header and cmsg_len says where it ends.
            let (data, head) = unsafe { (libc::CMSG_DATA(at), libc::CMSG_LEN(0) as usize) };
            for i in 0..(header.cmsg_len as usize).saturating_sub(head) / mem::size_of::<RawFd>() {
                // SAFETY: within the header's length; read unaligned. The kernel has just opened this descriptor for us
                // and nobody else knows it, so owning it is right.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(i).read_unaligned()) });
            }
        }
        // SAFETY: `at` is a header of this message.
        at = unsafe { libc::CMSG_NXTHDR(msg, at) };
    }
}

/// The supplementary groups the peer had when it connected.
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = mem::size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `bytes` bytes, which is what the vector holds.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / mem::size_of::<libc::gid_t>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let e = io::Error::last_os_error();
        // The kernel says how much room it wants; at most NGROUPS_MAX (65,536).
        if e.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > 1 << 17 {
            return Err(e);
        }
        groups.resize(count, 0);
    }
}

/// The listener that systemd passed as descriptor `fd`. None the second time: it has one owner.
pub(super) fn adopt(fd: RawFd) -> Option<UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: sd_listen_fds said that this descriptor was passed to this process for its use; the switch above makes this the
    // only place that ever owns it.
    Some(unsafe { UnixListener::from_raw_fd(fd) })
}
