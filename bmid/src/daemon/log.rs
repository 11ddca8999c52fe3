//! Where log lines go: to the journal with their fields if systemd reads our standard error, else there, for people.
//!
//! No secret is ever a field or a text: what is logged is faults, ids and names.

use std::io::{IsTerminal, stderr};
use std::os::fd::AsFd;

use bmi::model::{Fault, Kind};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Changes what is logged.
pub struct Handle(reload::Handle<EnvFilter, Registry>);

/// Reads a filter like `info` or `bmid::run=debug,info`.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|e| format!("{text:?} is no filter: {e}"))
}

/// Begins to log. Once a process.
pub fn start(text: &str) -> Result<Handle, Fault> {
    let bad = |why: String| Fault::new(Kind::Invalid, why).trying("begin to log");
    let (filter, handle) = reload::Layer::new(filter(text).map_err(bad)?);
    let to = if journal_reads_stderr() { journal() } else { None }.unwrap_or_else(people);
    tracing_subscriber::registry().with(to.with_filter(filter)).try_init().map_err(|e| bad(e.to_string()))?;
    Ok(Handle(handle))
}

impl Handle {
    /// Logs by another filter from now on.
    pub fn change(&self, text: &str) -> Result<(), Fault> {
        let bad = |why: String| Fault::invalid(why).trying("change what is logged");
        self.0.reload(filter(text).map_err(bad)?).map_err(|e| bad(e.to_string()))
    }
}

type To = Box<dyn Layer<Registry> + Send + Sync>;

fn people() -> To {
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(colours).with_target(false).boxed()
}

/// None: the journal is not there after all.
fn journal() -> Option<To> {
    // No prefix: `operation=...` becomes OPERATION=..., which `journalctl OPERATION=...` finds.
    let layer = tracing_journald::layer().ok()?.with_field_prefix(None).with_syslog_identifier("bmid".to_owned());
    Some(layer.boxed())
}

/// systemd says in JOURNAL_STREAM which stream it connected to the journal; a redirected standard error is another one.
fn journal_reads_stderr() -> bool {
    let Some((dev, ino)) = std::env::var("JOURNAL_STREAM").ok().and_then(|s| {
        let (dev, ino) = s.split_once(':')?;
        Some((dev.parse::<u64>().ok()?, ino.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    nix::sys::stat::fstat(stderr().as_fd()).is_ok_and(|at| (at.st_dev, at.st_ino) == (dev, ino))
}
