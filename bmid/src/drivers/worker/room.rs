//! What a tgtd uses of its host and where that ends, as the kernel tells. Asks nobody but the kernel, so it never waits for a tgtd
//! that hangs; a limit that cannot be read is left out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bmi::step::{Amounts, Finding, Limit, Resource, Room, Severity};

use crate::drivers::host::Process;

/// Memory of a disk that is a file, and of one that tgtd's module has opened through a connection it shares (measured: 26 KiB,
/// 0.8 MiB), with what is on its way.
const FILE: u64 = 128 << 10;
const POOL: u64 = 1 << 20;
/// Mappings a tgtd has without its disks: libraries, heaps.
const MAPPINGS: u64 = 2_000;

/// What one tgtd uses, and its limits.
pub(super) fn of(process: &Process) -> Room {
    let pid = process.pid;
    let (memory, threads) = process.size();
    let used = Amounts { threads: u64::from(threads), files: files(pid), memory };
    let mut limits = own(pid, &used);
    limits.extend(hosts(&used));
    limits.extend(cgroups(pid));
    let each = io_threads(pid);
    Room {
        used,
        limits,
        // The file itself, and its machine's connection.
        file: Amounts { threads: each, files: 2, memory: FILE },
        pool: Amounts { threads: each, files: 1, memory: POOL },
    }
}

fn limit(of: Resource, name: impl Into<String>, used: u64, most: u64, raise: impl Into<String>) -> Limit {
    Limit { of, name: name.into(), used, most, raise: raise.into() }
}

/// Those of the process.
fn own(pid: u32, used: &Amounts) -> Vec<Limit> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let soft =
        |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    let mut all = Vec::new();
    if let Some(most) = soft("Max open files") {
        let raise = "raise bmid's own limit of open files (LimitNOFILE= of bmid-tgtd@.service) and restart that tgtd";
        all.push(limit(Resource::Files, format!("RLIMIT_NOFILE of tgtd {pid}"), used.files, most, raise));
    }
    // Root of the host is not held to it.
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_host = maps.split_whitespace().eq(["0", "0", "4294967295"]);
    if let Some(most) = soft("Max processes").filter(|_| !is_host) {
        let raise = "raise bmid's own limit of processes (ulimit -u) and restart that tgtd";
        all.push(limit(Resource::Threads, format!("RLIMIT_NPROC of tgtd {pid}"), used.threads, most, raise));
    }
    // A stack is two mappings.
    if let Some(most) = number("/proc/sys/vm/max_map_count") {
        let most = most.saturating_sub(MAPPINGS) / 2;
        let raise = "raise it: sysctl vm.max_map_count=1048576";
        let name = format!("vm.max_map_count, two for each thread of tgtd {pid},");
        all.push(limit(Resource::Threads, name, used.threads, most, raise));
    }
    all
}

/// Those that all processes of the host share.
fn hosts(used: &Amounts) -> Vec<Limit> {
    let mut all = Vec::new();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // `0.20 0.18 0.12 1/680 11206`: of 680 threads one runs.
    let threads = load.split_whitespace().nth(3).and_then(|w| w.split_once('/')?.1.parse().ok());
    for (name, file) in [("kernel.pid_max", "pid_max"), ("kernel.threads-max", "threads-max")] {
        if let (Some(threads), Some(most)) = (threads, number(format!("/proc/sys/kernel/{file}"))) {
            all.push(limit(Resource::Threads, name, threads, most, format!("raise it: sysctl {name}={}", most * 4)));
        }
    }
    let files = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    let files: Vec<u64> = files.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    if let [open, _, most] = files[..] {
        all.push(limit(Resource::Files, "fs.file-max", open, most, "raise it: sysctl fs.file-max"));
    }
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free =
        memory.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(free) = free {
        let most = used.memory + (free << 10);
        all.push(limit(Resource::Memory, "what is free of the host's memory", used.memory, most, "give the host more"));
    }
    all
}

/// Threads that its cgroup, and those above it, may have.
fn cgroups(pid: u32) -> Vec<Limit> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next()?, parts.next()?) {
            ("", path) => Some((PathBuf::from("/sys/fs/cgroup"), path.to_owned())),
            (names, path) if names.split(',').any(|n| n == "pids") => {
                Some((PathBuf::from("/sys/fs/cgroup/pids"), path.to_owned()))
            }
            _ => None,
        }
    };
    text.lines().filter_map(path).flat_map(|(root, path)| above(&root, &path)).collect()
}

pub(super) fn above(root: &Path, path: &str) -> Vec<Limit> {
    let mut all = Vec::new();
    for group in Path::new(path).ancestors() {
        let Ok(inner) = group.strip_prefix("/") else { continue };
        let at = root.join(inner);
        // "max" is no limit.
        if let (Some(most), Some(used)) = (number(at.join("pids.max")), number(at.join("pids.current"))) {
            let name = format!("pids.max of cgroup {}", group.display());
            all.push(limit(Resource::Threads, name, used, most, "raise it (TasksMax= of its unit or slice)"));
        }
    }
    all
}

fn number(file: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// How many files are open. The folder's size tells since Linux 6.2; before it is 0, and they are counted.
fn files(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/fd");
    match fs::metadata(&folder).map(|m| m.size()) {
        Ok(n @ 1..) => n,
        _ => fs::read_dir(folder).map_or(0, |all| all.count() as u64),
    }
}

/// I/O threads of each disk: what follows `-t`.
fn io_threads(pid: u32) -> u64 {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|b| *b == 0).skip_while(|w| *w != b"-t").skip(1);
    let given = words.next().and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
    // tgtd's own number.
    given.unwrap_or(16)
}

/// Of which each dnsmasq has one, to hear of the machines it serves, and all of root's processes so many together.
const WATCHES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// What others of root's have, on a host that does little else.
const OTHERS: u64 = 16;
const RAISE: &str = "raise it: sysctl fs.inotify.max_user_instances=8192 (bmid's own sysctl.d/bmid.conf says the same)";

/// That the kernel will soon let no further dnsmasq start.
pub(super) fn watches(networks: usize) -> Option<Finding> {
    tight(networks as u64 + OTHERS, number(WATCHES)?)
}

pub(super) fn tight(used: u64, most: u64) -> Option<Finding> {
    let found = format!(
        "fs.inotify.max_user_instances is {most}, each network's dnsmasq takes one, and so do others: about {used} are used"
    );
    let (check, fix) = ("room for networks".to_owned(), RAISE.to_owned());
    (used * 100 >= most * 80).then_some(Finding { check, severity: Severity::Warning, found, fix })
}

/// What to do about a worker that ended with these words.
pub(super) fn advice(said: &str) -> &'static str {
    if said.contains("inotify") { RAISE } else { "look at the network's interface and address (bmictl doctor)" }
}
