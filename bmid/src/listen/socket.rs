//! The socket in the file system: made with its mode and group before anybody can connect, or taken over from systemd.
//!
//! A socket that nobody answers is replaced; one that somebody answers is left alone.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use bmi::model::{Fault, Kind};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::unistd::{Group, chown};

use super::ffi;

/// Members may connect.
pub const SOCKET_GROUP: &str = "bmi";
/// Longest path: the kernel takes 107 bytes, `.lock` and `.new` are appended.
const LONGEST: usize = 100;
/// Connections that wait to be taken in.
const BACKLOG: i32 = 1024;

/// A socket of ours in the file system. Dropped, it is removed, unless somebody else's stands there by then.
#[derive(Debug)]
pub struct Made {
    path: PathBuf,
    inode: (u64, u64),
    /// Held as long as the socket is ours.
    _lock: Flock<File>,
}

impl Drop for Made {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode) {
            // Left behind it does no harm: the next start replaces a socket that nobody answers.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket at `path`: mode 0660, group `group`; without one, the group `bmi` if there is such a group.
pub fn make(path: &Path, group: Option<&str>) -> Result<(UnixListener, Made), Fault> {
    make_inner(path, group).map_err(|f| f.trying(format!("listen on {}", path.display())))
}

fn make_inner(path: &Path, group: Option<&str>) -> Result<(UnixListener, Made), Fault> {
    if path.as_os_str().len() > LONGEST {
        return Err(Fault::invalid(format!("the path is longer than {LONGEST} bytes"))
            .fix("give a shorter one with --socket or `socket`"));
    }
    let group = group_id(group)?;
    make_folder(path)?;
    let lock = take_lock(path)?;
    refuse_if_answered(path)?;
    let new = with_suffix(path, ".new");
    gone(fs::remove_file(&new))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(nix_io)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&new).map_err(nix_io)?).map_err(nix_io)?;
    // Nobody can connect before `listen`, and nobody looks for it under this name.
    fs::set_permissions(&new, Permissions::from_mode(0o660)).map_err(outside)?;
    if let Some(group) = &group {
        chown(&new, None, Some(group.gid)).map_err(|e| {
            outside(e.into()).fix(format!("let bmid be a member of group {}, or run it as root", group.name))
        })?;
    }
    listen(&fd, Backlog::new(BACKLOG).map_err(nix_io)?).map_err(nix_io)?;
    let at = fs::symlink_metadata(&new).map_err(outside)?;
    fs::rename(&new, path).map_err(outside)?;
    Ok((fd.into(), Made { path: path.to_owned(), inode: (at.dev(), at.ino()), _lock: lock }))
}

/// The socket that systemd passed, if it passed one. Call it once.
pub fn inherited() -> Result<Option<UnixListener>, Fault> {
    let bad = |why: String| {
        Fault::new(Kind::Invalid, why)
            .trying("take over the socket that systemd passed")
            .fix("bmid.socket must have exactly one ListenStream= with a path")
    };
    let passed = systemd::daemon::listen_fds().map_err(|e| bad(e.to_string()))?;
    let fds: Vec<_> = passed.iter().collect();
    let fd = match fds.as_slice() {
        [] => return Ok(None),
        [one] => *one,
        more => return Err(bad(format!("it passed {} descriptors", more.len()))),
    };
    let stream = Some(systemd::daemon::SocketType::Stream);
    let listening = systemd::daemon::Listening::IsListening;
    match systemd::daemon::is_socket_unix(fd, stream, listening, None::<&str>) {
        Ok(true) => ffi::adopt(fd).map(Some).ok_or_else(|| bad("it was taken over already".to_owned())),
        Ok(false) => Err(bad(format!("descriptor {fd} is no listening Unix stream socket"))),
        Err(e) => Err(bad(e.to_string())),
    }
}

fn group_id(name: Option<&str>) -> Result<Option<Group>, Fault> {
    let found = Group::from_name(name.unwrap_or(SOCKET_GROUP)).map_err(nix_io)?;
    match (name, found) {
        (Some(name), None) => Err(Fault::invalid(format!("there is no group {name}"))
            .fix(format!("`groupadd --system {name}`, or give another one as `socket_group`"))),
        (_, found) => Ok(found),
    }
}

fn make_folder(path: &Path) -> Result<(), Fault> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.exists() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(outside)?;
    // Whatever the umask is: members of the group must get through. Who may connect is the socket's own mode.
    fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(outside)
}

/// Two daemons starting at once must not both find nobody there.
fn take_lock(path: &Path) -> Result<Flock<File>, Fault> {
    let at = with_suffix(path, ".lock");
    let mut how = File::options();
    how.write(true).create(true).truncate(false);
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let file = how.open(at).map_err(outside)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
        nix::errno::Errno::EWOULDBLOCK => answered(path),
        e => nix_io(e),
    })
}

fn refuse_if_answered(path: &Path) -> Result<(), Fault> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(outside(e)),
        Ok(m) if !std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => {
            return Err(Fault::conflict("something that is no socket stands there")
                .fix("move it away, or give another path with --socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(answered(path)),
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(outside(e)),
    }
}

fn answered(path: &Path) -> Fault {
    let pid = UnixStream::connect(path).ok().and_then(|s| getsockopt(&s, sockopt::PeerCredentials).ok());
    let who = pid.map_or("another process".to_owned(), |c| format!("process {}", c.pid()));
    Fault::new(Kind::Busy, format!("{who} listens there already"))
        .fix("stop that bmid first, or give this one another path with --socket")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn gone(removed: io::Result<()>) -> Result<(), Fault> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(outside(e)),
        _ => Ok(()),
    }
}

fn outside(e: io::Error) -> Fault {
    let fix = match e.kind() {
        io::ErrorKind::PermissionDenied => "run bmid as root, or give it a path it may write with --socket",
        _ => "",
    };
    Fault::new(Kind::Outside, e.to_string()).fix(fix)
}

fn nix_io(e: nix::errno::Errno) -> Fault {
    outside(e.into())
}
