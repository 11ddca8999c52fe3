//! What the boot and worker drivers both need of the host: files that appear whole, and processes that are told apart
//! from others with the same number.
//!
//! Never acts on a process by its number alone: numbers are used again. A [`Process`] is a handle of the kernel's, made
//! before its identity was checked, so that what is signalled is what was checked.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Temporary names are unique within the process; its id makes them so on the host.
static TEMP: AtomicU64 = AtomicU64::new(0);

/// Makes a folder that only its owner may enter, and those above it. Fine if it is there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Puts `content` at `path`, whole or not at all, durably. False: it was so already.
///
/// The unfinished file stands in `scratch` (same file system), so that nobody who watches the file's own folder sees it.
pub(crate) fn write_whole(scratch: &Path, path: &Path, content: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(old) if old == content => return Ok(false),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let temp = scratch.join(format!(".new.{}.{}", std::process::id(), TEMP.fetch_add(1, Ordering::Relaxed)));
    let put = || {
        let mut f = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temp)?;
        f.write_all(content)?;
        f.sync_all()?;
        // Closed first: whoever watches the folder would take the closing of a renamed file for a second change.
        drop(f);
        fs::rename(&temp, path)?;
        sync_folder_of(path)
    };
    put().inspect_err(|_| {
        // Nothing depends on the leftover; the first error is the one to tell.
        let _ = fs::remove_file(&temp);
    })?;
    Ok(true)
}

/// Takes a file away, durably. False: it was gone already.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes a folder and everything in it away. False: it was gone already.
pub(crate) fn remove_folder(path: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The text of a file; none if it is not there.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The names in a folder, sorted; none if it is not there.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut out = Vec::new();
    for entry in entries {
        if let Some(name) = entry?.file_name().to_str() {
            out.push(name.to_owned());
        }
    }
    out.sort();
    Ok(out)
}

/// Makes a folder's list of names durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => match File::open(parent) {
            Ok(f) => f.sync_all(),
            // Gone with everything in it: nothing left to make durable.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        },
        None => Ok(()),
    }
}

/// The first file of that name in the places where the system keeps programs, whatever PATH says.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    std::env::split_paths(&path)
        .chain(places.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_absolute() && file.is_file())
}

/// Something that is listed once for all who ask at the same time: the last listing, and when it was begun.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::new(None))
    }
}

impl<T> Shared<T> {
    /// What is there now: a listing that was begun since this was called, by whomever.
    pub(crate) fn now<E>(&self, list: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        self.since(Instant::now(), list)
    }

    fn since<E>(&self, came: Instant, list: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, listed)) = last.as_ref().filter(|(begun, _)| *begun >= came) {
            return Ok(Arc::clone(listed));
        }
        let begun = Instant::now();
        let listed = Arc::new(list()?);
        *last = Some((begun, Arc::clone(&listed)));
        Ok(listed)
    }
}

/// A live process, held by the kernel's handle.
pub(crate) struct Process {
    /// Its number.
    pub pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// The process with that number, if it lives and `is` it: asked of its folder in /proc.
    pub(crate) fn open(pid: u32, is: &dyn Fn(&Path) -> bool) -> Option<Process> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let process = Process { pid, handle };
        // The handle came first: if the process lives after the check, the check was about it.
        (is(Path::new(&format!("/proc/{pid}"))) && process.alive()).then_some(process)
    }

    /// It has not ended.
    pub(crate) fn alive(&self) -> bool {
        !self.ended(Duration::ZERO)
    }

    /// Waits until it has ended. False: it still lives after that time.
    pub(crate) fn ended(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)], left) {
                Ok(n) => return n > 0,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends a signal. Fine if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The kernel's handle: readable once it has ended.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// The kernel's letter for what its main thread does.
    pub(crate) fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before it is the program's own, and may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// It was stopped, by a signal or a debugger: it does nothing until it is let go on.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state(), Some('T' | 't'))
    }

    /// Its resident memory in bytes and its number of threads.
    pub(crate) fn size(&self) -> (u64, u32) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let threads = field("Threads:").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        (field("VmRSS:").unwrap_or(0) * 1024, threads)
    }
}

/// Whether a process is the dnsmasq that was started with this configuration. Its arguments are all that a daemon with
/// fewer capabilities than dnsmasq may read of it.
pub(crate) fn is_dnsmasq(process: &Path, conf: &Path) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let mut words = line.split(|b| *b == 0);
    let name = words.next().map(OsStr::from_bytes).and_then(|w| Path::new(w).file_name());
    name == Some(OsStr::new("dnsmasq")) && words.any(|w| w == conf.as_os_str().as_bytes())
}

/// Whether a process is the server of boot files that was started with this configuration.
pub(crate) fn is_http(process: &Path, conf: &Path) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    matches!(words[..], [_, flag, file, ..] if flag == BOOT_FILES.as_bytes() && file == conf.as_os_str().as_bytes())
}

/// How the line of a dnsmasq's configuration begins that says of which addresses it shall hear: a comment, to dnsmasq.
pub(crate) const HEARS: &str = "# hears ";

/// The flag by which bmid's program serves boot files.
pub(crate) const BOOT_FILES: &str = "--boot-files";

/// How the variable begins that names a tgtd's management socket.
pub(crate) const TGT_SOCKET: &[u8] = b"TGT_IPC_SOCKET=";

/// Whether a process is the tgtd that was started with this management socket.
pub(crate) fn is_tgtd(process: &Path, ipc: &Path) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let name = line.split(|b| *b == 0).next().map(OsStr::from_bytes).and_then(|w| Path::new(w).file_name());
    if name != Some(OsStr::new("tgtd")) {
        return false;
    }
    let mut wanted = TGT_SOCKET.to_vec();
    wanted.extend_from_slice(ipc.as_os_str().as_bytes());
    fs::read(process.join("environ")).is_ok_and(|e| e.split(|b| *b == 0).any(|w| w == wanted))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn who_waited_shares_a_listing_and_who_comes_later_gets_a_new_one() {
        let (shared, listed) = (Shared::default(), AtomicUsize::new(0));
        let list = || Ok::<_, ()>(listed.fetch_add(1, Ordering::SeqCst));
        let came = Instant::now();
        let first = shared.since(came, list).unwrap();
        assert!(Arc::ptr_eq(&first, &shared.since(came, list).unwrap()), "it was begun after both had come");
        assert_eq!(listed.load(Ordering::SeqCst), 1);
        let later = shared.since(Instant::now(), list).unwrap();
        assert!(!Arc::ptr_eq(&first, &later), "what was so before is nobody's answer");
        assert!(shared.since(Instant::now(), || Err(())).is_err());
        assert!(Arc::ptr_eq(&later, &shared.since(came, list).unwrap()), "a failure is nobody's but its own");
    }
}
