//! librados and librbd of the host, found when they are first needed: one bmid serves hosts with Ceph and without.
//!
//! Unsafe code of this driver's, beside `rbd/ffi.rs`, whose rules hold here too. What must be there is little and as old as
//! Pacific; of the rest each symbol that is absent is an ability that is off, told by name. A library once loaded is never
//! unloaded: its threads live as long as the process, and nothing of it is taken down when that ends.

#![allow(unsafe_code, reason = "C libraries without a safe wrapper, found at run time")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;
use nix::errno::Errno;

pub(in super::super) type Raw = *mut c_void;
pub(in super::super) type Text = *const c_char;

/// The smallest librbd that is used: Pacific. Its number is 1.16.
const OLDEST: c_int = 16;
pub(in super::super) const SNAP_OF_USER: c_int = 0;
pub(in super::super) const LOCK_EXCLUSIVE: c_int = 0;

/// Why there is no Ceph on this host.
#[derive(Debug, Clone, thiserror::Error)]
pub(in super::super) enum Missing {
    #[error("{0} cannot be loaded: {1}")]
    Library(&'static str, String),
    #[error("{0} of this host lacks {1}: it is older than Pacific (16)")]
    Symbol(&'static str, &'static str),
    #[error("librbd of this host is 1.{0}; Pacific (1.16) is the oldest that bmid uses")]
    Old(c_int),
}

/// What the host's libraries lack: the symbol, and what is off without it.
pub(in super::super) type Lacks = Vec<(&'static str, &'static str)>;

/// Where symbols are found. A test's may hide some.
#[derive(Clone, Copy)]
pub(in super::super) struct From<'a> {
    pub(in super::super) rados: &'a str,
    pub(in super::super) rbd: &'a str,
    pub(in super::super) hidden: &'a [&'a str],
}

/// The host's own.
pub(in super::super) const HOST: From<'static> = From { rados: "librados.so.2", rbd: "librbd.so.1", hidden: &[] };

/// Finds a symbol. The type is the caller's word.
fn find<T: Copy>(lib: &'static Library, name: &'static str, hidden: &[&str]) -> Option<T> {
    if hidden.contains(&name) {
        return None;
    }
    // SAFETY: the types are those of librados.h and librbd.h, unchanged from Pacific on; the library stays.
    unsafe { lib.get::<T>(name.as_bytes()) }.ok().map(|found| *found)
}

/// Declares a library's functions once: a struct of pointers, filled when the library is loaded. Those behind `may` are
/// optional, each with what is off without it.
macro_rules! library {
    ($name:ident in $lib:literal {
        $(fn $f:ident($($t:ty),*) $(-> $r:ty)?;)*
        $(may $what:literal { $(fn $o:ident($($u:ty),*) $(-> $s:ty)?;)* })*
    }) => {
        pub(in super::super) struct $name {
            $(pub(in super::super) $f: unsafe extern "C" fn($($t),*) $(-> $r)?,)*
            $($(pub(in super::super) $o: Option<unsafe extern "C" fn($($u),*) $(-> $s)?>,)*)*
        }

        impl $name {
            fn load(file: &str, hidden: &[&str], lacks: &mut Lacks) -> Result<$name, Missing> {
                // SAFETY: loading runs the initialisers of a library of the host's own package, which expect that.
                let lib = unsafe { Library::new(file) }.map_err(|e| Missing::Library($lib, e.to_string()))?;
                let lib: &'static Library = Box::leak(Box::new(lib));
                let loaded = $name {
                    $($f: find(lib, stringify!($f), hidden).ok_or(Missing::Symbol($lib, stringify!($f)))?,)*
                    $($($o: find(lib, stringify!($o), hidden),)*)*
                };
                $($(if loaded.$o.is_none() {
                    lacks.push((stringify!($o), $what));
                })*)*
                Ok(loaded)
            }
        }
    };
}

library!(Rados in "librados" {
    fn rados_create2(*mut Raw, Text, Text, u64) -> c_int;
    fn rados_conf_read_file(Raw, Text) -> c_int;
    fn rados_conf_get(Raw, Text, *mut c_char, usize) -> c_int;
    fn rados_conf_set(Raw, Text, Text) -> c_int;
    fn rados_connect(Raw) -> c_int;
    fn rados_shutdown(Raw);
    fn rados_mon_command(Raw, *const Text, usize, Text, usize, *mut *mut c_char, *mut usize, *mut *mut c_char, *mut usize) -> c_int;
    fn rados_buffer_free(*mut c_char);
    fn rados_ioctx_create(Raw, Text, *mut Raw) -> c_int;
    fn rados_ioctx_destroy(Raw);
    fn rados_exec(Raw, Text, Text, Text, Text, usize, *mut c_char, usize) -> c_int;
    fn rados_read(Raw, Text, *mut c_char, usize, u64) -> c_int;
    fn rados_remove(Raw, Text) -> c_int;
    fn rados_create_write_op() -> Raw;
    fn rados_release_write_op(Raw);
    fn rados_write_op_omap_set(Raw, *const Text, *const Text, *const usize, usize);
    fn rados_write_op_omap_rm_keys(Raw, *const Text, usize);
    fn rados_write_op_operate(Raw, Raw, Text, *mut libc::time_t, c_int) -> c_int;
    fn rados_create_read_op() -> Raw;
    fn rados_release_read_op(Raw);
    fn rados_read_op_omap_get_vals2(Raw, Text, Text, u64, *mut Raw, *mut u8, *mut c_int);
    fn rados_read_op_operate(Raw, Raw, Text, c_int) -> c_int;
    fn rados_omap_get_next(Raw, *mut *mut c_char, *mut *mut c_char, *mut usize) -> c_int;
    fn rados_omap_get_end(Raw);
    may "namespaces of a pool cannot be used" {
        fn rados_ioctx_set_namespace(Raw, Text);
    }
    may "the lock of an owner that died is not broken: the first write after a crash of tgtd waits half a minute" {
        fn rados_getaddrs(Raw, *mut *mut c_char) -> c_int;
    }
    may "each disk is cloned by librbd, which takes three times as long" {
        fn rados_ioctx_get_id(Raw) -> i64;
        fn rados_write_op_create(Raw, c_int, Text);
        fn rados_write_op_assert_exists(Raw);
        fn rados_write_op_exec(Raw, Text, Text, Text, usize, *mut c_int);
        fn rados_aio_create_completion2(Raw, Raw, *mut Raw) -> c_int;
        fn rados_aio_write_op_operate(Raw, Raw, Raw, Text, *mut libc::time_t, c_int) -> c_int;
        fn rados_aio_wait_for_complete(Raw) -> c_int;
        fn rados_aio_get_return_value(Raw) -> c_int;
        fn rados_aio_release(Raw);
    }
});

library!(Rbd in "librbd" {
    fn rbd_version(*mut c_int, *mut c_int, *mut c_int);
    fn rbd_image_options_create(*mut Raw);
    fn rbd_image_options_set_uint64(Raw, c_int, u64) -> c_int;
    fn rbd_image_options_destroy(Raw);
    fn rbd_create4(Raw, Text, u64, Raw) -> c_int;
    fn rbd_clone3(Raw, Text, Text, Raw, Text, Raw) -> c_int;
    fn rbd_remove(Raw, Text) -> c_int;
    fn rbd_rename(Raw, Text, Text) -> c_int;
    fn rbd_list2(Raw, *mut Spec, *mut usize) -> c_int;
    fn rbd_image_spec_list_cleanup(*mut Spec, usize);
    fn rbd_open(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_read_only(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_by_id(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_by_id_read_only(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_close(Raw) -> c_int;
    fn rbd_get_size(Raw, *mut u64) -> c_int;
    fn rbd_resize(Raw, u64) -> c_int;
    fn rbd_read(Raw, u64, usize, *mut c_char) -> isize;
    fn rbd_write(Raw, u64, usize, Text) -> isize;
    fn rbd_flush(Raw) -> c_int;
    fn rbd_snap_create(Raw, Text) -> c_int;
    fn rbd_snap_remove(Raw, Text) -> c_int;
    fn rbd_snap_list(Raw, *mut Snap, *mut c_int) -> c_int;
    fn rbd_snap_list_end(*mut Snap);
    may "disks are read whole, their zeros too, when they are exported or summed up" {
        fn rbd_diff_iterate2(Raw, Text, u64, u64, u8, u8, extern "C" fn(u64, usize, c_int, Raw) -> c_int, Raw) -> c_int;
    }
    may "removed disks wait for their end under names of their own, and not in the trash where `rbd trash ls` shows them" {
        fn rbd_trash_move(Raw, Text, u64) -> c_int;
        fn rbd_trash_list(Raw, *mut Trashed, *mut usize) -> c_int;
        fn rbd_trash_list_cleanup(*mut Trashed, usize);
        fn rbd_trash_remove(Raw, Text, bool) -> c_int;
    }
    may "snapshots in an image's trash are taken for snapshots of its users" {
        fn rbd_snap_get_namespace_type(Raw, u64, *mut c_int) -> c_int;
    }
    may "an image whose last clone was cut off in its end stays in the trash" {
        fn rbd_snap_remove_by_id(Raw, u64) -> c_int;
    }
    may "chains of clones are not flattened: disks become slower with each rollback, and images of nodes keep hanging on them" {
        fn rbd_flatten(Raw) -> c_int;
    }
    may "the lock of an owner that died is not broken: the first write after a crash of tgtd waits half a minute" {
        fn rbd_lock_get_owners(Raw, *mut c_int, *mut *mut c_char, *mut usize) -> c_int;
        fn rbd_lock_get_owners_cleanup(*mut *mut c_char, usize);
        fn rbd_lock_break(Raw, c_int, Text) -> c_int;
    }
    may "what is in a pool already cannot be taken over (image import --from-rbd)" {
        fn rbd_get_features(Raw, *mut u64) -> c_int;
    }
    may "what is in a pool already cannot be taken over in place (image import --from-rbd --in-place)" {
        fn rbd_watchers_list(Raw, *mut Watcher, *mut usize) -> c_int;
        fn rbd_watchers_list_cleanup(*mut Watcher, usize);
    }
});

/// Who watches an image: whoever has it open to change it.
#[repr(C)]
pub(in super::super) struct Watcher {
    pub(in super::super) address: *mut c_char,
    pub(in super::super) id: i64,
    pub(in super::super) cookie: u64,
}

#[repr(C)]
pub(in super::super) struct Spec {
    pub(in super::super) id: *mut c_char,
    pub(in super::super) name: *mut c_char,
}

#[repr(C)]
pub(in super::super) struct Trashed {
    pub(in super::super) id: *mut c_char,
    pub(in super::super) name: *mut c_char,
    source: c_int,
    deleted: libc::time_t,
    deferred: libc::time_t,
}

#[repr(C)]
pub(in super::super) struct Snap {
    pub(in super::super) id: u64,
    pub(in super::super) size: u64,
    pub(in super::super) name: *const c_char,
}

/// Both libraries.
pub(in super::super) struct Api {
    pub(in super::super) rados: Rados,
    pub(in super::super) rbd: Rbd,
    pub(in super::super) lacks: Lacks,
    /// librbd's: 16 is Pacific.
    pub(in super::super) release: c_int,
}

/// The host's libraries. Looked for again each time until they are found: they may be installed under a running bmid.
pub(in super::super) fn api() -> Result<&'static Api, Missing> {
    static FOUND: OnceLock<Api> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let api = load(HOST)?;
    Ok(FOUND.get_or_init(|| api))
}

unsafe extern "C" {
    fn on_exit(then: extern "C" fn(c_int, Raw), with: Raw) -> c_int;
}

/// Ends the process at once. What would come behind are the libraries' destructors, under their own threads and under calls
/// of ours that still run: a process in order would end by a segmentation fault.
extern "C" fn leave(status: c_int, _: Raw) {
    // SAFETY: it never returns, and Rust's standard library has written out what it had to before exit() came here.
    unsafe { libc::_exit(status) }
}

/// Loads both and looks whether they are new enough.
pub(in super::super) fn load(from: From<'_>) -> Result<Api, Missing> {
    let mut lacks = Lacks::new();
    let rados = Rados::load(from.rados, from.hidden, &mut lacks)?;
    let rbd = Rbd::load(from.rbd, from.hidden, &mut lacks)?;
    // SAFETY: a function without captures. Registered behind the libraries' own, it runs before them.
    unsafe { on_exit(leave, std::ptr::null_mut()) };
    let (mut major, mut minor, mut extra) = (0, 0, 0);
    // SAFETY: three integers to be filled.
    unsafe { (rbd.rbd_version)(&mut major, &mut minor, &mut extra) };
    if (major, minor) < (1, OLDEST) {
        return Err(Missing::Old(minor));
    }
    Ok(Api { rados, rbd, lacks, release: minor })
}

pub(in super::super) fn text(s: &str) -> Result<CString, Errno> {
    CString::new(s).map_err(|_| Errno::EINVAL)
}

pub(in super::super) fn check(ret: c_int) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::from_raw(ret.saturating_neg()))
}

pub(in super::super) fn count(ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::from_raw(c_int::try_from(ret.saturating_neg()).unwrap_or(libc::EIO)))
}

pub(in super::super) fn owned(s: *const c_char) -> String {
    if s.is_null() {
        return String::new();
    }
    // SAFETY: the libraries give texts that end with NUL, and only texts they own until we give them back.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

/// Asks with room for ever more until the answer fits; `ask` gets the room and fills it, and says how many there are.
pub(in super::super) fn listed<T, R>(
    mut ask: impl FnMut(*mut T, &mut usize) -> c_int,
    take: impl Fn(&T) -> R,
) -> Result<(Vec<T>, Vec<R>), Errno> {
    let mut room = 256;
    loop {
        let mut list: Vec<T> = Vec::with_capacity(room);
        let mut n = room;
        match check(ask(list.as_mut_ptr(), &mut n)) {
            Err(Errno::ERANGE) => room = n.max(room * 2),
            Err(e) => return Err(e),
            Ok(_) => {
                // SAFETY: the call filled the first `n` places, and `n` is at most the room it was told.
                unsafe { list.set_len(n.min(room)) };
                let taken = list.iter().map(take).collect();
                return Ok((list, taken));
            }
        }
    }
}
