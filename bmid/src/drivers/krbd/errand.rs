//! The kernel told by a unit of systemd's, where bmid runs as a service that may not: `bmid-rbd@.service` runs this program for one
//! order. The instance has a folder `RUN/rbd/<instance>/` with `order`, and afterwards `said`.
//!
//! The order names the file of a key and never holds one. It must never be able to write anywhere but into the kernel's
//! four files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::hand::{Direct, Hand, Refusal};
use super::key::{KeyFile, NoKey};
use crate::drivers::host;

/// The files that take orders.
const FILES: [&str; 4] = ["add", "add_single_major", "remove", "remove_single_major"];

/// What the kernel is to be told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    /// One of [`FILES`].
    file: String,
    line: String,
    key: Option<(String, KeyFile)>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Done,
    NoKey(String),
    KeyRefused(i32),
    Closed(i32),
    Refused(i32),
}

impl Said {
    fn of(result: Result<(), Refusal>) -> Said {
        match result {
            Ok(()) => Said::Done,
            Err(Refusal::Key(NoKey::Refused(e))) => Said::KeyRefused(e as i32),
            Err(Refusal::Key(no)) => Said::NoKey(no.to_string()),
            Err(Refusal::Closed(e)) => Said::Closed(e.raw_os_error().unwrap_or(libc::EIO)),
            Err(Refusal::Said(e)) => Said::Refused(e as i32),
            Err(Refusal::NoUnit(why)) => Said::NoKey(why),
        }
    }

    fn told(self) -> Result<(), Refusal> {
        Err(match self {
            Said::Done => return Ok(()),
            Said::NoKey(why) => Refusal::Key(NoKey::Told(why)),
            Said::KeyRefused(e) => Refusal::Key(NoKey::Refused(Errno::from_raw(e))),
            Said::Closed(e) => Refusal::Closed(std::io::Error::from_raw_os_error(e)),
            Said::Refused(e) => Refusal::Said(Errno::from_raw(e)),
        })
    }
}

/// Has a unit do it.
#[derive(Debug)]
pub(crate) struct Unit {
    folder: PathBuf,
    systemctl: PathBuf,
    orders: AtomicU64,
}

impl Unit {
    /// With bmid's run folder.
    pub(crate) fn new(run: &Path) -> Unit {
        Unit::with(run, "systemctl".into())
    }

    pub(super) fn with(run: &Path, systemctl: PathBuf) -> Unit {
        Unit { folder: run.join("rbd"), systemctl, orders: AtomicU64::new(0) }
    }

    fn send(&self, order: &Order) -> Result<Said, String> {
        let instance = format!("{}-{}", std::process::id(), self.orders.fetch_add(1, Ordering::Relaxed));
        let at = self.folder.join(&instance);
        let failed = |e: std::io::Error| format!("{}: {e}", at.display());
        // One that an earlier bmid of that number left.
        host::remove_folder(&at).map_err(failed)?;
        host::make_folder(&at).map_err(failed)?;
        let text = serde_json::to_vec(order).map_err(|e| e.to_string())?;
        fs::write(at.join("order"), text).map_err(failed)?;
        let unit = format!("bmid-rbd@{instance}.service");
        let ended = Command::new(&self.systemctl).args(["start", &unit]).stdin(Stdio::null()).output();
        let said = host::read(&at.join("said")).ok().flatten();
        // Left behind it is only litter in /run.
        let _ = host::remove_folder(&at);
        let said = said.and_then(|s| serde_json::from_str(&s).ok());
        said.ok_or_else(|| match ended {
            Err(e) => format!("systemctl: {e}"),
            Ok(_) => format!("{unit} failed; `journalctl -u {unit}` says why"),
        })
    }
}

impl Hand for Unit {
    fn write(&self, file: &Path, line: &str, key: Option<(&str, &KeyFile)>) -> Result<(), Refusal> {
        let order = Order {
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            line: line.to_owned(),
            key: key.map(|(name, key)| (name.to_owned(), key.clone())),
        };
        self.send(&order).map_err(Refusal::NoUnit)?.told()
    }

    /// A service sees no modules; the units ask for this one at their start.
    fn loadable(&self) -> bool {
        false
    }

    fn load(&self) {}
}

/// Carries out the order in a folder. False: there is none, or none that is understood.
pub(crate) fn carry_out(at: &Path, sys: &Path) -> bool {
    let order = fs::read(at.join("order")).ok().and_then(|text| serde_json::from_slice::<Order>(&text).ok());
    let Some(order) = order.filter(|o| FILES.contains(&o.file.as_str()) && !o.line.contains('\n')) else {
        return false;
    };
    let key = order.key.as_ref().map(|(name, key)| (name.as_str(), key));
    let said = Said::of(Direct.write(&sys.join("bus/rbd").join(&order.file), &order.line, key));
    serde_json::to_vec(&said).is_ok_and(|text| host::write_whole(at, &at.join("said"), &text).is_ok())
}
