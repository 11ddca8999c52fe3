//! `accept` and `posix_memalign` as tgtd calls them: the kernel's and libc's, with a door before the one and a measure on the other.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::{ALL, Addresses, Crowd, Refused, Told, has_room};
use crate::asked::ffi as asked;
use crate::out::ffi as out;

/// What the door remembers. tgtd takes connections in one thread; the lock is never waited for.
#[derive(Default)]
struct Door {
    addresses: Addresses,
    crowd: Crowd,
    told: Told,
}

static DOOR: Mutex<Option<Door>> = Mutex::new(None);

fn door<T>(f: impl FnOnce(&mut Door) -> T) -> T {
    let mut door = DOOR.lock().unwrap_or_else(PoisonError::into_inner);
    f(door.get_or_insert_with(|| {
        // What an earlier tgtd here told is no longer so.
        let _ = told_at().map(std::fs::remove_file);
        Door::default()
    }))
}

/// As libc's, but a connection that is refused is closed, and in its place comes a descriptor that is no socket: tgtd closes that
/// without a word, where it writes a line for every error of `accept`.
///
/// # Safety
/// As libc's: `address` has room for `*len` bytes, or both are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(socket: c_int, address: *mut libc::sockaddr, len: *mut libc::socklen_t) -> c_int {
    // SAFETY: the system call of that name, with the caller's arguments.
    let taken = unsafe { libc::accept4(socket, address, len, 0) };
    if taken < 0 {
        return taken;
    }
    let now = Instant::now();
    let judged = door(|door| {
        let judged = door.judge(taken, now);
        judged.err().into_iter().for_each(|why| door.told.add(why));
        if let (Some(text), Some(path)) = (door.told.text(now), told_at()) {
            // Nobody can be told that it cannot be told.
            let _ = std::fs::write(path, text);
        }
        judged
    });
    let Ok(machines) = judged else { return no_socket(taken) };
    asked::begun(taken);
    out::begun(taken, machines);
    taken
}

/// Closes a connection and gives what tgtd takes for one that has ended already.
fn no_socket(taken: c_int) -> c_int {
    // SAFETY: a descriptor that was given above and to nobody else; the place of this thread's error number.
    unsafe {
        libc::close(taken);
        let none = libc::eventfd(0, libc::EFD_CLOEXEC);
        if none < 0 {
            *libc::__errno_location() = libc::EAGAIN;
        }
        none
    }
}

impl Door {
    /// Not a connection over IP (the management socket), or a machine's, one of the network's own that is not too many: whether it is a machine's.
    fn judge(&mut self, taken: c_int, now: Instant) -> Result<bool, Refused> {
        let (local, peer) = (ip_of(taken, libc::getsockname), ip_of(taken, libc::getpeername));
        let (local, peer) = match (local, peer) {
            (Ok(None), _) => return Ok(false),
            (Ok(Some(local)), Ok(Some(peer))) => (local, peer),
            // Gone already, or nobody knows from where.
            _ => return Err(Refused::Elsewhere),
        };
        match self.addresses.near((local.ip(), peer.ip()), now, addresses) {
            Some(true) => {}
            Some(false) => return Err(Refused::Elsewhere),
            None => return Err(Refused::Blind),
        }
        // What the engine's host itself asks for is its own business.
        let own = local.ip().to_canonical() == peer.ip().to_canonical() || peer.ip().to_canonical().is_loopback();
        let still = |fd, peer: SocketAddr| {
            ip_of(fd, libc::getpeername).is_ok_and(|now| {
                now.is_some_and(|now| (now.ip().to_canonical(), now.port()) == (peer.ip(), peer.port()))
            })
        };
        if own || self.crowd.admits((taken, peer), most(), now, still) { Ok(true) } else { Err(Refused::TooMany) }
    }
}

/// Connections for which there are files: half of them, since each disk has files, too.
fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a place for the limit.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
        let files = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
        if known { (files / 2).clamp(16, ALL) } else { ALL }
    })
}

/// Where bmid reads what was refused: beside the management socket.
fn told_at() -> Option<&'static PathBuf> {
    static AT: OnceLock<Option<PathBuf>> = OnceLock::new();
    AT.get_or_init(|| Some(PathBuf::from(std::env::var_os("TGT_IPC_SOCKET")?).with_file_name("door"))).as_ref()
}

/// As libc's, but nothing for more than a machine may have tgtd hold. tgtd has the buffers of machines' data from here, in its loop,
/// and drops the connection of a machine for which there is none. What Ceph's libraries have in their threads is theirs: they end
/// the process if they get none.
///
/// # Safety
/// As libc's: a place for the address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(at: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    /// Given out since memory was last counted. Counting takes a lock and looks through all heaps.
    static UNCOUNTED: AtomicUsize = AtomicUsize::new(0);
    const STRIDE: usize = 16 << 20;
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let in_loop = asked::in_loop();
    if in_loop {
        let before = UNCOUNTED.load(Ordering::Relaxed);
        let counts = before.saturating_add(size) > STRIDE;
        if counts && !has_room(size, used, host()) {
            door(|door| door.told.buffers += 1);
            return libc::ENOMEM;
        }
        UNCOUNTED.store(if counts { size } else { before + size }, Ordering::Relaxed);
    }
    // tgtd reads and writes what fills the last word, too.
    let size = size.max(1).saturating_add(3) & !3;
    // SAFETY: an alignment that is allowed; what is given is the caller's to free.
    let room = unsafe { libc::memalign(alignment, size) };
    if room.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: a place for the address, as the caller has promised.
    unsafe { *at = room };
    if in_loop && asked::given(room) {
        // Else a machine is sent what others wrote.
        // SAFETY: as many bytes as there is room for, given above.
        unsafe { room.write_bytes(0, size) };
    }
    0
}

/// Memory that was given out and not taken back, touched or not.
fn used() -> usize {
    // SAFETY: asks for nothing.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks.saturating_add(info.hblkhd)
}

/// The host's memory.
pub(crate) fn host() -> usize {
    static HOST: OnceLock<usize> = OnceLock::new();
    *HOST.get_or_init(|| {
        // SAFETY: plain questions.
        let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        usize::try_from(pages.saturating_mul(size)).unwrap_or(0)
    })
}

type Name = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

/// One end's address; nothing for a family without any.
fn ip_of(socket: RawFd, name: Name) -> Result<Option<SocketAddr>, ()> {
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
unsafe fn read(address: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: not null, and every address begins with its family.
    let family = unsafe { address.as_ref()?.sa_family };
    match c_int::from(family) {
        // SAFETY: an address of that family; it may lie anywhere.
        libc::AF_INET => Some(unsafe {
            let a = address.cast::<libc::sockaddr_in>().read_unaligned();
            SocketAddr::new(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)).into(), u16::from_be(a.sin_port))
        }),
        // SAFETY: as above.
        libc::AF_INET6 => Some(unsafe {
            let a = address.cast::<libc::sockaddr_in6>().read_unaligned();
            SocketAddr::new(Ipv6Addr::from(a.sin6_addr.s6_addr).into(), u16::from_be(a.sin6_port))
        }),
        _ => None,
    }
}

/// This host's addresses and their masks; none if they cannot be listed.
fn addresses() -> Option<Vec<(IpAddr, IpAddr)>> {
    let mut out = Vec::new();
    let mut all = null_mut();
    // SAFETY: a place for the list, which is walked while it stands and freed once.
    unsafe {
        if libc::getifaddrs(&raw mut all) != 0 {
            return None;
        }
        let mut at = all;
        while let Some(entry) = at.as_ref() {
            if let (Some(address), Some(mask)) = (read(entry.ifa_addr), read(entry.ifa_netmask)) {
                out.push((address.ip(), mask.ip()));
            }
            at = entry.ifa_next;
        }
        libc::freeifaddrs(all);
    }
    Some(out)
}
