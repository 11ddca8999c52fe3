//! Workers as units of systemd: `bmid-tgtd@<network>.service`, `bmid-dnsmasq@` and `bmid-http@`.
//!
//! Only starts and stops instances and writes what they start with. Never changes a unit: those are installed.

use std::path::Path;
use std::process::{Command, Output};

use bmi::model::{Id, Kind};
use bmi::step::target::fill_address;
use bmi::step::{StartWorker, StopWorker, WorkerKind};

use super::detached::{ASKS_MACHINES, IO_THREADS, guard, quiet};
use crate::drivers::{DriverError, Paths, host};

/// The run folder that the units name.
pub(super) const RUN: &str = "/run/bmid";

/// The unit of a worker.
pub(super) fn unit(network: Id, kind: WorkerKind) -> String {
    format!("bmid-{}@{network}.service", kind.as_str())
}

/// Has systemd start a worker.
pub(super) fn start(paths: &Paths, s: &StartWorker) -> Result<(), DriverError> {
    let tried = || format!("start {}", unit(s.network, s.kind));
    if paths.run != Path::new(RUN) {
        let why = format!("the units expect their files in {RUN}, not in {}", paths.run.display());
        return Err(
            DriverError::new(Kind::Invalid, tried(), why).fix("set workers = \"detached\", or leave the run folder")
        );
    }
    let folder = paths.network(s.network);
    let env = environment(paths, s);
    host::make_folder(&folder.join(s.kind.as_str()))
        .and_then(|()| host::write_whole(&folder, &folder.join(format!("{}.env", s.kind.as_str())), env.as_bytes()))
        .map_err(|e| DriverError::io(tried(), e))?;
    let unit = unit(s.network, s.kind);
    let out = systemctl(&["start", &unit]).map_err(|e| DriverError::io(tried(), e))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ");
    Err(DriverError::new(Kind::Outside, tried(), said).fix(format!("see why: systemctl status {unit}")))
}

/// Has systemd stop a worker and not start it again. False: it was not running.
pub(super) fn stop(s: &StopWorker) -> Result<bool, DriverError> {
    let unit = unit(s.network, s.kind);
    let tried = || format!("stop {unit}");
    let out = systemctl(&["is-active", &unit]).map_err(|e| DriverError::io(tried(), e))?;
    let was = matches!(String::from_utf8_lossy(&out.stdout).trim(), "active" | "activating" | "reloading");
    let out = systemctl(&["stop", &unit]).map_err(|e| DriverError::io(tried(), e))?;
    // 5: there is no such unit, so nothing to stop.
    if out.status.success() || out.status.code() == Some(5) {
        return Ok(was);
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ");
    Err(DriverError::new(Kind::Outside, tried(), said).fix(format!("see why: systemctl status {unit}")))
}

/// What the unit's program is started with.
pub(super) fn environment(paths: &Paths, s: &StartWorker) -> String {
    match s.kind {
        WorkerKind::Tgtd => format!(
            "TGT_IPC_SOCKET={}\nTHREADS={IO_THREADS}\nPORTAL={}:{},{ASKS_MACHINES}\n{}",
            paths.tgtd_ipc(s.network).display(),
            fill_address(s.slot),
            s.port,
            guard().map(|path| format!("LD_PRELOAD={}\n", path.display())).unwrap_or_default()
        ),
        WorkerKind::Dnsmasq => {
            let lines = quiet(paths, s.network);
            lines.iter().map(|(name, value)| format!("{name}=\"{}\"\n", value.display())).collect()
        }
        WorkerKind::Http => String::new(),
    }
}

fn systemctl(args: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl").args(["--no-ask-password", "--no-pager"]).args(args).output()
}
