//! The kernel's RBD client: disks of pools as block devices, mapped and unmapped through `/sys/bus/rbd`. No `rbd` program, no udev.
//!
//! `maps` reads what is mapped, `hand` writes (`errand` where another process must), `key` gives the kernel a key, `told` says what a refusal means. It stands beside
//! the families because two of them need it: targets export the device, datastores take the disk away. The kernel keeps all
//! there is to know, so a restart forgets nothing. It must never unmap what does not fit, in cluster, pool, namespace and name,
//! a disk that the caller names as its own.

mod errand;
mod hand;
mod key;
mod maps;
mod told;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bmi::model::Kind;
use nix::errno::Errno;

pub(crate) use self::errand::Unit;
#[cfg(test)]
pub(crate) use self::hand::Refusal;
pub(crate) use self::hand::{Direct, Hand};
pub use self::key::KeyFile;
pub(crate) use self::maps::Map;
use crate::drivers::DriverError;

/// What the kernel's client has to know of the images we make: layering, exclusive-lock, object-map, fast-diff, deep-flatten.
const FEATURES: u64 = 1 | 4 | 8 | 16 | 32;
/// What a disk's I/O and a connection may take, in seconds: longer than Ceph needs to notice a dead OSD and go on with another,
/// and about what a machine's initiator gives a command.
const LIMITS: &str = "osd_request_timeout=30,mount_timeout=10";
/// How long whoever has a device open for a moment (udev looks into it) is waited for.
const LET_GO: Duration = Duration::from_secs(5);

/// A disk as the kernel's client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The cluster's id.
    pub fsid: String,
    /// The pool.
    pub pool: String,
    /// The namespace; empty for the pool's own.
    pub namespace: String,
    /// The image's name.
    pub image: String,
}

/// Everything the kernel needs to reach a disk. No secret: the key is read when it is handed over.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The disk.
    pub disk: Disk,
    /// The image's id: another image may have had its name.
    pub id: String,
    /// Where the monitors speak the kernel's protocol: `address:port`.
    pub monitors: Vec<String>,
    /// The Ceph user, without `client.`.
    pub user: String,
    /// Its key.
    pub key: KeyFile,
}

/// What became of a map that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// There is none.
    Nothing,
    /// It is gone now.
    Unmapped,
    /// Somebody has the device open.
    Busy(PathBuf),
}

/// The kernel's client.
pub(crate) struct Krbd {
    sys: PathBuf,
    hand: Box<dyn Hand>,
    named: AtomicU64,
}

impl std::fmt::Debug for Krbd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Krbd").field("sys", &self.sys).finish_non_exhaustive()
    }
}

impl Krbd {
    /// This host's, spoken to by this process.
    pub(crate) fn direct() -> Krbd {
        Krbd::new(Path::new("/sys"), Box::new(Direct))
    }

    /// This host's, spoken to by units of systemd's; with bmid's run folder.
    pub(crate) fn by_units(run: &Path) -> Krbd {
        Krbd::new(Path::new("/sys"), Box::new(Unit::new(run)))
    }

    /// With another hand, or another place of the kernel's files.
    pub(crate) fn new(sys: &Path, hand: Box<dyn Hand>) -> Krbd {
        Krbd { sys: sys.to_owned(), hand, named: AtomicU64::new(0) }
    }

    /// Why the kernel cannot serve our disks; `None` if it can, or could with a module that is there to be loaded.
    pub(crate) fn lacking(&self, tried: &str) -> Option<DriverError> {
        if !self.bus().exists() {
            return (!self.hand.loadable()).then(|| told::no_module(tried));
        }
        let known = std::fs::read_to_string(self.bus().join("supported_features")).unwrap_or_default();
        let known = u64::from_str_radix(known.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        (known & FEATURES != FEATURES).then(|| told::too_old(tried, known))
    }

    /// What `DEVICE` is, as paths of backings are told: `rbd:POOL/NAMESPACE/IMAGE`. None for what is no device of ours.
    pub(crate) fn name(&self, device: &str) -> Option<String> {
        let number = device.strip_prefix("/dev/rbd")?.parse().ok()?;
        let map = Map::read(&self.bus(), number)?;
        let slash = if map.disk.namespace.is_empty() { "" } else { "/" };
        (!map.snap).then(|| format!("rbd:{}{slash}{}/{}", map.disk.pool, map.disk.namespace, map.disk.image))
    }

    /// Addresses of this kernel's clients: locks of theirs are held by the living.
    pub(crate) fn clients(&self) -> Vec<String> {
        let mut all: Vec<String> = Map::all(&self.bus()).into_iter().map(|m| m.client).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The device of a disk that is mapped. A map of another image that had the disk's name is taken away.
    pub(crate) fn mapped(&self, tried: &str, reach: &Reach) -> Result<Option<PathBuf>, DriverError> {
        for map in self.fitting(&reach.disk) {
            if map.id == reach.id {
                return Ok(Some(map.device()));
            }
            if let Left::Busy(device) = self.remove(tried, &map)? {
                return Err(told::busy(tried, &device));
            }
        }
        Ok(None)
    }

    /// Maps a disk, unless it is mapped: its device.
    pub(crate) fn map(&self, tried: &str, reach: &Reach) -> Result<PathBuf, DriverError> {
        if let Some(device) = self.mapped(tried, reach)? {
            return Ok(device);
        }
        if !self.bus().exists() {
            self.hand.load();
        }
        if let Some(lacking) = self.lacking(tried) {
            return Err(lacking);
        }
        if reach.monitors.is_empty() {
            return Err(told::no_monitor(tried));
        }
        let key = key::name(self.named.fetch_add(1, Ordering::Relaxed));
        let line = line(reach, &key).ok_or_else(|| told::unfit(tried))?;
        let refused = |r| told::refused(tried, reach, &r);
        self.hand.write(&self.file("add"), &line, Some((&key, &reach.key))).map_err(refused)?;
        self.mapped(tried, reach)?.ok_or_else(|| told::nothing_came(tried))
    }

    /// Takes the maps of a disk away; one try, and nobody is waited for.
    pub(crate) fn try_unmap(&self, tried: &str, disk: &Disk) -> Result<Left, DriverError> {
        let mut left = Left::Nothing;
        for map in self.fitting(disk) {
            match self.remove(tried, &map)? {
                Left::Nothing => {}
                Left::Unmapped => left = Left::Unmapped,
                busy @ Left::Busy(_) => return Ok(busy),
            }
        }
        Ok(left)
    }

    /// Takes the maps of a disk away. True: there was one. `held` is asked whether whoever has it open may keep it.
    pub(crate) fn unmap(&self, tried: &str, disk: &Disk, held: impl Fn(&Path) -> bool) -> Result<bool, DriverError> {
        let (end, mut pause) = (Instant::now() + LET_GO, Duration::from_millis(2));
        loop {
            match self.try_unmap(tried, disk)? {
                Left::Nothing => return Ok(false),
                Left::Unmapped => return Ok(true),
                Left::Busy(device) if held(&device) => return Ok(false),
                Left::Busy(device) if Instant::now() > end => return Err(told::busy(tried, &device)),
                Left::Busy(_) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn bus(&self) -> PathBuf {
        self.sys.join("bus/rbd")
    }

    /// The file that takes a line: kernels with one device number for all maps take it through a file of another name only.
    fn file(&self, verb: &str) -> PathBuf {
        let single = self.bus().join(format!("{verb}_single_major"));
        if single.exists() { single } else { self.bus().join(verb) }
    }

    fn fitting(&self, disk: &Disk) -> impl Iterator<Item = Map> + use<'_> {
        let disk = disk.clone();
        Map::all(&self.bus()).into_iter().filter(move |m| !m.snap && m.disk == disk)
    }

    fn remove(&self, tried: &str, map: &Map) -> Result<Left, DriverError> {
        // The number may have become another's since it was read.
        if Map::read(&self.bus(), map.number).as_ref() != Some(map) {
            return Ok(Left::Nothing);
        }
        match self.hand.write(&self.file("remove"), &map.number.to_string(), None) {
            Ok(()) => Ok(Left::Unmapped),
            Err(hand::Refusal::Said(Errno::EBUSY | Errno::EINPROGRESS)) => Ok(Left::Busy(map.device())),
            // Somebody else was quicker.
            Err(hand::Refusal::Said(Errno::ENOENT)) if Map::read(&self.bus(), map.number).is_none() => {
                Ok(Left::Nothing)
            }
            Err(refusal) => Err(told::kept(tried, &map.device(), &refusal)),
        }
    }
}

/// Carries out the one order in a folder, for a bmid that may not itself.
#[must_use]
pub fn carry_out(folder: &Path) -> bool {
    errand::carry_out(folder, Path::new("/sys"))
}

/// What the kernel is told to map a disk; none if a word of it would be read as something else.
fn line(reach: &Reach, key: &str) -> Option<String> {
    let Disk { pool, namespace, image, .. } = &reach.disk;
    let plain = |w: &str| !w.is_empty() && !w.contains([',', '=', '/', '@']) && w.chars().all(|c| c.is_ascii_graphic());
    let words = [pool.as_str(), image.as_str(), reach.user.as_str()];
    let addresses = reach.monitors.iter().all(|m| plain(m));
    if !words.into_iter().all(plain) || !addresses || !(namespace.is_empty() || plain(namespace)) {
        return None;
    }
    let inside = if namespace.is_empty() { String::new() } else { format!(",_pool_ns={namespace}") };
    let (monitors, user) = (reach.monitors.join(","), &reach.user);
    Some(format!("{monitors} name={user},key={key},{LIMITS}{inside} {pool} {image} -"))
}

/// What a map is refused with that is no disk of a pool.
pub(crate) fn no_disk(tried: &str, path: &str) -> DriverError {
    DriverError::new(Kind::Internal, tried, format!("{path} is no disk in a pool"))
}

#[cfg(test)]
mod tests;
