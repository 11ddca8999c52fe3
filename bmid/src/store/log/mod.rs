//! The log's two files, used in turns: commits go to one while what the other holds gets into sled. Nothing here knows what a
//! commit means.
//!
//! Each file is made in full before it is used, and written over from its beginning in every round: a commit is then one
//! write into bytes that are there already and one fdatasync, which has no file system's journal to wait for.

mod frame;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};

pub(super) use frame::{BLOCK, Changes, FRAME_HEAD, VERSION, encode, length, padded};
pub use frame::{BadLog, read_log, recode_log};
#[cfg(test)]
pub(super) use frame::{head, seal};

/// Usual size of a file, beyond which it grows only for a commit that is larger by itself or while the other file is not
/// free.
/// Files of an earlier release that are shorter would be taken for cut off: who raises it must let those pass.
pub const LOG_BYTES: u64 = 2 << 20;
/// Their names in the store's folder.
const NAMES: [&str; 2] = ["log.0", "log.1"];

/// What one frame may take of a commit at most.
pub(super) fn room_for(changes: &Changes) -> u64 {
    padded(FRAME_HEAD + length(changes)) as u64
}

/// Makes the files that are missing, whole and durable.
pub(super) fn create(folder: &Path, size: u64) -> io::Result<()> {
    for name in NAMES {
        let path = folder.join(name);
        if path.try_exists()? {
            continue;
        }
        let mut nonce = frame::Nonce::default();
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let new = folder.join("log.new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut bytes = frame::head(&nonce);
        bytes.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
    }
    File::open(folder)?.sync_all()
}

/// Whether a folder has all, none or some of the files.
pub(super) fn present(folder: &Path) -> io::Result<Option<bool>> {
    let there = [folder.join(NAMES[0]).try_exists()?, folder.join(NAMES[1]).try_exists()?];
    Ok(match there {
        [true, true] => Some(true),
        [false, false] => Some(false),
        _ => None,
    })
}

/// Why the log does not open.
pub(super) enum NoLog {
    /// The system says no.
    Io(io::Error),
    /// Its bytes do not hold.
    Bad(BadLog),
}

/// Everything committed after `reached`, put together, with the number of the last commit.
pub(super) fn replay(folder: &Path, reached: u64) -> Result<(Changes, u64), NoLog> {
    let mut found = Vec::new();
    for name in NAMES {
        let mut bytes = Vec::new();
        File::open(folder.join(name)).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(NoLog::Io)?;
        let commits = frame::read(&bytes, reached).map_err(|e| {
            NoLog::Bad(match e {
                BadLog::Damaged(why) => BadLog::Damaged(format!("{name}: {why}")),
                newer => newer,
            })
        })?;
        found.push(commits);
    }
    found.sort_by_key(|commits| commits.first().map(|(n, _)| *n));
    let (mut all, mut last) = (Changes::new(), reached);
    for (number, changes) in found.into_iter().flatten() {
        if number != last + 1 {
            let why = format!("commit {number} follows commit {last}, and what was between them is missing");
            return Err(NoLog::Bad(BadLog::Damaged(why)));
        }
        all.extend(changes);
        last = number;
    }
    Ok((all, last))
}

/// The two files, open.
#[derive(Clone)]
pub(super) struct Files {
    files: [Arc<File>; 2],
    nonces: [frame::Nonce; 2],
    /// What a file has when it has not grown.
    size: u64,
}

impl Files {
    pub(super) fn open(folder: &Path, size: u64) -> Result<Files, NoLog> {
        let one = |name: &str| {
            let file = OpenOptions::new().read(true).write(true).open(folder.join(name)).map_err(NoLog::Io)?;
            let mut head = [0; BLOCK];
            // Commits that a file lost with its end would be missed by nobody.
            let length = file.metadata().map_err(NoLog::Io)?.len();
            if length < size {
                let why = format!("{name} was cut off: it has {length} bytes, and was made with {size}");
                return Err(NoLog::Bad(BadLog::Damaged(why)));
            }
            file.read_exact_at(&mut head, 0).map_err(NoLog::Io)?;
            Ok((Arc::new(file), frame::nonce(&head).map_err(NoLog::Bad)?))
        };
        let ((a, an), (b, bn)) = (one(NAMES[0])?, one(NAMES[1])?);
        Ok(Files { files: [a, b], nonces: [an, bn], size })
    }

    /// Gives back what a file grew by, when nothing in it is needed any more.
    pub(super) fn shrink(&self, which: usize) -> io::Result<()> {
        let file = &self.files[which];
        if file.metadata()?.len() > self.size { file.set_len(self.size) } else { Ok(()) }
    }
}

/// The committer's side: where the next frame goes.
pub(super) struct Writing {
    files: Files,
    current: usize,
    at: u64,
}

impl Writing {
    /// Begins with the first file; what it holds must be in sled.
    pub(super) fn new(files: Files) -> Writing {
        Writing { files, current: 0, at: BLOCK as u64 }
    }

    /// Writes commits as one frame, durable when this returns.
    pub(super) fn append(&mut self, first: u64, commits: Vec<Vec<u8>>) -> io::Result<()> {
        let frame = frame::seal(&self.files.nonces[self.current], first, commits);
        let file = &self.files.files[self.current];
        file.write_all_at(&frame, self.at)?;
        file.sync_data()?;
        self.at += frame.len() as u64;
        Ok(())
    }

    /// Goes on at the beginning of the other file.
    pub(super) fn switch(&mut self) {
        self.current ^= 1;
        self.at = BLOCK as u64;
    }
}

/// The writer's side: how much of the current file is spoken for, so that a commit is refused before anything has changed
/// where there is no room for it.
pub(super) struct Space {
    files: Files,
    current: usize,
    filled: u64,
    sizes: [u64; 2],
}

impl Space {
    /// Begins as [`Writing::new`] does.
    pub(super) fn new(files: Files) -> io::Result<Space> {
        let sizes = [files.files[0].metadata()?.len(), files.files[1].metadata()?.len()];
        Ok(Space { files, current: 0, filled: BLOCK as u64, sizes })
    }

    /// Whether `need` more bytes fit without growing.
    pub(super) fn fits(&self, need: u64) -> bool {
        self.filled + need <= self.sizes[self.current]
    }

    /// Bytes spoken for.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    /// Speaks for `need` bytes; the file grows if they do not fit.
    pub(super) fn take(&mut self, need: u64) -> io::Result<()> {
        let end = self.filled + need;
        let size = &mut self.sizes[self.current];
        if end > *size {
            // Some more at once, so that the next ones need not ask.
            let more = need.next_multiple_of(self.files.size);
            let (from, length) = (i64::try_from(*size), i64::try_from(more));
            let (from, length) = (from.map_err(io::Error::other)?, length.map_err(io::Error::other)?);
            fallocate(&*self.files.files[self.current], FallocateFlags::empty(), from, length)?;
            *size += more;
        }
        self.filled = end;
        Ok(())
    }

    /// Goes on in the other file, which must be free. Gives the one left.
    pub(super) fn switch(&mut self) -> usize {
        let left = self.current;
        self.current ^= 1;
        self.filled = BLOCK as u64;
        // Whoever freed it has given back what it grew by.
        self.sizes[self.current] = self.sizes[self.current].min(self.files.size);
        left
    }
}
