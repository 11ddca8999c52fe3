//! Starting a worker and waiting until it answers. It never starts one beside another that lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi::model::Kind;
use bmi::step::target::fill_address;
use bmi::step::{StartWorker, StopWorker, WorkerKind};
use nix::poll::{PollFd, PollFlags, ppoll};

use super::words::{cure, free_port, silence};
use super::{Manager, Workers, conf, detached, probe, reap, room, systemd};
use crate::drivers::DriverError;
use crate::drivers::host::Process;

/// How long a worker has until it answers its first question.
const START: Duration = Duration::from_secs(10);

/// Until a worker that starts is looked at again: a look is some ten microseconds. To have the kernel tell of its files (inotify) took longer
/// than the start itself: letting go of such a watch waits 10 to 100 ms for all processors (Linux 6.18).
const LOOK: Duration = Duration::from_micros(300);

/// Waits a little, less if the process ends.
fn pause(process: Option<&Process>) {
    let limit = nix::sys::time::TimeSpec::from(LOOK);
    let mut waiting: Vec<PollFd<'_>> =
        process.map(|p| PollFd::new(p.handle(), PollFlags::POLLIN)).into_iter().collect();
    if ppoll(&mut waiting, Some(limit), None).is_err() {
        std::thread::sleep(LOOK);
    }
}

impl Workers {
    pub(super) fn start(&self, s: &StartWorker) -> Result<bool, DriverError> {
        let tried = || format!("start {} of network {}", s.kind.as_str(), s.network);
        self.known(|k| k.entry((s.network, s.kind)).or_default().ending = false);
        if let Some(process) = self.find(s.network, s.kind)? {
            if !self.answers(s.network, s.kind, &process, probe::ANSWER) {
                let why = format!("it runs already and {}", silence(&process));
                return Err(DriverError::new(Kind::Unavailable, tried(), why).fix(cure(s.kind, process.pid)));
            }
            if s.kind == WorkerKind::Tgtd || self.has_current_conf(s.network, s.kind) {
                detached::bound_log(&self.inner.paths, s.network, s.kind);
                return Ok(false);
            }
            // It reads its configuration only at its start; machines notice nothing of a restart.
            self.stop(&StopWorker { network: s.network, kind: s.kind })?;
        }
        if s.kind != WorkerKind::Tgtd && !conf(&self.inner.paths, s.network, s.kind).exists() {
            let why = "the network's boot service is not laid out";
            return Err(DriverError::new(Kind::Conflict, tried(), why).fix("bring the network up: bmictl reconcile"));
        }
        if s.kind == WorkerKind::Tgtd && probe::port_is_taken(fill_address(s.slot), s.port) {
            // It would live on without any portal.
            let why = format!("TCP port {} is taken by another program", s.port);
            return Err(DriverError::new(Kind::Conflict, tried(), why).fix(free_port(s.port)));
        }
        let conf = self.conf_text(s.network, s.kind);
        let process = match self.inner.manager {
            Manager::Systemd => {
                systemd::start(&self.inner.paths, s)?;
                self.wait_for_answer(s)?
            }
            Manager::Detached => self.start_detached(s)?,
        };
        if s.kind != WorkerKind::Tgtd {
            self.note(s.network, &format!("{}/started", s.kind.as_str()), &conf)?;
        } else {
            // The last one the kernel should end when memory runs out. It matters only then; not everywhere allowed.
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", process.pid), "-900");
        }
        Ok(true)
    }

    fn start_detached(&self, s: &StartWorker) -> Result<Arc<Process>, DriverError> {
        let (paths, tried) = (&self.inner.paths, || format!("start {} of network {}", s.kind.as_str(), s.network));
        let log = detached::open_log(paths, s.network, s.kind)?;
        let mut child = detached::spawn(paths, s, log, |name| self.program(name))?;
        let process = Process::open(child.id(), &|_| true);
        let end = Instant::now() + START;
        loop {
            if let Some(status) = child.try_wait().map_err(|e| DriverError::io(tried(), e))? {
                let said = detached::last_words(paths, s.network, s.kind);
                return Err(DriverError::new(Kind::Outside, tried(), format!("it ended at once ({status}): {said}"))
                    .fix(room::advice(&said)));
            }
            if probe::ready(paths, s.network, s.kind)
                && probe::answers(paths, s.network, s.kind, probe::ANSWER)
                && let Some(process) = probe::is(paths, s.network, s.kind, child.id())
            {
                reap::reap(child);
                let process = Some(Arc::new(process));
                self.remember(s.network, s.kind, &process, None);
                return process.ok_or_else(|| DriverError::new(Kind::Internal, tried(), "it has no process"));
            }
            if Instant::now() > end {
                // Ours, and it has served nobody yet.
                let _ = child.kill();
                let _ = child.wait();
                let said = detached::last_words(paths, s.network, s.kind);
                let why = format!("it did not answer within {} s: {said}", START.as_secs());
                return Err(DriverError::new(Kind::Timeout, tried(), why));
            }
            pause(process.as_ref());
        }
    }

    fn wait_for_answer(&self, s: &StartWorker) -> Result<Arc<Process>, DriverError> {
        let end = Instant::now() + START;
        loop {
            if probe::ready(&self.inner.paths, s.network, s.kind)
                && let Some(process) = self.find(s.network, s.kind)?
                && self.answers(s.network, s.kind, &process, probe::ANSWER)
            {
                return Ok(process);
            }
            if Instant::now() > end {
                let tried = format!("start {} of network {}", s.kind.as_str(), s.network);
                let why = format!("it did not answer within {} s", START.as_secs());
                let fix = match self.inner.manager {
                    Manager::Systemd => format!("see why: systemctl status {}", systemd::unit(s.network, s.kind)),
                    Manager::Detached => format!("see why: {}", self.inner.paths.network(s.network).display()),
                };
                return Err(DriverError::new(Kind::Timeout, tried, why).fix(fix));
            }
            pause(None);
        }
    }
}
