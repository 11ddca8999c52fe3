//! What the kernel's refusals mean, for people. It names options and users, never what a key is.

use std::path::Path;

use bmi::model::Kind;
use nix::errno::Errno;

use super::hand::Refusal;
use super::key::NoKey;
use super::{FEATURES, Reach};
use crate::drivers::DriverError;

const OTHER_WAY: &str = "make the datastore with `--export librbd`";

fn error(kind: Kind, tried: &str, why: impl Into<String>, fix: impl Into<String>) -> DriverError {
    DriverError::new(kind, tried, why).fix(fix)
}

pub(super) fn no_module(tried: &str) -> DriverError {
    let fix = format!("`modprobe rbd`, with a kernel that has it (Debian's have); else {OTHER_WAY}");
    error(Kind::Unavailable, tried, "this host's kernel has no rbd module", fix)
}

pub(super) fn too_old(tried: &str, known: u64) -> DriverError {
    let why = format!("the kernel's RBD client knows features {known:#x}, and our images have {FEATURES:#x}");
    error(Kind::Unavailable, tried, why, format!("run a kernel of 5.3 or later; else {OTHER_WAY}"))
}

pub(super) fn no_monitor(tried: &str) -> DriverError {
    let why = "no monitor of the cluster speaks messenger v1, the one bmid tells the kernel to use";
    let fix = format!("`ceph mon enable-msgr2` keeps v1 beside v2; `ceph mon dump` shows both; else {OTHER_WAY}");
    error(Kind::Unavailable, tried, why, fix)
}

pub(super) fn unfit(tried: &str) -> DriverError {
    let why = "a name in it would be read by the kernel as something else";
    error(Kind::Invalid, tried, why, "rename the pool, namespace or user: letters, digits, `.`, `-` and `_`")
}

pub(super) fn nothing_came(tried: &str) -> DriverError {
    let why = "the kernel took the order, and /sys/bus/rbd/devices shows no map of it";
    error(Kind::Outside, tried, why, "look at the kernel's log: `dmesg | grep -e rbd -e libceph`")
}

pub(super) fn busy(tried: &str, device: &Path) -> DriverError {
    let device = device.display();
    let why = format!("{device} is open, and not by a tgtd of ours");
    error(Kind::Conflict, tried, why, format!("`fuser -v {device}` and `lsblk {device}` name who uses it"))
}

/// Why it is not mapped.
pub(super) fn refused(tried: &str, reach: &Reach, refusal: &Refusal) -> DriverError {
    match refusal {
        Refusal::Key(no) => key(tried, no),
        Refusal::Closed(e) => closed(tried, e),
        Refusal::Said(e) => said(tried, reach, *e),
        Refusal::NoUnit(why) => no_unit(tried, why),
    }
}

/// Why it is still mapped.
pub(super) fn kept(tried: &str, device: &Path, refusal: &Refusal) -> DriverError {
    match refusal {
        Refusal::Closed(e) => closed(tried, e),
        Refusal::Key(no) => key(tried, no),
        Refusal::NoUnit(why) => no_unit(tried, why),
        Refusal::Said(e) => {
            let why = format!("the kernel does not unmap {}: {} ({e})", device.display(), e.desc());
            error(Kind::Outside, tried, why, "look at the kernel's log: `dmesg | grep -e rbd -e libceph`")
        }
    }
}

fn no_unit(tried: &str, why: &str) -> DriverError {
    error(Kind::Unavailable, tried, why, "is the unit bmid-rbd@.service installed? `systemctl cat bmid-rbd@x` shows it")
}

fn key(tried: &str, no: &NoKey) -> DriverError {
    let fix = match no {
        NoKey::Refused(Errno::ENOENT | Errno::ENOPKG) => {
            "the kernel lacks the ciphers of Ceph's keys: `modprobe -a cbc ecb aes_generic`".to_owned()
        }
        NoKey::Refused(Errno::ENODEV | Errno::ENOSYS) => {
            format!("`modprobe libceph`, with a kernel that has keyrings; else {OTHER_WAY}")
        }
        NoKey::Refused(Errno::EDQUOT) => "`sysctl kernel.keys.root_maxkeys` bounds how many there may be".to_owned(),
        NoKey::Refused(_) => "look at bmid's sandbox: the system call add_key must be allowed".to_owned(),
        _ => "have it from `ceph auth get client.USER` into a file that root alone may read".to_owned(),
    };
    error(Kind::Unavailable, tried, no.to_string(), fix)
}

fn closed(tried: &str, e: &std::io::Error) -> DriverError {
    let fix = match e.raw_os_error() {
        Some(libc::ENOENT) => "`modprobe rbd`: the kernel's RBD client is not there",
        Some(libc::EROFS) => "/sys is read-only here: look at bmid's sandbox or its container",
        _ => "bmid must be root, with CAP_SYS_ADMIN, to map disks",
    };
    error(Kind::Unavailable, tried, format!("/sys/bus/rbd cannot be written: {e}"), fix)
}

fn said(tried: &str, reach: &Reach, e: Errno) -> DriverError {
    let user = &reach.user;
    let (kind, why, fix) = match e {
        Errno::ENXIO => (
            Kind::Outside,
            "the image uses unsupported features".to_owned(),
            format!("the kernel's log names them (`dmesg | grep rbd`); run a newer kernel, or {OTHER_WAY}"),
        ),
        Errno::EINVAL => (
            Kind::Outside,
            "the kernel does not understand the order".to_owned(),
            format!("its log says which word (`dmesg | grep -e rbd -e libceph`); namespaces need 4.20; or {OTHER_WAY}"),
        ),
        Errno::EPERM | Errno::EACCES | Errno::ENOKEY | Errno::EKEYREJECTED => (
            Kind::Unavailable,
            format!("the cluster refuses client.{user}, or bmid may not map"),
            format!(
                "`ceph auth get client.{user}` shows key and caps (profile rbd); bmid must be root with CAP_SYS_ADMIN"
            ),
        ),
        Errno::ENOENT => (
            Kind::Unavailable,
            "the kernel does not find the pool, the image or the key".to_owned(),
            "look at the kernel's log: `dmesg | grep -e rbd -e libceph`".to_owned(),
        ),
        Errno::ETIMEDOUT | Errno::EIO | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH => (
            Kind::Unavailable,
            format!("the monitors do not answer the kernel at {}", reach.monitors.join(", ")),
            "look at `ceph -s`, and whether this host reaches these addresses".to_owned(),
        ),
        Errno::ESHUTDOWN => (
            Kind::Unavailable,
            "Ceph has blocklisted this kernel's client".to_owned(),
            "`ceph osd blocklist ls` shows since when; unmap all its disks, or start the host anew".to_owned(),
        ),
        Errno::EROFS => (
            Kind::Outside,
            "the image can be mapped for reading only".to_owned(),
            "look at the kernel's log: `dmesg | grep rbd`".to_owned(),
        ),
        _ => (
            Kind::Outside,
            "the kernel does not map it".to_owned(),
            "look at the kernel's log: `dmesg | grep -e rbd -e libceph`".to_owned(),
        ),
    };
    error(kind, tried, format!("{why}: {} ({e})", e.desc()), fix)
}
