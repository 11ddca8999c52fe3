//! Workers without a manager: processes in a group of their own, which bmid's end does not reach.
//!
//! They keep uid and gid 0 (tgtd answers only its own) and lose every capability they do not need, for good. Only with
//! bmid outside a service: in there, the service's end would take them along.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bmi::model::Id;
use bmi::step::target::fill_address;
use bmi::step::{StartWorker, WorkerKind};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustix::thread::CapabilitySet;

use super::confined;
use crate::drivers::{DriverError, Paths, host};

/// A log beyond this is emptied when its worker is next looked after.
const LOG_LIMIT: u64 = 4 << 20;
/// Helper threads of a tgtd's LUN.
pub(super) const IO_THREADS: &str = "2";
/// tgtd asks each machine that is logged in whether it is still there: every so many seconds, and takes it for gone when it
/// has left so many questions unanswered. A machine that lost its power is logged out by it 60 to 80 s later; docs/decisions/0014
/// has what was measured.
pub(super) const ASKS_MACHINES: &str = "nop_interval=20,nop_count=3";

/// Starts a worker's program; `program` finds one by name.
pub(super) fn spawn(
    paths: &Paths,
    s: &StartWorker,
    log: File,
    program: impl Fn(&str) -> Result<PathBuf, DriverError>,
) -> Result<Child, DriverError> {
    let tried = || format!("start {} of network {}", s.kind.as_str(), s.network);
    let errors = log.try_clone().map_err(|e| DriverError::io(tried(), e))?;
    let mut command = Command::new(program(super::program_of(s.kind))?);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    match s.kind {
        WorkerKind::Tgtd => {
            command.env("TGT_IPC_SOCKET", paths.tgtd_ipc(s.network));
            command.envs(guard().map(|path| ("LD_PRELOAD", path)));
            command.args(["-f", "-C", "0", "-t", IO_THREADS, "--iscsi"]);
            command.arg(format!("portal={}:{},{ASKS_MACHINES}", fill_address(s.slot), s.port));
        }
        WorkerKind::Dnsmasq => {
            command.envs(quiet(paths, s.network));
            command.args(["-k", "-C"]).arg(super::conf(paths, s.network, s.kind));
        }
        WorkerKind::Http => {
            command.arg(host::BOOT_FILES).arg(super::conf(paths, s.network, s.kind));
        }
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let kept = match s.kind {
        WorkerKind::Tgtd | WorkerKind::Http => CapabilitySet::empty(),
        // SETGID: dnsmasq sets its group at its start, even to the one it has.
        WorkerKind::Dnsmasq => {
            CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::SETGID
        }
    };
    let child = confined::spawn(command, kept).map_err(|e| DriverError::io(tried(), e))?;
    raise_files(&child);
    Ok(child)
}

/// As many files as bmid itself may have; more is not ours to give. A worker that bmid's own limit was enough for serves nevertheless.
fn raise_files(child: &Child) {
    let own = getrlimit(Resource::Nofile);
    if own.current != own.maximum
        && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    {
        let _ = prlimit(Some(pid), Resource::Nofile, Rlimit { current: own.maximum, maximum: own.maximum });
    }
}

/// The shared object that is preloaded into tgtd and dnsmasq (the crate `guard`): beside bmid, or in the `lib/bmid` of its prefix. Without it tgtd serves files as well as ever, and disks in pools are refused.
pub(super) fn guard() -> Option<PathBuf> {
    beside_bmid("libbmid_rbdguard.so")
}

/// What keeps news of other interfaces from a network's dnsmasq. Without it dnsmasq serves as well, and with hundreds of networks on
/// one host lists all their addresses whenever one of them changes.
pub(super) fn quiet(paths: &Paths, network: Id) -> Vec<(&'static str, OsString)> {
    let conf = host::read(&super::conf(paths, network, WorkerKind::Dnsmasq)).ok().flatten().unwrap_or_default();
    let hears = conf.lines().find_map(|l| l.strip_prefix(host::HEARS));
    match (hears, guard()) {
        (Some(hears), Some(guard)) => vec![("LD_PRELOAD", guard.into()), ("BMID_HEARS", hears.into())],
        _ => Vec::new(),
    }
}

/// bmid's own program: this one, or in tests the one beside them. An upgrade may have put another one in its place meanwhile, which
/// serves as well.
pub(super) fn bmid() -> Option<PathBuf> {
    beside_bmid("bmid")
}

fn beside_bmid(name: &str) -> Option<PathBuf> {
    let bmid = std::env::current_exe().ok()?;
    let beside = bmid.parent()?;
    let places = [beside.to_owned(), beside.join(".."), beside.join("../lib/bmid")];
    let found = places.iter().map(|p| p.join(name)).find(|p| p.is_file())?;
    found.canonicalize().ok()
}

/// The last lines of a worker's log, for an error.
pub(super) fn last_words(paths: &Paths, network: Id, kind: WorkerKind) -> String {
    let read = || -> std::io::Result<String> {
        let mut log = File::open(log_file(paths, network, kind))?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(2_000)))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => "it said nothing".to_owned(),
        lines => lines[lines.len().saturating_sub(4)..].join("; "),
    }
}

/// Empties a log that has grown too long. Its worker appends, so it goes on at the beginning.
pub(super) fn bound_log(paths: &Paths, network: Id, kind: WorkerKind) {
    let log = log_file(paths, network, kind);
    if std::fs::metadata(&log).is_ok_and(|m| m.len() > LOG_LIMIT) {
        // A log is no reason to fail.
        let _ = OpenOptions::new().write(true).truncate(true).open(&log);
    }
}

fn log_file(paths: &Paths, network: Id, kind: WorkerKind) -> PathBuf {
    paths.network(network).join(kind.as_str()).join("log")
}

/// The worker's log, empty, for it to append to.
pub(super) fn open_log(paths: &Paths, network: Id, kind: WorkerKind) -> Result<File, DriverError> {
    let path = log_file(paths, network, kind);
    let open = || {
        if let Some(folder) = path.parent() {
            host::make_folder(folder)?;
        }
        // Emptied by the start, then appended to.
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        OpenOptions::new().append(true).open(&path)
    };
    open().map_err(|e| DriverError::io(format!("open {}", path.display()), e))
}
