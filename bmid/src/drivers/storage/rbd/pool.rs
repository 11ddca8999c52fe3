//! A connected pool: what the driver does in it, each failure with what was tried, on what, and the error number's meaning.
//!
//! A call returns when Ceph has answered. While a cluster is away it may not return for long; then the engine's lane gives the
//! step up as unsure, and nothing is undone under it. Only questions are given up from here (`Pool::ask`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use bmi::model::{Id, Kind, RbdPlace};
use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::change::ffi::Change;
use super::cluster::ffi::{Cluster, VALIDATES};
use super::ffi::Io;
use super::image::ffi::{Image, Which};
use super::library::ffi::{Api, Missing};
use super::names::{MARK, Mark, REGISTER, decode, encode, gone};
use super::pattern::{Key, METADATA};
use super::recent::Recent;
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
        Errno::ENOSYS => (
            Kind::Unavailable,
            "Ceph's libraries on this host cannot do that",
            "install librbd1 and librados2 of Pacific (16) or later; `bmictl doctor` says what they lack",
        ),
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

/// What to do about a keyring.
const KEY_FIX: &str = "have it from `ceph auth get client.USER` into a file that root alone may read";

/// Why a cluster could not be connected to, by the call that failed.
fn refused(place: &RbdPlace, tried: &str, (call, e): (&str, Errno)) -> DriverError {
    match (call, e) {
            ("conf", e) => DriverError::new(
                Kind::Unavailable,
                tried,
                format!("the configuration is not understood: {}", e.desc()),
            )
            .fix("`ceph --conf FILE -s` says what is wrong with it"),
            ("connect", Errno::EACCES | Errno::EPERM) => {
                let why =
                    format!("the cluster refuses client.{}: the keyring has no key of its, or an old one", place.user);
                DriverError::new(Kind::Unavailable, tried, why).fix(KEY_FIX)
            }
            ("monitors", _) => DriverError::new(
                Kind::Unavailable,
                tried,
                format!("{} names no monitors", place.conf),
            )
            .fix("it needs a line `mon_host = ADDRESS,ADDRESS`; `ceph config generate-minimal-conf` on the cluster prints one"),
            ("connect", Errno::ENOENT | Errno::EINVAL) => {
                let why = format!("there is no keyring with a key for client.{} where the configuration looks", place.user);
                DriverError::new(Kind::Unavailable, tried, why)
                    .fix(format!("`ceph auth get client.{}` prints it; put it into a file that root alone may read, and say --keyring FILE", place.user))
            }
            ("connect", Errno::ETIMEDOUT) => {
                let fix = "look at `ceph -s` on the cluster, at mon_host in the configuration and at the network between";
                let source = Some(std::io::Error::from(e).into());
                DriverError { source, ..DriverError::new(Kind::Unavailable, tried, "no monitor answers within 5 s").fix(fix) }
            }
            (_, e) => DriverError { kind: Kind::Unavailable, ..failed(tried, e) },
        }
}

/// A connected pool.
pub(super) struct Pool {
    pub(super) io: Arc<Io>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) place: RbdPlace,
    pub(super) asking: Arc<AtomicBool>,
    /// Held while a mark is read, changed and written.
    pub(super) marks: Mutex<()>,
    pub(super) recent: Recent,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects, within seconds or not at all. The name of the failing part stands in the error.
    pub(super) fn connect(
        place: &RbdPlace,
        api: &dyn Fn() -> Result<&'static Api, Missing>,
    ) -> Result<Pool, DriverError> {
        Self::connect_with(place, api, &[])
    }

    /// Connects anew, with librbd looking whether the pool is one for images before it makes one; a release that has no such option looks.
    pub(super) fn strict(&self) -> Result<Pool, DriverError> {
        let option = self.cluster.setting(VALIDATES).is_ok().then_some((VALIDATES, "true"));
        Self::connect_with(&self.place, &|| Ok(self.cluster.api()), option.as_slice())
    }

    fn connect_with(
        place: &RbdPlace,
        api: &dyn Fn() -> Result<&'static Api, Missing>,
        more: &[(&str, &str)],
    ) -> Result<Pool, DriverError> {
        let tried = format!("connect to pool {} as client.{} with {}", place.spec(), place.user, place.conf);
        let api = api().map_err(|e| missing(&tried, &e))?;
        readable(&tried, &place.conf, "the cluster's configuration", "copy it from a host of the cluster")?;
        let mut options = more.to_vec();
        options.extend([
            ("client_mount_timeout", "5"),
            ("rados_mon_op_timeout", "5"),
            ("log_to_stderr", "false"),
            ("err_to_stderr", "false"),
            ("log_file", ""),
            ("admin_socket", ""),
        ]);
        if let Some(keyring) = &place.keyring {
            readable(&tried, keyring, "the keyring", KEY_FIX)?;
            options.push(("keyring", keyring));
        }
        let cluster =
            Arc::new(Cluster::connect(api, &place.user, &place.conf, &options).map_err(|e| refused(place, &tried, e))?);
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
        let (asking, marks, recent) = Default::default();
        Ok(Pool { io: Arc::new(io), cluster, place: place.clone(), asking, marks, recent })
    }

    /// Whether something was lost that only a new connection brings back.
    pub(super) fn is_lost(e: &DriverError) -> bool {
        let cause = e.source.as_deref().and_then(|s| s.downcast_ref::<std::io::Error>());
        matches!(cause.and_then(std::io::Error::raw_os_error), Some(libc::ESHUTDOWN | libc::ENOTCONN))
    }

    /// Whether Ceph did not answer in the time that librados gives it.
    pub(super) fn is_silent(e: &DriverError) -> bool {
        let cause = e.source.as_deref().and_then(|s| s.downcast_ref::<std::io::Error>());
        cause.and_then(std::io::Error::raw_os_error) == Some(libc::ETIMEDOUT)
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

    /// The namespace's name; empty for the pool's own.
    pub(super) fn namespace(&self) -> &str {
        self.place.namespace.as_deref().unwrap_or_default()
    }

    /// Puts an image into the trash. Where the host's librbd knows none, a name of ours serves as one.
    pub(super) fn trash(&self, name: &str) -> Result<(), Errno> {
        match self.io.trash(name) {
            Err(Errno::ENOSYS) => {
                let id = self.id_of(name)?.ok_or(Errno::ENOENT)?;
                self.rename(name, &gone(&self.place.prefix(), &id))
            }
            done => done,
        }
    }

    /// Gives an image another name. librbd writes the new name's object, then changes the directory, then removes the old name's object;
    /// one that was cut off between them is refused for ever by a second one, since the new name is taken: it is gone on with here.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let renamed = self.io.rename(from, to);
        if renamed != Err(Errno::EEXIST) {
            return renamed;
        }
        let Some(id) = self.id_of(from)? else { return Err(Errno::ENOENT) };
        if self.id_of(to)?.is_none_or(|other| other != id) {
            return renamed;
        }
        if self.is_listed(&id, to)? {
            return self.drop_name(from).map(drop);
        }
        self.drop_name(to)?;
        self.io.rename(from, to)
    }

    /// Whether the directory has an image under that name. One that is renamed has two names for a moment, and this is the one that counts.
    pub(super) fn is_listed(&self, id: &str, name: &str) -> Result<bool, Errno> {
        Ok(self.name_of(id)?.is_some_and(|listed| listed == name))
    }

    /// Removes the object of a name that is not, or no longer, its image's. False: there is none.
    pub(super) fn drop_name(&self, name: &str) -> Result<bool, Errno> {
        absent(self.io.remove_object(&id_object(name))).map(|gone| gone.is_some())
    }

    /// Takes away what is not whole. What has not even come so far that the trash takes it is removed at once: an image in its making, a
    /// name that leads to nothing. The trash takes what a client that died a moment ago still watches; a removal would be refused for half a
    /// minute.
    pub(super) fn discard(&self, name: &str) -> Result<bool, Errno> {
        match self.trash(name) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => self.drop_name(name),
            Err(_) => absent(self.io.remove(name)).map(|gone| gone.is_some()),
        }
    }

    /// Takes an entry out of the directory.
    pub(super) fn unlist(&self, name: &str, id: &str) -> Result<(), Errno> {
        self.io.exec(DIRECTORY, c"rbd", "dir_remove_image", &dir_entry(name, id)).map(drop)
    }

    /// All that is in the trash: id and the name it had, or has where there is no trash.
    pub(super) fn trashed(&self) -> Result<Vec<(String, String)>, Errno> {
        match self.io.trashed() {
            Err(Errno::ENOSYS) => {
                let mut all = self.io.list()?;
                all.retain(|(id, name)| *name == gone(&self.place.prefix(), id));
                Ok(all)
            }
            found => found,
        }
    }

    /// Whether an image is in the trash, or has its name where there is none.
    pub(super) fn is_trashed(&self, id: &str) -> Result<bool, Errno> {
        let found = absent(self.io.exec("rbd_trash", c"rbd", "trash_get", &encode(id.as_bytes())))?;
        Ok(found.is_some() || self.is_listed(id, &gone(&self.place.prefix(), id))?)
    }

    /// Removes what was put into the trash.
    pub(super) fn trash_remove(&self, id: &str) -> Result<(), Errno> {
        match self.io.trash_remove(id) {
            Err(Errno::ENOSYS) => self.io.remove(&gone(&self.place.prefix(), id)),
            done => done,
        }
    }

    /// The id of the image of that name.
    pub(super) fn id_of(&self, name: &str) -> Result<Option<String>, Errno> {
        let Some(bytes) = absent(self.io.read(&id_object(name)))? else { return Ok(None) };
        let id = decode(&bytes).and_then(|b| std::str::from_utf8(b).ok()).filter(|id| !id.is_empty());
        Ok(id.map(str::to_owned))
    }

    /// The mark of an image; none on one that is half-made or not ours. One that came with the bytes of a parent is none.
    pub(super) fn mark(&self, id: &str) -> Result<Option<Mark>, Errno> {
        let found = absent(self.io.exec(&header(id), c"rbd", "metadata_get", &encode(MARK.as_bytes())))?;
        let mark: Option<Mark> = found.as_deref().and_then(decode).and_then(|text| serde_json::from_slice(text).ok());
        Ok(mark.filter(|m| m.rbd == id))
    }

    /// Marks an image: from now on it is whole.
    pub(super) fn set_mark(&self, id: &str, mark: &Mark) -> Result<(), Errno> {
        let text = serde_json::to_vec(&Mark { rbd: id.to_owned(), ..mark.clone() }).map_err(|_| Errno::EINVAL)?;
        let mut input = 1u32.to_le_bytes().to_vec();
        input.extend(encode(MARK.as_bytes()));
        input.extend(encode(&text));
        let head = header(id);
        if !self.io.changes() {
            // It would make a header of its own where the image went meanwhile.
            return self.io.exec(&head, c"rbd", "metadata_set", &input).map(drop);
        }
        self.io.begin(&Change::there(&head).call(c"metadata_set", input))?.result()
    }

    /// What else stands in an image's metadata, as keys of its header. ERANGE: it is more than one answer holds, or no text.
    pub(super) fn metadata(&self, id: &str) -> Result<Vec<Key>, Errno> {
        let (mut found, more) = self.io.keys(&header(id), METADATA, "")?;
        found.retain(|(key, _)| key.strip_prefix(METADATA) != Some(MARK));
        if more || found.iter().any(|(key, _)| key.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(Errno::ERANGE);
        }
        Ok(found)
    }

    /// Takes our mark off.
    pub(super) fn unmark(&self, id: &str) -> Result<(), Errno> {
        absent(self.io.exec(&header(id), c"rbd", "metadata_remove", &encode(MARK.as_bytes()))).map(drop)
    }

    /// The name that an image has now.
    pub(super) fn name_of(&self, id: &str) -> Result<Option<String>, Errno> {
        let found = absent(self.io.exec(DIRECTORY, c"rbd", "dir_get_name", &encode(id.as_bytes())))?;
        Ok(found.as_deref().and_then(decode).and_then(|b| std::str::from_utf8(b).ok()).map(str::to_owned))
    }

    /// Changes an image's mark, if it has one; `change` says whether there is anything to write. One at a time: what happens in
    /// the background must not write an older note back.
    pub(super) fn change_mark(&self, id: &str, change: impl FnOnce(&mut Mark) -> bool) -> Result<bool, Errno> {
        let _one = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut mark) = self.mark(id)? else { return Ok(false) };
        if !change(&mut mark) {
            return Ok(false);
        }
        self.set_mark(id, &mark).map(|()| true)
    }

    /// An image's size.
    pub(super) fn size(&self, id: &str) -> Result<u64, Errno> {
        // Not that of a snapshot; the answer is the object size's order, then the size.
        let now = (u64::MAX - 1).to_le_bytes();
        let answer = self.io.exec(&header(id), c"rbd", "get_size", &now)?;
        answer.get(1..9).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or(Errno::EBADMSG)
    }

    /// The numbers of an image's snapshots, those included that only wait for their children.
    pub(super) fn snap_ids(&self, id: &str) -> Result<Vec<u64>, Errno> {
        let answer = self.io.exec(&header(id), c"rbd", "get_snapcontext", &[])?;
        // The newest snapshot's number, then how many there are, then their numbers.
        let count = answer.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let count = count.and_then(|n| usize::try_from(n).ok()).ok_or(Errno::EBADMSG)?;
        let all = answer[12..].chunks_exact(8).filter_map(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let all: Vec<u64> = all.take(count).collect();
        if all.len() == count { Ok(all) } else { Err(Errno::EBADMSG) }
    }

    /// Whether somebody holds an image's lock, or died holding it. The class `lock` is asked as librbd and the kernel ask it: one
    /// request, where librbd would open the image and watch it to say who.
    pub(super) fn is_locked(&self, id: &str) -> Result<bool, Errno> {
        let name = encode(b"rbd_lock");
        let mut input = vec![1, 1];
        input.extend(u32::try_from(name.len()).map_err(|_| Errno::EINVAL)?.to_le_bytes());
        input.extend(name);
        let answer = self.io.exec(&header(id), c"lock", "get_info", &input)?;
        // Versions and length, then how many hold it.
        let count = answer.get(6..10).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        count.map(|n| n > 0).ok_or(Errno::EBADMSG)
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

/// The object that holds all names and ids.
pub(super) const DIRECTORY: &str = "rbd_directory";

/// The object that holds the id of the image of that name.
pub(super) fn id_object(name: &str) -> String {
    format!("rbd_id.{name}")
}

/// The object that says which of an image's data objects there are.
pub(super) fn object_map(id: &str) -> String {
    format!("rbd_object_map.{id}")
}

/// An entry of the directory, as the class takes it.
pub(super) fn dir_entry(name: &str, id: &str) -> Vec<u8> {
    [encode(name.as_bytes()), encode(id.as_bytes())].concat()
}

/// The object that holds what an image is.
pub(super) fn header(id: &str) -> String {
    format!("rbd_header.{id}")
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
