//! What only the client can do for a request: open files with the caller's own rights, make paths absolute, read lists.
//!
//! An output gets its name only when it is whole: the daemon writes into `NAME.partial`, which is renamed at the end and
//! removed if it fails. A file that is there is never truncated, and replaced only where the operation or `--force` says so.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bmi::model::{Fault, Kind};
use bmi::ops::args::{Direction, HostPath};
use bmi::ops::{Resolve, Source};
use bmi::protocol::MAX_DESCRIPTORS;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};

use crate::stop::kind_of;

/// Most lines of a list.
const MOST_LINES: usize = 10_000;
/// Most bytes of a list.
const MOST_BYTES: u64 = 1 << 20;

/// The files of one request.
#[derive(Default)]
pub(crate) struct Files {
    /// What goes with the request, in order.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Outputs that become whole at the end.
    outputs: Vec<Output>,
    /// Some output goes to standard output, where nothing else may then be written.
    pub(crate) to_stdout: bool,
    stdin_taken: bool,
    stdout_taken: bool,
}

/// A file that is being written.
struct Output {
    partial: PathBuf,
    target: PathBuf,
    file: Flock<File>,
    /// A file that is there by then is left.
    new: bool,
}

impl Files {
    /// Where standard input and output are in use for something else.
    pub(crate) fn without_standard() -> Files {
        let mut files = Files::default();
        (files.stdin_taken, files.stdout_taken) = (true, true);
        files
    }

    /// Whether the answer goes into a file or pipe of the caller.
    pub(crate) fn writes(&self) -> bool {
        self.to_stdout || !self.outputs.is_empty()
    }

    /// The operation has succeeded: outputs get their names, durably.
    pub(crate) fn commit(&mut self) -> Result<(), Fault> {
        for output in std::mem::take(&mut self.outputs) {
            let Output { partial, target, file, new } = &output;
            let done = file.sync_all().and_then(|()| name(partial, target, *new)).and_then(|()| {
                let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(folder)?.sync_all()
            });
            if let Err(e) = done {
                remove(partial);
                let taken = *new && e.kind() == io::ErrorKind::AlreadyExists;
                return Err(if taken { there(target) } else { told(&e, "give its name to", target) });
            }
        }
        Ok(())
    }

    fn pass(&mut self, source: &mut Source, fd: OwnedFd) -> Result<(), Fault> {
        if self.descriptors.len() >= MAX_DESCRIPTORS {
            return Err(Fault::new(Kind::Limit, format!("a request carries at most {MAX_DESCRIPTORS} files")));
        }
        source.descriptor = u8::try_from(self.descriptors.len()).ok();
        self.descriptors.push(fd);
        Ok(())
    }

    fn stdin(&mut self) -> Result<io::Stdin, Fault> {
        if self.stdin_taken {
            return Err(
                Fault::invalid("- is standard input, which is read by something else already").fix("name a file")
            );
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Fault::invalid("standard input is a terminal")
                .trying("read standard input")
                .fix("name a file, or redirect: `< FILE` or `COMMAND |`"));
        }
        self.stdin_taken = true;
        Ok(stdin)
    }

    fn input(&mut self, source: &mut Source) -> Result<(), Fault> {
        let file = if source.name == "-" {
            File::from(duplicate(self.stdin()?.as_fd(), "standard input")?)
        } else {
            let path = Path::new(&source.name);
            File::open(path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => told(&e, "open", path)
                    .fix("look at the path: it is opened here, with your own rights; - stands for standard input"),
                _ => told(&e, "open", path),
            })?
        };
        passable(&file, &source.name, "read")?;
        self.pass(source, file.into())
    }

    fn output(&mut self, source: &mut Source, new: bool) -> Result<(), Fault> {
        if source.name == "-" {
            if self.stdout_taken {
                return Err(Fault::invalid("- is standard output, which carries answers here").fix("name a file"));
            }
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(Fault::invalid("standard output is a terminal")
                    .trying("write to standard output")
                    .fix("name a file, or redirect: `> FILE` or `| COMMAND`"));
            }
            let file = File::from(duplicate(stdout.as_fd(), "standard output")?);
            passable(&file, "standard output", "write")?;
            self.to_stdout = true;
            return self.pass(source, file.into());
        }
        let path = PathBuf::from(&source.name);
        match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(&path).map_err(|e| told(&e, "open", &path))?;
                passable(&file, &source.name, "write")?;
                self.pass(source, file.into())
            }
            Ok(_) if new => Err(there(&path)),
            // Through a symbolic link: the link stays, what it points at is replaced.
            Ok(_) => self.whole_file(source, path.canonicalize().map_err(|e| told(&e, "open", &path))?, new),
            Err(_) => self.whole_file(source, path, new),
        }
    }

    fn whole_file(&mut self, source: &mut Source, target: PathBuf, new: bool) -> Result<(), Fault> {
        let mut partial = target.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = claim(&partial)?;
        let passed = file.try_clone().map_err(|e| told(&e, "open", &partial))?;
        self.outputs.push(Output { partial, target, file, new });
        self.pass(source, passed.into())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.outputs.iter().for_each(|o| remove(&o.partial));
    }
}

/// Gives a whole file its name; one that is there stays if it is to be a new one.
fn name(partial: &Path, target: &Path, new: bool) -> io::Result<()> {
    if new {
        match renameat2(AT_FDCWD, partial, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems cannot say that; there was none when it began.
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            done => return Ok(done?),
        }
    }
    std::fs::rename(partial, target)
}

fn there(target: &Path) -> Fault {
    Fault::new(Kind::Duplicate, "a file of that name is there already")
        .trying(format!("write {}", target.display()))
        .fix("say --force to replace it, or another name")
}

/// Goes on past a failure: the failure that led here is the one to be told.
fn remove(partial: &Path) {
    let _ = std::fs::remove_file(partial);
}

/// An empty `NAME.partial` that nobody else is writing; one left behind by a killed command is taken over.
fn claim(partial: &Path) -> Result<Flock<File>, Fault> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(partial)
            .map_err(|e| told(&e, "open", partial))?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
            Fault::new(Kind::Busy, e.to_string())
                .trying(format!("write {}", partial.display()))
                .fix("another command writes the same file: wait for it, or use another name")
        })?;
        let ours = locked.metadata().map_err(|e| told(&e, "open", partial))?;
        // Between opening and locking, another command may have given it its name or removed it.
        if std::fs::metadata(partial).is_ok_and(|now| now.ino() == ours.ino() && now.dev() == ours.dev()) {
            locked.set_len(0).map_err(|e| told(&e, "empty", partial))?;
            return Ok(locked);
        }
    }
}

fn duplicate(fd: std::os::fd::BorrowedFd<'_>, what: &str) -> Result<OwnedFd, Fault> {
    fd.try_clone_to_owned().map_err(|e| Fault::new(kind_of(&e), e.to_string()).trying(format!("use {what}")))
}

/// The daemon takes regular files, pipes and block devices; anything else is refused here, where it can be named.
fn passable(file: &File, name: &str, verb: &str) -> Result<(), Fault> {
    let found = file.metadata().map_err(|e| told(&e, "open", Path::new(name)))?.file_type();
    if found.is_file() || found.is_fifo() || found.is_block_device() {
        return Ok(());
    }
    let what = if found.is_dir() {
        "a folder"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device without blocks"
    };
    Err(Fault::invalid(format!("it is {what}"))
        .trying(format!("{verb} {name}"))
        .fix("use a file, a pipe or a block device"))
}

fn told(error: &io::Error, verb: &str, path: &Path) -> Fault {
    Fault::new(kind_of(error), error.to_string()).trying(format!("{verb} {}", path.display()))
}

impl Resolve for Files {
    fn open(&mut self, source: &mut Source, direction: Direction) -> Result<(), Fault> {
        match direction {
            Direction::Input => self.input(source),
            Direction::Output => self.output(source, false),
            Direction::New => self.output(source, true),
        }
    }

    fn absolute(&mut self, path: &mut HostPath) -> Result<(), Fault> {
        let full = std::path::absolute(&path.0).map_err(|e| told(&e, "find", Path::new(&path.0)))?;
        let text = full.to_str().ok_or_else(|| Fault::invalid("the current folder's path is not UTF-8"))?;
        // The folder the command runs in may hold what a typed path may not.
        *path = text.parse().map_err(Fault::invalid)?;
        Ok(())
    }

    fn warn(&mut self, text: &str) {
        eprintln!("bmictl: warning: {text}");
    }

    fn lines(&mut self, path: &str) -> Result<Vec<String>, Fault> {
        let mut text = String::new();
        let read = if path == "-" {
            self.stdin()?.lock().take(MOST_BYTES + 1).read_to_string(&mut text)
        } else {
            File::open(path).and_then(|f| f.take(MOST_BYTES + 1).read_to_string(&mut text))
        };
        read.map_err(|e| told(&e, "read", Path::new(path)))?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if text.len() as u64 > MOST_BYTES || lines.len() > MOST_LINES {
            return Err(Fault::new(Kind::Limit, format!("it has more than {MOST_LINES} lines or 1 MiB"))
                .trying(format!("read {path}"))
                .fix("split it"));
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests;
