//! The worker driver: a tgtd, a dnsmasq and a server of boot files by HTTP for each network, running and answering, whatever becomes
//! of bmid.
//!
//! Workers depend on nothing of bmid's: they are found again by what the kernel says of them (their arguments and
//! environment name their network's files), never by a number alone, so that nothing else is ever stopped. Never fills a
//! tgtd, and never restarts one that lives: its disks are in use, even if it does not answer.
//!
//! Who notices a death: every process that a start or an observation has found is held by a handle of the kernel's, and
//! [`Watch::died`] waits on all of them. It tells of a worker that its manager has already started again, too: that one is
//! empty. Who lives and does not answer is told as such, with what the kernel says of it.
//!
//! ```text
//! RUN/net/<network>/tgtd/      management socket, its lock, process id, log
//! RUN/net/<network>/tgtd.env   what the systemd unit starts it with; the others have one, too
//! RUN/net/<network>/dnsmasq/   pid file and leases (dnsmasq's), log, what it was started with
//! RUN/net/<network>/http/      the same of the HTTP server, without leases
//! ```

mod confined;
mod detached;
mod probe;
mod reap;
mod room;
pub mod sim;
mod start;
mod systemd;
mod watch;
mod words;

pub use watch::{Death, Watch};

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bmi::model::{Id, Kind};
use bmi::step::{Fact, Finding, Health, Look, Room, Scope, Seen, Severity, StopWorker, WorkerKind, WorkerStep};
use rustix::process::Signal;

use super::host::{self, Process, Shared};
use super::{Done, Driver, DriverError, Paths, StepCx};
use nix::sys::eventfd::{EfdFlags, EventFd};
use probe::Listing;
use watch::Known;
use words::{cure, iscsi_port, package, program_of, silence};

/// Who keeps workers running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// systemd's template units `bmid-tgtd@`, `bmid-dnsmasq@` and `bmid-http@`.
    Systemd,
    /// Nobody: they are started in a session of their own and found again.
    Detached,
}

impl Manager {
    /// The units only if bmid itself runs as a system service with the units' run folder: a detached worker would be
    /// killed with the service's cgroup, and a unit is of no use to a bmid with other folders or in a container.
    #[must_use]
    pub fn auto(run: &Path) -> Manager {
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let booted = Path::new("/run/systemd/system").is_dir();
        Manager::choose(std::env::var_os("INVOCATION_ID").is_some(), &cgroup, booted, run)
    }

    fn choose(invoked: bool, cgroup: &str, booted: bool, run: &Path) -> Manager {
        let service = cgroup.lines().any(|l| l.contains("/system.slice/") && l.contains(".service"));
        if invoked && service && booted && run == Path::new(systemd::RUN) {
            Manager::Systemd
        } else {
            Manager::Detached
        }
    }
}

/// Seconds after which a worker that lives and does not answer is replaced (`run/sight.rs` counts them; decision 0014).
pub const SILENT: u64 = 30;
/// How long a worker has to go once it is told to.
const STOP: Duration = Duration::from_secs(10);

/// The workers of all networks. Clones are handles to the same.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    paths: Paths,
    manager: Manager,
    /// Where programs are looked for; none means the usual places.
    programs: Option<PathBuf>,
    known: Mutex<HashMap<(Id, WorkerKind), Known>>,
    /// All workers' processes, for all who look at the same time.
    listing: Shared<Listing>,
    /// Networks of which something ran when this bmid first looked.
    before: OnceLock<HashSet<Id>>,
    /// Written to when there is another process to wait for. Without it a wait sees it when its time is up.
    news: Option<EventFd>,
}

impl Workers {
    /// A driver for the workers of the networks beneath `paths`.
    #[must_use]
    pub fn new(paths: Paths, manager: Manager) -> Workers {
        Workers::build(paths, manager, None)
    }

    fn build(paths: Paths, manager: Manager, programs: Option<PathBuf>) -> Workers {
        let news = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok();
        let (listing, before, known) = (Shared::default(), OnceLock::new(), Mutex::default());
        Workers { inner: Arc::new(Inner { paths, manager, programs, known, listing, before, news }) }
    }

    /// The worker's process, if there is one, answering or not.
    fn find(&self, network: Id, kind: WorkerKind) -> Result<Option<Arc<Process>>, DriverError> {
        let known = self.known(|k| k.get(&(network, kind)).and_then(|k| k.process.clone()));
        if let Some(process) = known
            && process.alive()
        {
            return Ok(Some(process));
        }
        let found = self.look_for(network, kind)?.map(Arc::new);
        self.remember(network, kind, &found, probe::noted(&self.inner.paths, network, kind));
        Ok(found)
    }

    /// The worker's process: by its pid file or socket if they tell the truth, else among all processes, unless it never ran.
    fn look_for(&self, network: Id, kind: WorkerKind) -> Result<Option<Process>, DriverError> {
        let paths = &self.inner.paths;
        let hinted = probe::hinted(paths, network, kind);
        // A start leaves a trace before there is a process. Who lost it ran before this bmid, which looked once at all there are.
        if hinted.is_some() || (!probe::has_trace(paths, network, kind) && !self.ran_before(network)?) {
            return Ok(hinted);
        }
        Ok(probe::find_all(paths, &self.inner.listing, network, kind)?.pop())
    }

    fn ran_before(&self, network: Id) -> Result<bool, DriverError> {
        let before = match self.inner.before.get() {
            Some(before) => before,
            None => {
                let listed = probe::list(&self.inner.paths, &self.inner.listing)?;
                self.inner.before.get_or_init(|| listed.networks())
            }
        };
        Ok(before.contains(&network))
    }

    /// Keeps a process that was found, or that none was, for [`Watch`].
    fn remember(&self, network: Id, kind: WorkerKind, found: &Option<Arc<Process>>, before: Option<u32>) {
        let is_new = self.known(|k| {
            let first = !k.contains_key(&(network, kind));
            let known = k.entry((network, kind)).or_default();
            if first {
                known.lost = before.filter(|pid| found.as_ref().is_none_or(|p| *pid != 0 && p.pid != *pid));
            }
            match found {
                // One that has died and was not told yet stays until it is: the new process is found again later.
                Some(process) if !known.ending && known.process.as_ref().is_none_or(|p| p.pid == process.pid) => {
                    let is_new = known.process.is_none();
                    known.seen += u32::from(is_new);
                    known.process = Some(Arc::clone(process));
                    is_new
                }
                _ => known.lost.is_some(),
            }
        });
        if is_new {
            if let (WorkerKind::Tgtd, Some(process)) = (kind, found) {
                // A bmid to come sees by it that this one has ended. Should it fail, a death goes untold then.
                let _ = self.note(network, "tgtd/pid", &process.pid.to_string());
            }
            // Full means that it was told already.
            let _ = self.inner.news.as_ref().map(|n| n.write(1));
        }
    }

    fn known<T>(&self, f: impl FnOnce(&mut HashMap<(Id, WorkerKind), Known>) -> T) -> T {
        f(&mut self.inner.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn program(&self, name: &str) -> Result<PathBuf, DriverError> {
        let found = match &self.inner.programs {
            None if name == program_of(WorkerKind::Http) => detached::bmid(),
            None => host::program(name),
            Some(folder) => Some(folder.join(name)).filter(|p| p.is_file()),
        };
        found.ok_or_else(|| {
            let why = format!("the program {name} is not on this host");
            DriverError::new(Kind::Unavailable, format!("run {name}"), why)
                .fix(format!("install it: {}", package(name)))
        })
    }

    fn stop(&self, s: &StopWorker) -> Result<bool, DriverError> {
        let tried = || format!("stop {} of network {}", s.kind.as_str(), s.network);
        // It is meant to end: nobody is told of a death.
        self.known(|k| {
            let known = k.entry((s.network, s.kind)).or_default();
            *known = Known { seen: known.seen, ending: true, ..Known::default() };
        });
        let mut changed = false;
        if self.inner.manager == Manager::Systemd {
            changed |= systemd::stop(s)?;
        }
        // Every process of that worker: a bmid that was killed in a start may have left more than the one it would find.
        for process in probe::find_all(&self.inner.paths, &self.inner.listing, s.network, s.kind)? {
            changed = true;
            // tgtd ignores SIGTERM; everything it holds is in its disks.
            let gently = s.kind != WorkerKind::Tgtd;
            if gently {
                process.signal(Signal::TERM).map_err(|e| DriverError::io(tried(), e))?;
            }
            if !gently || !process.ended(Duration::from_secs(2)) {
                process.signal(Signal::KILL).map_err(|e| DriverError::io(tried(), e))?;
            }
            if !process.ended(STOP) {
                let why = format!("process {} does not end: it waits for a device or a file server", process.pid);
                return Err(DriverError::new(Kind::Timeout, tried(), why).fix("look at the datastores it serves"));
            }
        }
        changed |= self.clear(s).map_err(|e| DriverError::io(tried(), e))?;
        Ok(changed)
    }

    /// Takes away what a worker left. dnsmasq's leases stay: they are the network's, not the process's.
    fn clear(&self, s: &StopWorker) -> std::io::Result<bool> {
        let network = self.inner.paths.network(s.network);
        let mut changed = host::remove(&network.join(format!("{}.env", s.kind.as_str())))?;
        match s.kind {
            WorkerKind::Tgtd => {
                changed |= host::remove_folder(&network.join("tgtd"))?;
            }
            WorkerKind::Dnsmasq | WorkerKind::Http => {
                let own = own(&self.inner.paths, s.network, s.kind);
                for name in ["pid", "started", "log"] {
                    changed |= host::remove(&own.join(name))?;
                }
                // With leases in it, it stays.
                let _ = std::fs::remove_dir(own);
            }
        }
        let _ = std::fs::remove_dir(network);
        Ok(changed)
    }

    fn conf_text(&self, network: Id, kind: WorkerKind) -> String {
        host::read(&conf(&self.inner.paths, network, kind)).ok().flatten().unwrap_or_default()
    }

    /// It was started with the configuration that is there now.
    fn has_current_conf(&self, network: Id, kind: WorkerKind) -> bool {
        let started = host::read(&own(&self.inner.paths, network, kind).join("started")).ok().flatten();
        started.as_deref() == Some(&self.conf_text(network, kind))
    }

    fn note(&self, network: Id, name: &str, text: &str) -> Result<(), DriverError> {
        let folder = self.inner.paths.network(network);
        let path = folder.join(name);
        host::write_whole(&folder, &path, text.as_bytes())
            .map(|_| ())
            .map_err(|e| DriverError::io(format!("write {}", path.display()), e))
    }

    /// Whether it answers. One that is stopped need not be asked.
    fn answers(&self, network: Id, kind: WorkerKind, process: &Process, limit: Duration) -> bool {
        !process.is_stopped() && probe::answers(&self.inner.paths, network, kind, limit)
    }

    /// A finding on a worker that lives and does not answer.
    fn silent(&self, network: Id, interface: &str, kind: WorkerKind) -> Option<Finding> {
        let health = self.health(network, kind, probe::GLANCE).ok().filter(|h| h.pid != 0)?;
        Some(Finding {
            check: format!("{} on {interface}", kind.as_str()),
            severity: Severity::Error,
            found: health.problem?,
            fix: cure(kind, health.pid),
        })
    }

    fn health(&self, network: Id, kind: WorkerKind, limit: Duration) -> Result<Health, DriverError> {
        let process = self.find(network, kind)?;
        // Machines can have a worker write as fast as they can send.
        detached::bound_log(&self.inner.paths, network, kind);
        let restarts = self.known(|k| k.get(&(network, kind)).map_or(0, |k| k.seen.saturating_sub(1)));
        let running = process.as_ref().is_some_and(|p| self.answers(network, kind, p, limit));
        let problem = match &process {
            None => Some("it does not run".to_owned()),
            Some(process) if !running => Some(silence(process)),
            Some(_) => None,
        };
        let held = !running && process.as_ref().is_some_and(|p| matches!(p.state(), Some('D' | 't')));
        let (memory, threads) = process.as_ref().map_or((0, 0), |p| p.size());
        let room = self.room(kind, process.as_deref());
        Ok(Health { kind, running, pid: process.map_or(0, |p| p.pid), memory, threads, restarts, problem, held, room })
    }

    /// Findings on limits that a tgtd has nearly reached.
    fn tight(&self, network: Id, interface: &str) -> Vec<Finding> {
        let process = self.find(network, WorkerKind::Tgtd).ok().flatten();
        let room = self.room(WorkerKind::Tgtd, process.as_deref());
        let check = format!("limits of tgtd on {interface}");
        let told = |(found, fix)| Finding { check: check.clone(), severity: Severity::Warning, found, fix };
        room.iter().flat_map(bmi::rules::room::warnings).map(told).collect()
    }

    fn room(&self, kind: WorkerKind, process: Option<&Process>) -> Option<Room> {
        process.filter(|_| kind == WorkerKind::Tgtd).map(room::of)
    }

    fn networks(&self) -> Result<Vec<Seen>, DriverError> {
        let folder = self.inner.paths.run.join("net");
        let names = host::names(&folder).map_err(|e| DriverError::io(format!("list {}", folder.display()), e))?;
        let marks = ["tgtd", "tgtd.env", "dnsmasq/pid", "dnsmasq/started", "http/pid", "http/started"];
        let has = |id: &Id| marks.iter().any(|m| self.inner.paths.network(*id).join(m).exists());
        Ok(names.iter().filter_map(|n| n.parse().ok()).filter(has).map(Seen::Network).collect())
    }
}

/// The folder of what a worker itself writes.
fn own(paths: &Paths, network: Id, kind: WorkerKind) -> PathBuf {
    paths.network(network).join(kind.as_str())
}

/// What a worker is configured by, if it is by a file: the boot driver lays it out.
fn conf(paths: &Paths, network: Id, kind: WorkerKind) -> PathBuf {
    paths.boot(network).join(format!("{}.conf", kind.as_str()))
}

const KINDS: [WorkerKind; 3] = [WorkerKind::Tgtd, WorkerKind::Dnsmasq, WorkerKind::Http];

impl Driver for Workers {
    type Step = WorkerStep;

    fn apply(&self, step: &WorkerStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        match step {
            WorkerStep::StartWorker(s) => self.start(s),
            WorkerStep::StopWorker(s) => self.stop(s),
            WorkerStep::RestartWorker(s) => self.stop(&s.stop()).and_then(|_| self.start(&s.start)),
        }
        .map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Network { network, .. } => {
                let mut seen = Vec::new();
                for kind in KINDS {
                    if let Some(process) = self.find(*network, kind)?
                        && self.answers(*network, kind, &process, probe::ANSWER)
                    {
                        seen.push(Seen::Worker(kind, process.pid));
                    }
                }
                Ok(seen)
            }
            Scope::Networks => self.networks(),
            Scope::Datastore { .. } => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Workers(network) => Some(
                KINDS
                    .iter()
                    .map(|k| self.health(*network, *k, probe::ANSWER))
                    .collect::<Result<_, _>>()
                    .map(Fact::Workers),
            ),
            Look::Room(network) => {
                let found = self.find(*network, WorkerKind::Tgtd);
                Some(found.map(|p| Fact::Room(self.room(WorkerKind::Tgtd, p.as_deref()))))
            }
            Look::Doctor { networks } => {
                let mut needed = vec!["tgtd", "dnsmasq"];
                match self.inner.manager {
                    Manager::Detached => {}
                    Manager::Systemd => needed.push("systemctl"),
                }
                let finding = |name: &&str| match self.program(name) {
                    Ok(path) => (Severity::Ok, format!("found: {}", path.display()), String::new()),
                    Err(e) => (Severity::Error, e.why, e.fix),
                };
                let named = |name: &&str| {
                    let (severity, found, fix) = finding(name);
                    Finding { check: format!("program {name}"), severity, found, fix }
                };
                let silent =
                    networks.iter().flat_map(|(id, interface, _)| KINDS.map(|k| self.silent(*id, interface, k)));
                let programs = needed.iter().map(named).chain([iscsi_port()]);
                let tight = networks.iter().flat_map(|(id, interface, _)| self.tight(*id, interface));
                let watches = room::watches(networks.len());
                Some(Ok(Fact::Findings(programs.chain(silent.flatten()).chain(tight).chain(watches).collect())))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
