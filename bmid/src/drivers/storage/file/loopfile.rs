//! A datastore's own XFS in a file beside its folder (`FOLDER.xfs`), mounted on the folder, for hosts whose file system
//! cannot share bytes between files.
//!
//! It is found by its backing file, so it is never attached or mounted twice. It is allocated in full unless `thin` was
//! asked for: a sparse one loses tenants' data when the host fills up. Where bmid runs as a system service it never mounts
//! itself: it writes a `.mount` unit and has systemd start it.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bmi::model::{Bytes, Kind, Place};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Manager, Systemd, dir, place, tool};
use crate::drivers::DriverError;

/// The smallest XFS that mkfs.xfs makes.
pub(super) const SMALLEST: u64 = 300 << 20;
const LIMIT: Duration = Duration::from_secs(600);
/// Looking for a device and attaching one must be one act.
static ATTACH: Mutex<()> = Mutex::new(());

/// The file, and where it is mounted.
#[derive(Debug)]
pub(super) struct LoopFile {
    file: PathBuf,
    at: PathBuf,
    size: Bytes,
    thin: bool,
}

impl LoopFile {
    /// The file of a place that has one.
    pub(super) fn of(place: &Place) -> Result<Option<LoopFile>, DriverError> {
        let Place::Folder { loop_size: Some(size), thin, .. } = place else { return Ok(None) };
        let at = place::path(place)?;
        let mut name = at.as_os_str().to_owned();
        name.push(".xfs");
        Ok(Some(LoopFile { file: name.into(), at, size: *size, thin: *thin }))
    }

    pub(super) fn exists(&self) -> bool {
        self.file.exists()
    }

    fn half_made(&self) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(".new");
        name.into()
    }

    fn tried(&self, verb: &str) -> String {
        format!("{verb} {}", self.file.display())
    }

    /// Removes what an interrupted making left.
    pub(super) fn drop_half_made(&self) -> Result<bool, DriverError> {
        remove(&self.half_made())
    }

    /// Makes the file with an empty XFS in it. False: it is there.
    pub(super) fn make(&self) -> Result<bool, DriverError> {
        if self.exists() {
            return Ok(false);
        }
        if self.size.0 < SMALLEST {
            let why = format!("{} is too small: an XFS has at least {} (300 MiB)", self.size, Bytes(SMALLEST));
            return Err(DriverError::new(Kind::Invalid, self.tried("make"), why).fix("use --loop 300M or more"));
        }
        let folder = self.at.parent().unwrap_or(Path::new("/"));
        dir::make_all(folder)?;
        let temp = self.half_made();
        remove(&temp)?;
        let made = self.write(&temp).and_then(|()| {
            fs::rename(&temp, &self.file).map_err(|e| DriverError::io(self.tried("make"), e))?;
            sync(folder)
        });
        if made.is_err() {
            remove(&temp)?;
        }
        made.map(|()| true)
    }

    fn write(&self, temp: &Path) -> Result<(), DriverError> {
        use std::os::unix::fs::OpenOptionsExt;
        let io = |e| DriverError::io(self.tried("make"), e);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp).map_err(io)?;
        if self.thin {
            file.set_len(self.size.0).map_err(io)?;
        } else {
            let size = libc::off_t::try_from(self.size.0).unwrap_or(libc::off_t::MAX);
            fallocate(&file, FallocateFlags::empty(), 0, size).map_err(|e| match e {
                Errno::EOPNOTSUPP => {
                    DriverError::new(Kind::Outside, self.tried("make"), "space cannot be reserved there")
                        .fix("use --thin, and watch the free space, or another file system")
                }
                e => io(e.into()),
            })?;
        }
        let mut mkfs = tool::command("mkfs.xfs");
        tool::must(mkfs.args(["-q", "-f", "-m", "reflink=1"]).arg(temp), "xfsprogs", LIMIT)?;
        file.sync_all().map_err(io)
    }

    /// Mounts it. False: it is mounted.
    pub(super) fn mount(&self, manager: &Manager) -> Result<bool, DriverError> {
        if !self.exists() {
            let why = "the file is not there";
            return Err(DriverError::new(Kind::Unavailable, self.tried("mount"), why)
                .fix("mount the disk that holds it, then `bmictl reconcile`"));
        }
        let _one = ATTACH.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mounted()? {
            return Ok(false);
        }
        if let Some(dir) = dir::Dir::at(&self.at)?
            && let Some(first) = dir.names()?.first()
        {
            let why = format!("{} is not empty (it has {first:?}), and would be hidden", self.at.display());
            return Err(DriverError::new(Kind::Conflict, self.tried("mount"), why).fix("move that away"));
        }
        match manager {
            Manager::Detached => self.mount_here()?,
            Manager::Systemd(systemd) => systemd.mount(&self.file, &self.at)?,
        }
        if self.mounted()? {
            return Ok(true);
        }
        let why = format!("{} is no mount of it afterwards", self.at.display());
        Err(DriverError::new(Kind::Outside, self.tried("mount"), why))
    }

    fn mount_here(&self) -> Result<(), DriverError> {
        let attached = self.devices()?.into_iter().next();
        let device = match &attached {
            Some(name) => format!("/dev/{name}"),
            None => {
                let mut losetup = tool::command("losetup");
                losetup.args(["--find", "--show"]).arg(&self.file);
                tool::must(&mut losetup, "util-linux mount", LIMIT)?.trim().to_owned()
            }
        };
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let mounted = mount(Some(device.as_str()), &self.at, Some("xfs"), flags, None::<&str>);
        if mounted.is_err() && attached.is_none() {
            // The failed mount is what is told.
            let _ = detach(&device);
        }
        mounted
            .map_err(|e| DriverError::io(format!("mount {} on {}", self.file.display(), self.at.display()), e.into()))
    }

    /// Unmounts it and gives its device back. False: it was neither mounted nor attached.
    pub(super) fn unmount(&self, manager: &Manager) -> Result<bool, DriverError> {
        let _one = ATTACH.lock().unwrap_or_else(PoisonError::into_inner);
        let mounted = self.mounted()?;
        // A child that another thread just forked holds our descriptors until it becomes its program: busy for a moment.
        let mut tries = 20;
        while let Err(e) = self.unmount_once(manager, mounted) {
            tries -= 1;
            if tries == 0 {
                return Err(e);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut devices = self.devices()?;
        if let Manager::Systemd(_) = manager {
            // Mounted with `loop`, it gives its device back by itself, a moment after the last look at it is over; and a
            // bmid that is a service may not.
            for _ in 0..100 {
                if devices.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
                devices = self.devices()?;
            }
        }
        for name in &devices {
            detach(&format!("/dev/{name}"))?;
        }
        Ok(mounted || !devices.is_empty())
    }

    fn unmount_once(&self, manager: &Manager, mounted: bool) -> Result<(), DriverError> {
        match manager {
            Manager::Systemd(systemd) => systemd.unmount(&self.at),
            Manager::Detached if mounted => umount2(&self.at, MntFlags::UMOUNT_NOFOLLOW).map_err(|e| {
                let error = DriverError::io(format!("unmount {}", self.at.display()), e.into());
                if e == Errno::EBUSY {
                    error.fix("something uses a file there; `fuser -vm FOLDER` says what")
                } else {
                    error
                }
            }),
            Manager::Detached => Ok(()),
        }
    }

    /// Removes the file. It must be unmounted.
    pub(super) fn delete(&self) -> Result<bool, DriverError> {
        remove(&self.file)
    }

    /// Whether this very file is what is mounted there.
    pub(super) fn mounted(&self) -> Result<bool, DriverError> {
        let Some(number) = mounted_device(&self.at)? else { return Ok(false) };
        for name in self.devices()? {
            let path = format!("/sys/block/{name}/dev");
            if fs::read_to_string(&path).is_ok_and(|n| n.trim() == number) {
                return Ok(true);
            }
        }
        let why = format!("something else is mounted on {} (device {number})", self.at.display());
        Err(DriverError::new(Kind::Conflict, self.tried("mount"), why).fix("unmount that first"))
    }

    /// The loop devices that this file is attached to.
    fn devices(&self) -> Result<Vec<String>, DriverError> {
        let Ok(file) = fs::canonicalize(&self.file) else { return Ok(Vec::new()) };
        let tried = "list the loop devices in /sys/block";
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").map_err(|e| DriverError::io(tried, e))? {
            let entry = entry.map_err(|e| DriverError::io(tried, e))?;
            // A device that is not attached has no such file.
            let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
            if backing.strip_suffix(b"\n").unwrap_or(&backing) == file.as_os_str().as_bytes() {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The number (`major:minor`) of the device mounted on a folder, if one is.
fn mounted_device(at: &Path) -> Result<Option<String>, DriverError> {
    let table = fs::read("/proc/self/mountinfo").map_err(|e| DriverError::io("read /proc/self/mountinfo", e))?;
    let at = fs::canonicalize(at).unwrap_or_else(|_| at.to_owned());
    let mut found = None;
    for line in table.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let (number, point) = (fields.nth(2), fields.nth(1));
        if let (Some(number), Some(point)) = (number, point)
            && unescape(point) == at.as_os_str().as_bytes()
        {
            // The last one lies on top.
            found = Some(String::from_utf8_lossy(number).into_owned());
        }
    }
    Ok(found)
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal.filter(|_| b == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    out
}

fn detach(device: &str) -> Result<(), DriverError> {
    let mut losetup = tool::command("losetup");
    match tool::must(losetup.args(["--detach", device]), "util-linux mount", LIMIT) {
        // Some kernels give the device back by themselves at unmount.
        Err(e) if e.why.contains("No such device") => Ok(()),
        other => other.map(|_| ()),
    }
}

fn remove(path: &Path) -> Result<bool, DriverError> {
    match fs::remove_file(path) {
        Ok(()) => sync(path.parent().unwrap_or(Path::new("/"))).map(|()| true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(DriverError::io(format!("remove {}", path.display()), e)),
    }
}

fn sync(folder: &Path) -> Result<(), DriverError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| DriverError::io(format!("sync {}", folder.display()), e))
}

impl Systemd {
    /// Writes the mount's unit and has systemd start it.
    fn mount(&self, file: &Path, at: &Path) -> Result<(), DriverError> {
        let name = unit_name(at);
        let path = self.units.join(&name);
        let text = unit_text(file, at);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return self.ctl(&["start", &name]);
        }
        let temp = self.units.join(format!(".{name}.new"));
        fs::create_dir_all(&self.units)
            .and_then(|()| fs::write(&temp, &text))
            .and_then(|()| fs::rename(&temp, &path))
            .map_err(|e| DriverError::io(format!("write {}", path.display()), e))?;
        self.ctl(&["daemon-reload"])?;
        self.ctl(&["start", &name])
    }

    fn unmount(&self, at: &Path) -> Result<(), DriverError> {
        let name = unit_name(at);
        if !self.units.join(&name).exists() {
            return Ok(());
        }
        self.ctl(&["stop", &name])?;
        remove(&self.units.join(&name))?;
        self.ctl(&["daemon-reload"])
    }

    fn ctl(&self, args: &[&str]) -> Result<(), DriverError> {
        let mut ctl = tool::command(&self.systemctl);
        tool::must(ctl.args(args), "systemd", LIMIT).map(|_| ()).map_err(|mut e| {
            e.tried = format!("run systemctl {}", args.join(" "));
            e
        })
    }
}

/// The unit's text. It lies in /run: bmid writes it anew at each start, and a host without bmid mounts nothing.
fn unit_text(file: &Path, at: &Path) -> String {
    let value = |p: &Path| p.display().to_string().replace('%', "%%");
    format!(
        "# Written by bmid; written anew at its start.\n[Unit]\nDescription=bmid's datastore in {at}\n\n[Mount]\nWhat={file}\n\
         Where={at}\nType=xfs\nOptions=loop,noatime,nodev,nosuid,noexec\nTimeoutSec=600\n",
        at = value(at),
        file = value(file),
    )
}

/// The name systemd demands for a mount: the path with `-` for `/`, everything unusual as `\xXX`.
pub(super) fn unit_name(at: &Path) -> String {
    let mut out = String::new();
    let path = at.as_os_str().as_bytes();
    for (i, &b) in path.strip_prefix(b"/").unwrap_or(path).iter().enumerate() {
        match b {
            b'/' => out.push('-'),
            b'.' if i == 0 => out.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || b":_.".contains(&b) => out.push(b as char),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    format!("{out}.mount")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_mounts_unit_is_named_as_systemd_escape_names_it() {
        for path in ["/srv/bmid", "/srv/my-data store/x", "/.hidden/a.b", "/ü"] {
            let out = std::process::Command::new("systemd-escape").args(["--path", "--suffix=mount", path]).output();
            let expected = String::from_utf8(out.unwrap().stdout).unwrap();
            assert_eq!(unit_name(Path::new(path)), expected.trim());
        }
    }

    #[test]
    fn mountinfos_escapes_are_read() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\"), b"/a\\");
    }
}
