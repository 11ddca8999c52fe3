//! A folder held open: everything inside is reached from its descriptor, so that a mount which comes or goes meanwhile
//! cannot put our files elsewhere. Final components are never followed as links.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::drivers::DriverError;

/// An open folder. Its errors name what was tried on which path.
#[derive(Debug)]
pub(super) struct Dir {
    file: File,
    path: PathBuf,
}

type Answer<T> = Result<T, DriverError>;

fn absent<T>(result: nix::Result<T>) -> nix::Result<Option<T>> {
    match result {
        Ok(v) => Ok(Some(v)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Dir {
    /// The folder at a path; none if there is nothing.
    pub(super) fn at(path: &Path) -> Answer<Option<Dir>> {
        let found = absent(open(path, FOLDER, Mode::empty())).map_err(|e| failed("open folder", path, e))?;
        Ok(found.map(|fd| Dir { file: fd.into(), path: path.to_owned() }))
    }

    /// Where it is, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A folder in it; none if there is nothing of that name.
    pub(super) fn find(&self, name: &str) -> Answer<Option<Dir>> {
        let path = self.path.join(name);
        let found =
            absent(openat(self.fd(), name, FOLDER, Mode::empty())).map_err(|e| failed("open folder", &path, e))?;
        Ok(found.map(|fd| Dir { file: fd.into(), path }))
    }

    /// A folder that must be in it.
    pub(super) fn sub(&self, name: &str) -> Answer<Dir> {
        let missing = || failed("open folder", &self.path.join(name), Errno::ENOENT);
        self.find(name)?.ok_or_else(missing)
    }

    /// Makes a folder in it for its owner alone. False: it was there.
    pub(super) fn make(&self, name: &str) -> Answer<bool> {
        match mkdirat(self.fd(), name, Mode::S_IRWXU) {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::EEXIST) => self.sub(name).map(|_| false),
            Err(e) => Err(failed("make folder", &self.path.join(name), e)),
        }
    }

    /// Opens a file in it; none if there is none (and `flags` does not make one).
    pub(super) fn open(&self, name: &str, flags: OFlag) -> Answer<Option<File>> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let path = self.path.join(name);
        let found = absent(openat(self.fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR));
        let file: Option<File> = found.map_err(|e| failed("open", &path, e))?.map(File::from);
        if let Some(f) = &file {
            let kind = f.metadata().map_err(|e| DriverError::io(format!("look at {}", path.display()), e))?;
            if !kind.is_file() {
                return Err(failed("open", &path, Errno::EINVAL).fix("that name must be a file of bmid's; remove it"));
            }
        }
        Ok(file)
    }

    /// A new empty file, in place of one left behind.
    pub(super) fn create(&self, name: &str) -> Answer<File> {
        self.unlink(name)?;
        let missing = || failed("make", &self.path.join(name), Errno::ENOENT);
        self.open(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?.ok_or_else(missing)
    }

    /// What stands under a name, if anything.
    pub(super) fn stat(&self, name: &str) -> Answer<Option<FileStat>> {
        let found = absent(fstatat(self.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW));
        found.map_err(|e| failed("look at", &self.path.join(name), e))
    }

    /// All names in it, sorted.
    pub(super) fn names(&self) -> Answer<Vec<String>> {
        let list = || -> nix::Result<Vec<String>> {
            let mut listing = Listing::openat(self.fd(), ".", FOLDER, Mode::empty())?;
            let mut names = Vec::new();
            for entry in listing.iter() {
                // A name that is no text is none of ours; shown as well as can be.
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|e| failed("list", &self.path, e))
    }

    /// Removes a file. False: it was gone.
    pub(super) fn unlink(&self, name: &str) -> Answer<bool> {
        let done = absent(unlinkat(self.fd(), name, UnlinkatFlags::NoRemoveDir));
        done.map(|d| d.is_some()).map_err(|e| failed("remove", &self.path.join(name), e))
    }

    /// Removes an empty folder. False: it was gone, or it is not empty.
    pub(super) fn rmdir(&self, name: &str) -> Answer<bool> {
        match absent(unlinkat(self.fd(), name, UnlinkatFlags::RemoveDir)) {
            Ok(done) => Ok(done.is_some()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY) => Ok(false),
            Err(e) => Err(failed("remove folder", &self.path.join(name), e)),
        }
    }

    /// Gives a whole file its final name, durably.
    pub(super) fn publish(&self, name: &str, into: &Dir, as_name: &str) -> Answer<()> {
        let tried = || format!("name {} {}", self.path.join(name).display(), into.path.join(as_name).display());
        renameat(self.fd(), name, into.fd(), as_name).map_err(|e| DriverError::io(tried(), e.into()))?;
        into.sync()
    }

    /// Makes what was named or removed in it durable.
    pub(super) fn sync(&self) -> Answer<()> {
        self.file.sync_all().map_err(|e| DriverError::io(format!("sync {}", self.path.display()), e))
    }

    /// Writes a small file whole, durably.
    pub(super) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Answer<()> {
        let temp = format!(".{name}.new");
        let mut file = self.create(&temp)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| file.sync_all());
        if let Err(e) = written {
            // The failure to write is what counts; a name left behind is replaced by the next try.
            let _ = self.unlink(&temp);
            return Err(DriverError::io(format!("write {}", self.path.join(name).display()), e));
        }
        self.publish(&temp, self, name)
    }

    /// A small file's bytes; none if there is none.
    pub(super) fn read(&self, name: &str) -> Answer<Option<Vec<u8>>> {
        let Some(file) = self.open(name, OFlag::O_RDONLY)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(64 << 10)
            .read_to_end(&mut bytes)
            .map_err(|e| DriverError::io(format!("read {}", self.path.join(name).display()), e))?;
        Ok(Some(bytes))
    }
}

fn failed(verb: &str, path: &Path, e: Errno) -> DriverError {
    let error = DriverError::io(format!("{verb} {}", path.display()), e.into());
    match e {
        Errno::ELOOP => error.fix("a symbolic link stands where bmid keeps its own; remove it"),
        Errno::ENOTDIR => error.fix("a folder must be there; move what is there away"),
        _ => error,
    }
}

/// Makes a folder and all above it, durably. False: it was there.
pub(super) fn make_all(path: &Path) -> Answer<bool> {
    if Dir::at(path)?.is_some() {
        return Ok(false);
    }
    let tried = |p: &Path| format!("make folder {}", p.display());
    let parent = path.parent().unwrap_or(Path::new("/"));
    // Above the root links are the administrator's business and followed.
    if !parent.exists() {
        make_all(parent)?;
    }
    let made = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
        Err(e) => return Err(DriverError::io(tried(path), e)),
    };
    File::open(parent).and_then(|p| p.sync_all()).map_err(|e| DriverError::io(tried(path), e))?;
    Ok(made)
}

/// The io error of a failed system call.
pub(super) fn errno(e: Errno) -> io::Error {
    e.into()
}
