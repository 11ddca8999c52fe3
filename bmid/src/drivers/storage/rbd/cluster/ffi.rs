//! A connection to a cluster: unsafe code of this driver's, beside `rbd/ffi.rs`, whose rules hold here too.

#![allow(unsafe_code, reason = "a C library without a safe wrapper, found at run time")]

use std::ptr::{null, null_mut};

use nix::errno::Errno;
use zeroize::Zeroizing;

use super::super::library::ffi::{Api, Raw, check, owned, text};
use super::super::names::same_client;

/// What librados and librbd gather about themselves in memory, beyond what they log, and what of it is usual: some 3 % of this
/// process's work while it clones. It would be told when they end the process, to a log that they have not.
const GATHERED: [(&str, &str); 9] = [
    ("debug_rbd", "0/5"),
    ("debug_rados", "0/5"),
    ("debug_objecter", "0/1"),
    ("debug_objectcacher", "0/5"),
    ("debug_monc", "0/10"),
    ("debug_auth", "1/5"),
    ("debug_finisher", "1/1"),
    ("debug_throttle", "1/1"),
    ("debug_timer", "0/1"),
];

/// Whether librbd makes certain, before it makes an image, that its pool is one for images. It would for every image; bmid has it do so
/// when a datastore is made.
pub(in super::super) const VALIDATES: &str = "rbd_validate_pool";

/// How many requests librbd has under way when it removes, flattens or shrinks an image. Its usual ten fill a small cluster, and what bmid does
/// of that kind is done behind everybody's back.
const AT_ONCE: (&str, &str, &str) = ("rbd_concurrent_management_ops", "10", "2");

/// One thread for what Ceph answers, on every host: with three, clones are some 6 % faster, but in the one run of all tests with them a process
/// ended with its heap written over. Whose fault that was is not known; with one it was never seen.
const ANSWERING: (&str, &str, &str) = ("librados_thread_count", "2", "1");

/// A connection to a cluster.
pub(in super::super) struct Cluster {
    api: &'static Api,
    raw: Raw,
}

// SAFETY: librados says that a cluster's handle may be used by many threads.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Cluster {
    pub(in super::super) fn api(&self) -> &'static Api {
        self.api
    }

    pub(in super::super) fn raw(&self) -> Raw {
        self.raw
    }

    /// Connects as `client.<user>`. Says which call failed.
    pub(in super::super) fn connect(
        api: &'static Api,
        user: &str,
        conf: &str,
        options: &[(&str, &str)],
    ) -> Result<Cluster, (&'static str, Errno)> {
        let at = |call| move |e| (call, e);
        let name = text(&format!("client.{user}")).map_err(at("create"))?;
        let mut raw = null_mut();
        // SAFETY: texts that outlive the call, and a place for the handle.
        check(unsafe { (api.rados.rados_create2)(&mut raw, c"ceph".as_ptr(), name.as_ptr(), 0) })
            .map_err(at("create"))?;
        let cluster = Cluster { api, raw };
        let conf = text(conf).map_err(at("conf"))?;
        // SAFETY: a handle that was just made and a text that outlives the call.
        check(unsafe { (api.rados.rados_conf_read_file)(raw, conf.as_ptr()) }).map_err(at("conf"))?;
        let gathered = GATHERED.map(|(key, usual)| (key, usual, "0/0"));
        for (key, usual, better) in gathered.into_iter().chain([(VALIDATES, "true", "false"), AT_ONCE, ANSWERING]) {
            // What the operator's configuration says otherwise stays; what this release does not know is not there to be better.
            if cluster.setting(key).is_ok_and(|now| *now == *usual) {
                cluster.set(key, better).map_err(at("option"))?;
            }
        }
        for (key, value) in options {
            cluster.set(key, value).map_err(at("option"))?;
        }
        // SAFETY: as above; it is connected once.
        match check(unsafe { (api.rados.rados_connect)(raw) }) {
            Ok(_) => Ok(cluster),
            Err(e @ (Errno::ENOENT | Errno::EINVAL)) if cluster.setting("mon_host").is_ok_and(|m| m.is_empty()) => {
                Err(("monitors", e))
            }
            Err(e) => Err(("connect", e)),
        }
    }

    /// What the configuration says, for a key that there is; up to 4 KiB. Wiped when it goes: it may be a user's key.
    pub(in super::super) fn setting(&self, key: &str) -> Result<Zeroizing<String>, Errno> {
        let (key, mut out) = (text(key)?, Zeroizing::new(vec![0u8; 4 << 10]));
        // SAFETY: a handle, a text that outlives the call and a buffer of the length told, which ends with NUL when filled.
        check(unsafe { (self.api.rados.rados_conf_get)(self.raw, key.as_ptr(), out.as_mut_ptr().cast(), out.len()) })?;
        Ok(Zeroizing::new(owned(out.as_ptr().cast())))
    }

    /// Whether a client's address, as librbd tells it of a lock's owner, is this connection's.
    pub(in super::super) fn is_own(&self, address: &str) -> Result<bool, Errno> {
        let (get, mut raw) = (self.api.rados.rados_getaddrs.ok_or(Errno::ENOSYS)?, null_mut());
        // SAFETY: a connected handle and a place for a text that librados allocates.
        check(unsafe { get(self.raw, &mut raw) })?;
        let ours = owned(raw);
        // SAFETY: librados allocated it for us.
        unsafe { (self.api.rados.rados_buffer_free)(raw) };
        Ok(same_client(&ours, address))
    }

    /// Sets an option, before it is connected. Later it must not be: librados of Pacific may then wait for an image that is being closed,
    /// and that for the option, for ever.
    fn set(&self, key: &str, value: &str) -> Result<(), Errno> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: a handle that nobody else has yet, and texts that outlive the call.
        check(unsafe { (self.api.rados.rados_conf_set)(self.raw, key.as_ptr(), value.as_ptr()) }).map(drop)
    }

    /// Asks the monitors; `command` is JSON, so is the answer.
    pub(in super::super) fn ask(&self, command: &str) -> Result<Vec<u8>, Errno> {
        let command = text(command)?;
        let (mut out, mut out_len, mut said, mut said_len) = (null_mut(), 0, null_mut(), 0);
        let api = &self.api.rados;
        // SAFETY: one command that outlives the call, no input, and places for what librados allocates.
        let ret = unsafe {
            let words = [command.as_ptr()];
            (api.rados_mon_command)(
                self.raw,
                words.as_ptr(),
                1,
                null(),
                0,
                &mut out,
                &mut out_len,
                &mut said,
                &mut said_len,
            )
        };
        let answer = if out.is_null() {
            Vec::new()
        } else {
            // SAFETY: librados allocated so many bytes.
            unsafe { std::slice::from_raw_parts(out.cast::<u8>(), out_len) }.to_vec()
        };
        for buffer in [out, said] {
            if !buffer.is_null() {
                // SAFETY: librados allocated it for us, and nothing points into it any more.
                unsafe { (api.rados_buffer_free)(buffer) };
            }
        }
        check(ret).map(|_| answer)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: the handle's one owner ends; whatever came out of it holds an `Arc` of it and has ended before.
        unsafe { (self.api.rados.rados_shutdown)(self.raw) };
    }
}
