//! Who writes what the kernel is told: this process, or a unit of systemd's where bmid may not.
//!
//! It must never write anywhere but into the four files of `/sys/bus/rbd`, and one line at a time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;

use super::key::{KeyFile, NoKey};
use crate::drivers::host;

/// Why a line was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no key to go with it.
    Key(NoKey),
    /// The file does not open.
    Closed(io::Error),
    /// The kernel said no.
    Said(Errno),
    /// The unit that was to write it did not.
    NoUnit(String),
}

/// Somebody who may write there.
pub(crate) trait Hand: Send + Sync {
    /// Has the kernel take a line. It knows the key under the name told as long as that lasts.
    fn write(&self, file: &Path, line: &str, key: Option<(&str, &KeyFile)>) -> Result<(), Refusal>;

    /// Whether the module could be loaded.
    fn loadable(&self) -> bool;

    /// Loads the module, if that can be done; whether it is there is seen afterwards.
    fn load(&self);
}

/// This process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direct;

impl Hand for Direct {
    fn write(&self, file: &Path, line: &str, key: Option<(&str, &KeyFile)>) -> Result<(), Refusal> {
        // Opened first: who may not write needs no key.
        let mut open = OpenOptions::new().write(true).open(file).map_err(Refusal::Closed)?;
        let _held = key.map(|(name, key)| key.hold(name)).transpose().map_err(Refusal::Key)?;
        // The kernel takes a line by one call or not at all.
        match open.write(line.as_bytes()) {
            Ok(n) if n == line.len() => Ok(()),
            Ok(_) => Err(Refusal::Said(Errno::EINVAL)),
            Err(e) => Err(Refusal::Said(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))),
        }
    }

    fn loadable(&self) -> bool {
        modprobe(&["--dry-run"])
    }

    fn load(&self) {
        modprobe(&[]);
    }
}

fn modprobe(more: &[&str]) -> bool {
    let Some(program) = host::program("modprobe") else { return false };
    let quiet = Command::new(program)
        .args(["--quiet", "--use-blacklist"])
        .args(more)
        .arg("rbd")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|s| s.success())
}
