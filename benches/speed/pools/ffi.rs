//! librados and librbd called bare, for the floor: what one clone, one write costs where nobody plans, marks or checks. It shares
//! nothing with bmid's own calls, so that a fault there does not hide here. Every failure ends the measurement.

#![allow(unsafe_code, reason = "C libraries without a safe wrapper, found at run time")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use libloading::Library;

type Raw = *mut c_void;
type Text = *const c_char;

/// As bmid makes its images: layering, exclusive-lock, object-map, fast-diff, deep-flatten; clones of the second kind.
const FEATURES: u64 = 1 | 4 | 8 | 16 | 32;
const OPTION_FEATURES: c_int = 1;
const OPTION_CLONE_FORMAT: c_int = 12;

/// A connected pool. It is never closed: it ends with this program.
pub(crate) struct Pool {
    rbd: Library,
    io: Raw,
}

// SAFETY: librados says that an I/O context may be used by many threads.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

fn text(s: &str) -> CString {
    CString::new(s).expect("no NUL in it")
}

fn check(what: &str, ret: c_int) {
    assert!(ret >= 0, "{what}: error {ret}");
}

/// A function of a library, for one call.
macro_rules! call {
    ($lib:expr, $f:ident($($t:ty),*) -> $r:ty, $($a:expr),*) => {{
        // SAFETY: the types are those of librados.h and librbd.h; texts and places outlive the call.
        unsafe {
            let f = $lib.get::<unsafe extern "C" fn($($t),*) -> $r>(stringify!($f).as_bytes()).expect(stringify!($f));
            f($($a),*)
        }
    }};
}

impl Pool {
    /// Connects as this user.
    pub(crate) fn connect(conf: &Path, keyring: &Path, user: &str, pool: &str) -> Pool {
        // SAFETY: loading runs the initialisers of libraries of the host's own packages, which expect that.
        let load = |name: &str| unsafe { Library::new(name) }.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (rados, rbd) = (load("librados.so.2"), load("librbd.so.1"));
        let (mut cluster, mut io): (Raw, Raw) = (null_mut(), null_mut());
        let (ceph, user, pool) = (text("ceph"), text(&format!("client.{user}")), text(pool));
        let (ceph, user, pool) = (ceph.as_ptr(), user.as_ptr(), pool.as_ptr());
        check("create", call!(rados, rados_create2(*mut Raw, Text, Text, u64) -> c_int, &mut cluster, ceph, user, 0));
        let conf = text(conf.to_str().expect("text"));
        check("conf", call!(rados, rados_conf_read_file(Raw, Text) -> c_int, cluster, conf.as_ptr()));
        let (key, value) = (text("keyring"), text(keyring.to_str().expect("text")));
        check("key", call!(rados, rados_conf_set(Raw, Text, Text) -> c_int, cluster, key.as_ptr(), value.as_ptr()));
        check("connect", call!(rados, rados_connect(Raw) -> c_int, cluster));
        check("pool", call!(rados, rados_ioctx_create(Raw, Text, *mut Raw) -> c_int, cluster, pool, &mut io));
        // Its threads live as long as this program.
        std::mem::forget(rados);
        Pool { rbd, io }
    }

    /// A clone of a golden image, of the kind and with the features that bmid's have.
    pub(crate) fn clone_of(&self, golden: &str, name: &str) {
        let (golden, snap, name, mut options) = (text(golden), text("base"), text(name), null_mut());
        call!(self.rbd, rbd_image_options_create(*mut Raw) -> (), &mut options);
        for (option, value) in [(OPTION_FEATURES, FEATURES), (OPTION_CLONE_FORMAT, 2)] {
            call!(self.rbd, rbd_image_options_set_uint64(Raw, c_int, u64) -> c_int, options, option, value);
        }
        let (golden, snap, name) = (golden.as_ptr(), snap.as_ptr(), name.as_ptr());
        let made = call!(self.rbd, rbd_clone3(Raw, Text, Text, Raw, Text, Raw) -> c_int,
            self.io, golden, snap, self.io, name, options);
        call!(self.rbd, rbd_image_options_destroy(Raw) -> (), options);
        check("clone", made);
    }

    /// Takes an image away for good.
    pub(crate) fn remove(&self, name: &str) {
        let name = text(name);
        check("remove", call!(self.rbd, rbd_remove(Raw, Text) -> c_int, self.io, name.as_ptr()));
    }

    /// Gives an image its size, and 64 KiB of data in so many places if they are not none.
    pub(crate) fn fill(&self, name: &str, size: u64, places: u64) {
        let (name, mut image) = (text(name), null_mut());
        let open = (name.as_ptr(), &mut image);
        check("open", call!(self.rbd, rbd_open(Raw, Text, *mut Raw, Text) -> c_int, self.io, open.0, open.1, null()));
        check("resize", call!(self.rbd, rbd_resize(Raw, u64) -> c_int, image, size));
        let data = [0x5a_u8; 64 << 10];
        for place in 0..places {
            let (at, from) = (size / places * place, data.as_ptr().cast());
            let n = call!(self.rbd, rbd_write(Raw, u64, usize, Text) -> isize, image, at, data.len(), from);
            assert_eq!(usize::try_from(n).ok(), Some(data.len()), "written");
        }
        check("close", call!(self.rbd, rbd_close(Raw) -> c_int, image));
    }

    /// Whether nothing lies in the trash.
    pub(crate) fn trash_is_empty(&self) -> bool {
        let mut room: usize = 0;
        // Without room it only says whether there are any.
        call!(self.rbd, rbd_trash_list(Raw, Raw, *mut usize) -> c_int, self.io, null_mut(), &mut room) == 0
    }
}
