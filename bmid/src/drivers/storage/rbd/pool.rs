//! A connected pool: what the driver does in it, each failure with what was tried, on what, and the error number's meaning.
//!
//! A call returns when Ceph has answered. While a cluster is away it may not return for long; then the engine's lane gives the
//! step up as unsure, and nothing is undone under it. Only questions are given up from here (`Pool::ask`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bmi::model::{Id, Kind, RbdPlace};
use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::ffi::Cluster;
use super::ffi::{Io, Missing, api};
use super::image::ffi::{Image, Which};
use super::names::{MARK, Mark, REGISTER, decode, encode};
use crate::drivers::DriverError;

/// What `DriverError` calls the failure of a call.
pub(super) fn failed(tried: &str, e: Errno) -> DriverError {
    let (kind, why, fix) = match e {
        Errno::ETIMEDOUT => (
            Kind::Unavailable,
            "Ceph does not answer",
            "look at `ceph -s` and at the way to its monitors; bmid goes on by itself when they answer again",
        ),
        Errno::ESHUTDOWN => (
            Kind::Unavailable,
            "Ceph has blocklisted this client",
            "`ceph osd blocklist ls` shows since when; bmid connects anew with the next step",
        ),
        Errno::ENOTCONN => (Kind::Unavailable, "the connection to Ceph is gone", "look at `ceph -s`"),
        Errno::ENOSPC | Errno::EDQUOT => (Kind::Full, "the pool is full", "add OSDs, raise its quota, or remove disks"),
        Errno::EACCES | Errno::EPERM => (
            Kind::Outside,
            "Ceph refuses it to this user",
            "give it the caps `mon 'profile rbd' osd 'profile rbd pool=POOL'`; `ceph auth get client.USER` shows what it has",
        ),
        _ => (Kind::Outside, "", "`ceph -s` and bmid's log may say more"),
    };
    let why = if why.is_empty() { format!("{} (error {})", e.desc(), e as i32) } else { format!("{why} ({e})") };
    DriverError { source: Some(Box::new(std::io::Error::from(e))), ..DriverError::new(kind, tried, why).fix(fix) }
}

/// `Ok(None)` for what is not there.
pub(super) fn absent<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn missing(tried: &str, e: &Missing) -> DriverError {
    DriverError::new(Kind::Unavailable, tried, e.to_string())
        .fix("install Ceph's client libraries on this host, Pacific (16) or later: `apt-get install librbd1 librados2`")
}

/// A connected pool.
pub(super) struct Pool {
    pub(super) io: Arc<Io>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) place: RbdPlace,
    asking: Arc<AtomicBool>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects, within seconds or not at all. The name of the failing part stands in the error.
    pub(super) fn connect(place: &RbdPlace) -> Result<Pool, DriverError> {
        let tried = format!("connect to pool {} as client.{} with {}", place.spec(), place.user, place.conf);
        api().map_err(|e| missing(&tried, &e))?;
        readable(&tried, &place.conf, "the cluster's configuration", "copy it from a host of the cluster")?;
        let key_fix = "have it from `ceph auth get client.USER` into a file that root alone may read";
        let mut options = vec![
            ("client_mount_timeout", "5"),
            ("rados_mon_op_timeout", "5"),
            ("log_to_stderr", "false"),
            ("err_to_stderr", "false"),
            ("log_file", ""),
            ("admin_socket", ""),
        ];
        if let Some(keyring) = &place.keyring {
            readable(&tried, keyring, "the keyring", key_fix)?;
            options.push(("keyring", keyring));
        }
        let refused = |(call, e): (&str, Errno)| match (call, e) {
            ("conf", e) => DriverError::new(
                Kind::Unavailable,
                tried.as_str(),
                format!("the configuration is not understood: {}", e.desc()),
            )
            .fix("`ceph --conf FILE -s` says what is wrong with it"),
            ("connect", Errno::EACCES | Errno::EPERM) => {
                let why =
                    format!("the cluster refuses client.{}: the keyring has no key of its, or an old one", place.user);
                DriverError::new(Kind::Unavailable, tried.as_str(), why).fix(key_fix)
            }
            ("connect", Errno::ENOENT | Errno::EINVAL) => {
                let why = format!("there is no key for client.{}, or no monitor in the configuration", place.user);
                DriverError::new(Kind::Unavailable, tried.as_str(), why).fix(key_fix)
            }
            ("connect", Errno::ETIMEDOUT) => {
                DriverError::new(Kind::Unavailable, tried.as_str(), "no monitor answers within 5 s").fix(
                    "look at `ceph -s` on the cluster, at mon_host in the configuration and at the network between",
                )
            }
            (_, e) => DriverError { kind: Kind::Unavailable, ..failed(&tried, e) },
        };
        let cluster = Arc::new(Cluster::connect(&place.user, &place.conf, &options).map_err(refused)?);
        let io =
            Io::open(&cluster, &place.pool, place.namespace.as_deref().unwrap_or_default()).map_err(|e| match e {
                Errno::ENOENT => DriverError::new(
                    Kind::Unavailable,
                    tried.as_str(),
                    format!("the cluster has no pool {}", place.pool),
                )
                .fix("`ceph osd pool ls` shows them; `ceph osd pool create` and `rbd pool init` make one"),
                e => DriverError { kind: Kind::Unavailable, ..failed(&tried, e) },
            })?;
        Ok(Pool { io: Arc::new(io), cluster, place: place.clone(), asking: Arc::default() })
    }

    /// Whether something was lost that only a new connection brings back.
    pub(super) fn is_lost(e: &DriverError) -> bool {
        let cause = e.source.as_deref().and_then(|s| s.downcast_ref::<std::io::Error>());
        matches!(cause.and_then(std::io::Error::raw_os_error), Some(libc::ESHUTDOWN | libc::ENOTCONN))
    }

    /// Asks without effect, for a few seconds at most: a cluster that is away must not hold those who only want to know.
    /// While one such question hangs, further ones are answered at once.
    pub(super) fn ask<T: Send + 'static>(
        self: &Arc<Pool>,
        tried: &str,
        patience: Duration,
        f: impl FnOnce(&Pool) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let silent = || failed(tried, Errno::ETIMEDOUT);
        if self.asking.load(Ordering::Acquire) {
            return Err(silent());
        }
        let (send, receive) = mpsc::channel();
        let (pool, late) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&late);
        let run = move || {
            let answer = f(&pool);
            // Nobody waits any more for what came late; that it came tells that Ceph answers.
            let _ = send.send(answer);
            if told.load(Ordering::Acquire) {
                pool.asking.store(false, Ordering::Release);
            }
        };
        std::thread::Builder::new()
            .name("bmid-ceph-ask".to_owned())
            .spawn(run)
            .map_err(|e| DriverError::io(tried, e))?;
        receive.recv_timeout(patience).unwrap_or_else(|_| {
            self.asking.store(true, Ordering::Release);
            late.store(true, Ordering::Release);
            // It may have ended in between.
            match receive.recv_timeout(Duration::from_millis(10)) {
                Ok(answer) => {
                    self.asking.store(false, Ordering::Release);
                    answer
                }
                Err(_) => Err(silent()),
            }
        })
    }

    /// The id of the image of that name.
    pub(super) fn id_of(&self, name: &str) -> Result<Option<String>, Errno> {
        let Some(bytes) = absent(self.io.read(&format!("rbd_id.{name}")))? else { return Ok(None) };
        let id = decode(&bytes).and_then(|b| std::str::from_utf8(b).ok()).filter(|id| !id.is_empty());
        Ok(id.map(str::to_owned))
    }

    /// The mark of an image; none on one that is half-made or not ours.
    pub(super) fn mark(&self, id: &str) -> Result<Option<Mark>, Errno> {
        let found = absent(self.io.exec(&format!("rbd_header.{id}"), "metadata_get", &encode(MARK.as_bytes())))?;
        Ok(found.as_deref().and_then(decode).and_then(|text| serde_json::from_slice(text).ok()))
    }

    /// Marks an image: from now on it is whole.
    pub(super) fn set_mark(&self, id: &str, mark: &Mark) -> Result<(), Errno> {
        let text = serde_json::to_vec(mark).map_err(|_| Errno::EINVAL)?;
        let mut input = 1u32.to_le_bytes().to_vec();
        input.extend(encode(MARK.as_bytes()));
        input.extend(encode(&text));
        self.io.exec(&format!("rbd_header.{id}"), "metadata_set", &input).map(drop)
    }

    /// How many snapshots an image has, those included that only wait for their children.
    pub(super) fn count_snaps(&self, id: &str) -> Result<u32, Errno> {
        let answer = self.io.exec(&format!("rbd_header.{id}"), "get_snapcontext", &[])?;
        // The newest snapshot's number, then how many there are, then their numbers.
        let count = answer.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        count.ok_or(Errno::EBADMSG)
    }

    pub(super) fn open(&self, which: Which<'_>) -> Result<Image, Errno> {
        Image::open(&self.io, which)
    }

    pub(super) fn open_read(&self, which: Which<'_>, snap: Option<&str>) -> Result<Image, Errno> {
        Image::open_read(&self.io, which, snap)
    }

    /// An entry of the register.
    pub(super) fn entry<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Errno> {
        // Keys come behind another, so the one asked for is the first that begins with itself.
        let found = self.entries::<T>(key)?;
        Ok(found.into_iter().find(|(k, _)| k == key).map(|(_, v)| v))
    }

    pub(super) fn set_entry(&self, key: &str, value: &impl Serialize) -> Result<(), Errno> {
        let text = serde_json::to_vec(value).map_err(|_| Errno::EINVAL)?;
        self.io.set_key(REGISTER, key, &text)
    }

    pub(super) fn remove_entry(&self, key: &str) -> Result<(), Errno> {
        absent(self.io.remove_key(REGISTER, key)).map(drop)
    }

    /// The entries whose key begins so. What cannot be read is another release's and left alone.
    pub(super) fn entries<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, Errno> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let Some((found, more)) = absent(self.io.keys(REGISTER, prefix, &after))? else { return Ok(all) };
            let last = found.last().map(|(key, _)| key.clone());
            all.extend(found.into_iter().filter_map(|(k, v)| Some((k, serde_json::from_slice(&v).ok()?))));
            match last {
                Some(last) if more => after = last,
                _ => return Ok(all),
            }
        }
    }
}

/// The keys of the register.
pub(super) fn store_key(datastore: Id) -> String {
    format!("store.{datastore}")
}

fn readable(tried: &str, path: &str, what: &str, fix: &str) -> Result<(), DriverError> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(e) => {
            let why = format!("{what} {path} cannot be read: {e}");
            Err(DriverError::new(Kind::Unavailable, tried, why).fix(fix))
        }
    }
}
