//! LUNs whose disks are images in a pool, opened by tgtd's own rbd module.
//!
//! tgtd would connect to Ceph and open disks in the loop that also does all I/O. So the guard that is preloaded into it opens a disk when a
//! machine first asks for its bytes; Ceph is asked for it before, and tgtd gets a configuration of its own in which nothing
//! takes longer than seconds. Must never put a key into a request: tgtd writes those to its log.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bmi::model::{Id, Kind, RbdPlace};
use bmi::step::Lun;
use sha2::{Digest, Sha256};

use super::At;
use super::wire::Code;
use crate::drivers::{DriverError, Paths, host};

/// tgtd's rbd module, where Debian and its relatives put it.
const MODULES: [&str; 3] = [
    "/usr/lib/tgt/backing-store/bs_rbd.so",
    "/usr/lib64/tgt/backing-store/bs_rbd.so",
    "/usr/local/lib/tgt/backing-store/bs_rbd.so",
];

/// In what time Ceph has to answer a tgtd: I/O that takes longer ends in an error, and initiators try again. What a machine gives
/// back reads as zeros, as tgtd promises it: librbd would else keep what is no whole 64 KiB. And nothing is acknowledged before Ceph
/// has it: machines do not notice that a tgtd ended, so they would never write again what only that knew of.
const SETTINGS: &str = "client_mount_timeout = 5\nrados_mon_op_timeout = 5\nrados_osd_op_timeout = 10\n\
    rbd_skip_partial_discard = false\nrbd_cache = false\n";

/// Whether the disk is there and Ceph answers; its size in bytes.
pub(super) fn exists(at: &At<'_>, lun: &Lun) -> Result<u64, DriverError> {
    let (place, image) = parts(at, lun)?;
    at.pools()?.ready(place, image, &|| living(&at.paths))
}

/// Addresses of the connections to Ceph of all tgtds here that live, as the guard has noted them.
fn living(paths: &Paths) -> Vec<String> {
    let names = host::names(&paths.run.join("net")).unwrap_or_default();
    let of = |network: Id| {
        let noted = host::read(&paths.network(network).join("tgtd/rados")).ok().flatten().unwrap_or_default();
        let lives = |pid: &str| host::is_tgtd(&Path::new("/proc").join(pid), &paths.tgtd_ipc(network));
        let lines = noted.lines().filter_map(|l| l.split_once(' '));
        lines.filter(|(pid, _)| lives(pid)).map(|(_, addresses)| addresses.to_owned()).collect::<Vec<_>>()
    };
    names.iter().filter_map(|n| n.parse().ok()).flat_map(of).collect()
}

/// Has tgtd open it.
pub(super) fn open(at: &At<'_>, tid: u32, lun: &Lun) -> Result<(), DriverError> {
    if !MODULES.iter().any(|m| Path::new(m).exists()) {
        return Err(at
            .error(Kind::Unavailable, "tgtd's rbd module is not on this host")
            .fix("install it: `apt-get install tgt-rbd`; a tgtd that runs already finds it after its next start"));
    }
    guarded(at)?;
    let size = exists(at, lun)?;
    let (place, image) = parts(at, lun)?;
    let conf = conf(at, place)?;
    let options = format!("conf={};id={}", conf.display(), place.user);
    let _told = Told::new(at, place, image, size)?;
    match at.client.lun_rbd(tid, lun.number, &format!("{}/{image}", place.pool), &options) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.code(), Some(Code::INVALID)) => {
            let why = format!("tgtd cannot open {}; its log says why", lun.path);
            Err(at
                .error(Kind::Outside, why)
                .fix("a tgtd that was started before tgt-rbd was installed lacks the module: restart it"))
        }
        Err(e) => Err(at.failed(e)),
    }
}

/// A disk's size, told to the guard while tgtd is asked to open it: with that it need not open it yet.
struct Told(PathBuf);

impl Told {
    fn new(at: &At<'_>, place: &RbdPlace, image: &str, size: u64) -> Result<Told, DriverError> {
        let path = at.folder.join(format!("size.{}.{image}", place.pool));
        // Not synced: it is of no use after a crash.
        let written = std::fs::write(&path, size.to_string());
        written.map_err(|e| DriverError::io(format!("write {}", path.display()), e))?;
        Ok(Told(path))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // One that stays is written anew before it is read.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// librbd ends a process on a read of no bytes, which any machine may ask for: no disk of a pool without the guard.
fn guarded(at: &At<'_>) -> Result<(), DriverError> {
    if has_guard(at) {
        return Ok(());
    }
    Err(at
        .error(Kind::Unavailable, "that network's tgtd runs without libbmid_rbdguard.so: an empty read of any machine would end it")
        .fix("put that file beside bmid or into lib/bmid of its prefix, and restart that tgtd while its machines are off"))
}

/// Which tgtds were seen to run with the guard: a list of what a process has mapped is long where it has hundreds of threads.
#[derive(Debug, Default)]
pub(super) struct Guarded(Mutex<HashMap<PathBuf, (String, SystemTime)>>);

impl Guarded {
    fn all(&self) -> MutexGuard<'_, HashMap<PathBuf, (String, SystemTime)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the tgtd of that folder does. A tgtd that is started anew writes its number anew.
    fn has(&self, folder: &Path) -> bool {
        let file = folder.join("pid");
        let pid = host::read(&file).ok().flatten().unwrap_or_default();
        let Ok(written) = std::fs::metadata(&file).and_then(|m| m.modified()) else { return false };
        let this = (pid, written);
        if self.all().get(folder) == Some(&this) {
            return true;
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", this.0.trim())).unwrap_or_default();
        let has = maps.contains("libbmid_rbdguard.so");
        let mut all = self.all();
        // Networks that went are forgotten.
        all.retain(|folder, _| folder.exists());
        if has {
            all.insert(folder.to_owned(), this);
        }
        has
    }
}

/// Whether that tgtd runs with the guard.
pub(super) fn has_guard(at: &At<'_>) -> bool {
    at.guarded.has(&at.folder)
}

fn parts<'a>(at: &At<'_>, lun: &'a Lun) -> Result<(&'a RbdPlace, &'a str), DriverError> {
    let image = lun.path.strip_prefix("rbd:").and_then(|spec| spec.rsplit_once('/')).map(|(_, image)| image);
    match (&lun.pool, image) {
        (Some(pool), Some(image)) if pool.namespace.is_none() => Ok((pool, image)),
        (Some(_), Some(_)) => Err(at
            .error(Kind::Invalid, "tgtd's rbd module knows no namespaces: it would open another image, or none")
            .fix("use a datastore in a pool of its own")),
        _ => Err(at.error(Kind::Internal, format!("{} is no disk in a pool", lun.path))),
    }
}

/// Writes this tgtd's own configuration for a pool's cluster: the operator's, and our settings for our user.
fn conf(at: &At<'_>, place: &RbdPlace) -> Result<PathBuf, DriverError> {
    let path = at.folder.join(conf_name(place));
    let failed = |e| DriverError::io(format!("write {}", path.display()), e);
    let given = std::fs::read_to_string(&place.conf).map_err(|e| DriverError::io(format!("read {}", place.conf), e))?;
    let keyring = place.keyring.as_ref().map(|k| format!("keyring = {k}\n")).unwrap_or_default();
    let text =
        format!("{}\n[client.{}]\n{SETTINGS}log_file =\nadmin_socket =\n{keyring}", given.trim_end(), place.user);
    host::write_whole(&at.folder, &path, text.as_bytes()).map_err(failed)?;
    Ok(path)
}

fn conf_name(place: &RbdPlace) -> String {
    let key = format!("{}\0{}\0{}", place.conf, place.user, place.keyring.as_deref().unwrap_or_default());
    let digest = Sha256::digest(key.as_bytes());
    let id = Id::from_random(digest[..16].try_into().unwrap_or_default());
    format!("ceph-{}.conf", id.short())
}
