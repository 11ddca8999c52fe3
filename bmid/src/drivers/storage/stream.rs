//! What every place does with an input's bytes as they come: sums over them, and leaving zeros out. It opens, reads and
//! keeps nothing itself.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::file::staging::Arrived;

/// A disk is whole sectors.
pub(super) const SECTOR: u64 = 512;

/// The sums over an input.
pub(super) struct Sums {
    md5: Md5,
    sha: Sha256,
    bytes: u64,
}

impl Sums {
    /// Over nothing yet.
    pub(super) fn new() -> Sums {
        Sums { md5: Md5::new(), sha: Sha256::new(), bytes: 0 }
    }

    /// The next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// All bytes were taken.
    pub(super) fn end(self) -> Arrived {
        let mut disk = self.sha.clone();
        let padding = self.bytes.next_multiple_of(SECTOR) - self.bytes;
        disk.update(&[0; SECTOR as usize][..usize::try_from(padding).unwrap_or(0)]);
        Arrived {
            bytes: self.bytes,
            md5: hex(&self.md5.finalize()),
            sha256: hex(&self.sha.finalize()),
            disk_sha256: hex(&disk.finalize()),
        }
    }
}

/// Hands on what is not zero, in runs of whole blocks of the place. Ends with the last run, which may be empty.
pub(super) fn data_runs<E>(
    bytes: &[u8],
    offset: u64,
    block: usize,
    write: impl Fn(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut run = 0..0;
    let mut at = 0;
    while at < bytes.len() {
        // Up to the next block's start: an earlier try may have stopped anywhere.
        let here = usize::try_from((offset + at as u64) % block as u64).unwrap_or(0);
        let end = (at + block - here).min(bytes.len());
        if bytes[at..end].iter().any(|b| *b != 0) {
            if run.end != at {
                write(&bytes[run.clone()], offset + run.start as u64)?;
                run.start = at;
            }
            run.end = end;
        }
        at = end;
    }
    write(&bytes[run.clone()], offset + run.start as u64)
}

/// Bytes as people write sums.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
