//! What a datastore can and has, and what is wrong with the tools: answers without effect.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bmi::model::{Bytes, Id, Place};
use bmi::step::{DatastoreFacts, Finding, Severity};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::fstatvfs;

use super::{Manager, dir, ffi, place, root, tool};
use crate::drivers::DriverError;

/// What was found out already. Lost at a restart and found again: it only saves work.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether a file system (by its device number) can share bytes between files.
    reflinks: Mutex<HashMap<u64, bool>>,
    /// Which datastores were asked about: what the doctor looks at.
    places: Mutex<BTreeMap<Id, String>>,
}

impl Known {
    pub(super) fn saw(&self, datastore: Id, path: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.get(&datastore).is_none_or(|p| p != path) {
            places.insert(datastore, path.to_owned());
        }
    }

    pub(super) fn forget(&self, datastore: Id) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&datastore);
    }

    /// Answers for a datastore, or for what one would have in a folder that is not there yet.
    pub(super) fn datastore(&self, datastore: Id, path: &str) -> Result<DatastoreFacts, DriverError> {
        let place = Place::Folder { path: path.to_owned(), loop_size: None, thin: false };
        let problem = root::open(datastore, &place).err();
        let near = nearest(&place::path(&place)?);
        let tried = || format!("look at {}", near.display());
        let io = |e: nix::Error| DriverError::io(tried(), e.into());
        let folder = open(&near, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(io)?;
        let folder = File::from(folder);
        let space = fstatvfs(&folder).map_err(io)?;
        let kind = fstatfs(&folder).map_err(io)?.filesystem_type().0;
        let device = folder.metadata().map_err(|e| DriverError::io(tried(), e))?.dev();
        Ok(DatastoreFacts {
            available: problem.is_none(),
            problem: problem.map(|e| e.why),
            reflink: self.reflink(&folder, &near, device),
            total: Bytes(space.blocks() * space.fragment_size()),
            free: Bytes(space.blocks_available() * space.fragment_size()),
            filesystem: file_system(kind).to_owned(),
            full: None,
        })
    }

    fn reflink(&self, folder: &File, path: &Path, device: u64) -> bool {
        let known = self.reflinks.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied();
        known.unwrap_or_else(|| {
            let found = try_reflink(folder, path);
            self.reflinks.lock().unwrap_or_else(PoisonError::into_inner).insert(device, found);
            found
        })
    }

    /// What is wrong with the tools and with the datastores that were asked about.
    pub(super) fn findings(&self, manager: &Manager) -> Vec<Finding> {
        let mut found = tools(manager);
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (datastore, path) in places {
            match self.datastore(datastore, &path) {
                Ok(facts) => found.extend(judge(&path, &facts)),
                Err(e) => found.push(finding(&format!("datastore in {path}"), Severity::Error, e.why, &e.fix)),
            }
        }
        found
    }
}

/// The folder itself, or the nearest above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Really shares a block between two files. They have no names where the file system allows it.
fn try_reflink(folder: &File, path: &Path) -> bool {
    let nameless = || {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        openat(folder.as_fd(), ".", flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    };
    let share = |mut a: &File, b: &File| a.write_all(&[1; 4_096]).and_then(|()| ffi::reflink(a, b)).is_ok();
    if let (Ok(a), Ok(b)) = (nameless(), nameless()) {
        return share(&a, &b);
    }
    let Ok(Some(dir)) = dir::Dir::at(path) else { return false };
    let names = [0, 1].map(|n| format!(".bmid-reflink-{}-{n}", std::process::id()));
    let files = (dir.create(&names[0]), dir.create(&names[1]));
    let done = matches!(&files, (Ok(a), Ok(b)) if share(a, b));
    for name in &names {
        // Nothing is lost by an empty file that stays; the next look replaces it.
        let _ = dir.unlink(name);
    }
    done
}

/// The names of file systems by their number, as far as somebody may put a datastore on them.
fn file_system(number: i64) -> &'static str {
    match number {
        0x5846_5342 => "xfs",
        0xEF53 => "ext4",
        0x9123_683E => "btrfs",
        0x794C_7630 => "overlay",
        0x0102_1994 => "tmpfs",
        0x6969 => "nfs",
        0x2FC1_2FC1 => "zfs",
        0xCA45_1A4E => "bcachefs",
        0xF2F5_2010 => "f2fs",
        0x6573_5546 => "fuse",
        0xFF53_4D42 | 0xFE53_4D42 => "cifs",
        0x8584_58F6 => "ramfs",
        _ => "unknown",
    }
}

fn finding(check: &str, severity: Severity, found: impl Into<String>, fix: &str) -> Finding {
    Finding { check: check.to_owned(), severity, found: found.into(), fix: fix.to_owned() }
}

/// The tools that imports and loop datastores need.
fn tools(manager: &Manager) -> Vec<Finding> {
    let wanted: [(&str, &str, Severity, &str); 6] = [
        ("qemu-img", "qemu-utils", Severity::Error, "only raw images can be imported"),
        ("unshare", "util-linux", Severity::Error, "images cannot be converted confined"),
        ("prlimit", "util-linux", Severity::Error, "images cannot be converted confined"),
        ("setpriv", "util-linux", Severity::Error, "images cannot be converted confined"),
        ("mkfs.xfs", "xfsprogs", Severity::Warning, "no datastore with --loop can be made"),
        ("losetup", "mount", Severity::Warning, "no datastore with --loop can be mounted"),
    ];
    let needless =
        |name: &str| matches!(manager, Manager::Systemd(_)) && matches!(name, "unshare" | "setpriv" | "losetup");
    let told = wanted.into_iter().filter(|(name, ..)| !needless(name)).map(|(name, package, severity, without)| {
        if tool::installed(name) {
            finding(name, Severity::Ok, "installed", "")
        } else {
            let fix = format!("install it: `apt-get install {package}`");
            finding(name, severity, format!("not installed: {without}"), &fix)
        }
    });
    told.collect()
}

fn judge(path: &str, facts: &DatastoreFacts) -> Vec<Finding> {
    let check = format!("datastore in {path}");
    let told = |severity, found: String, fix: &str| vec![finding(&check, severity, found, fix)];
    if let Some(problem) = &facts.problem {
        return told(Severity::Error, problem.clone(), "mount its disk there; `bmictl reconcile` looks again");
    }
    let mut found = Vec::new();
    if matches!(facts.filesystem.as_str(), "tmpfs" | "ramfs") {
        let fix = "all disks in it are gone after a restart of the host; use a folder on a disk";
        found.extend(told(Severity::Error, format!("it is on {}, in memory", facts.filesystem), fix));
    }
    if facts.free.0 < facts.total.0 / 10 {
        let fix = "free space or add a datastore; a full one fails the writes of running machines";
        found.extend(told(Severity::Warning, format!("{} of {} are free", facts.free, facts.total), fix));
    }
    if !facts.reflink {
        let fix = "clones copy all bytes; `bmictl datastore create --loop SIZE` makes one that shares them";
        found.extend(told(Severity::Warning, format!("{} shares no bytes between files", facts.filesystem), fix));
    }
    if found.is_empty() {
        found = told(Severity::Ok, format!("{} free on {}, clones share bytes", facts.free, facts.filesystem), "");
    }
    found
}
