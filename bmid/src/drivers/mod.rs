//! The outside: one driver a family of steps, each with a simulator that passes the same conformance suite.
//!
//! A driver brings the outside to what a step says, and tells what it sees. It decides nothing, keeps nothing between
//! calls that a restart would miss, never sees the store and never another driver. Drivers are synchronous: they run on
//! bounded pools of blocking threads.

pub mod boot;
pub(crate) mod host;
pub mod krbd;
pub mod network;
#[cfg(test)]
pub(crate) mod proving;
pub mod set;
pub mod sim;
pub mod storage;
pub mod target;
pub mod worker;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bmi::model::{Fault, Id, Kind, RbdPlace, Sealed};
use bmi::step::{BootStep, Fact, Imported, Look, NetworkStep, Scope, Seen, StorageStep, TargetStep, WorkerStep};

/// What a driver of one family can do. `Step` is its family; the inverse of a step is another step, so there is no `undo`.
pub trait Driver: Send + Sync {
    /// The family of steps it carries out.
    type Step;

    /// Brings the outside to what the step says, durably. Calling again changes nothing.
    fn apply(&self, step: &Self::Step, cx: &StepCx<'_>) -> Result<Done, DriverError>;

    /// Everything in `scope` that carries our mark. No effect.
    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError>;

    /// Answers a question. No effect. `None`: not a question for this driver.
    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>>;
}

/// What a step may use while it runs.
pub struct StepCx<'a> {
    /// The client's descriptor, for a step that takes input; none after a restart.
    pub input: Option<&'a File>,
    /// Called now and then by long steps: bytes done, bytes in all if known.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
    /// Asked between chunks; when true the step ends with [`Kind::Cancelled`].
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl StepCx<'_> {
    /// For steps that take no input and cannot be cancelled half-way.
    pub const PLAIN: StepCx<'static> = StepCx { input: None, progress: &|_, _| {}, cancelled: &|| false };
}

/// A step is so now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// False: it was so already.
    pub changed: bool,
    /// What an import found out.
    pub imported: Option<Imported>,
}

impl Done {
    /// Something was changed.
    pub const CHANGED: Done = Done { changed: true, imported: None };
    /// It was so already.
    pub const ALREADY: Done = Done { changed: false, imported: None };

    /// [`Done::CHANGED`] or [`Done::ALREADY`].
    pub fn changed(changed: bool) -> Done {
        Done { changed, imported: None }
    }
}

/// Why a driver could not: what was tried on what, why, what to do, and the cause kept as source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {why}")]
pub struct DriverError {
    /// What kind of failure; decides about retrying.
    pub kind: Kind,
    /// What was tried on what: `add LUN 1 to target iqn…`.
    pub tried: String,
    /// Why it failed.
    pub why: String,
    /// What to do; may be empty.
    pub fix: String,
    /// The cause beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DriverError {
    /// A failure of `kind` while trying `tried`, because of `why`.
    pub fn new(kind: Kind, tried: impl Into<String>, why: impl Into<String>) -> DriverError {
        DriverError { kind, tried: tried.into(), why: why.into(), fix: String::new(), source: None }
    }

    /// A failed system call: out of space, permission and the rest are told apart here, once.
    pub fn io(tried: impl Into<String>, e: std::io::Error) -> DriverError {
        let (kind, fix) = match e.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => (Kind::Full, "free space there or choose another datastore"),
            Some(libc::EROFS) => {
                (Kind::Unavailable, "that file system is mounted read-only; look at the kernel's log for why")
            }
            Some(libc::EACCES | libc::EPERM) => (
                Kind::Outside,
                "bmid lacks the permission for it; look at the owner and mode, and at the unit's sandbox",
            ),
            Some(libc::EIO) => (Kind::Unavailable, "the device reports an error; look at the kernel's log"),
            _ => (Kind::Outside, ""),
        };
        DriverError { kind, tried: tried.into(), why: e.to_string(), fix: fix.to_owned(), source: Some(Box::new(e)) }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> DriverError {
        self.fix = fix.into();
        self
    }
}

impl From<DriverError> for Fault {
    fn from(e: DriverError) -> Fault {
        let mut fault = Fault::new(e.kind, e.why).trying(e.tried).fix(e.fix);
        let mut cause = e.source.as_deref().and_then(std::error::Error::source);
        while let Some(c) = cause {
            fault = fault.because(c.to_string());
            cause = c.source();
        }
        fault
    }
}

/// Opens sealed secrets, for the two drivers that must hand them on (tgtd's account, a boot script).
pub trait Unseal: Send + Sync {
    /// The secret's text.
    fn open(&self, sealed: &Sealed) -> Result<String, DriverError>;
}

/// Asks for disks in pools before they are handed on: tgtd opens them in its one loop, where a cluster that does not answer
/// would stop every other disk.
pub trait Pools: Send + Sync {
    /// The disk can be opened now, and no owner that died holds it; its size in bytes. Clients with an address in `alive` are not
    /// taken for dead: they hand their lock over when asked, and would be shut out of all their disks if it were broken. They are asked
    /// for only where somebody holds it.
    fn ready(&self, pool: &RbdPlace, image: &str, alive: &dyn Fn() -> Vec<String>) -> Result<u64, DriverError>;

    /// How the kernel reaches the disk.
    fn reach(&self, pool: &RbdPlace, image: &str) -> Result<krbd::Reach, DriverError>;

    /// The same disk as the kernel names it, whether it is there or not.
    fn disk(&self, pool: &RbdPlace, image: &str) -> Result<krbd::Disk, DriverError>;
}

/// Where things of this bmid live outside its store. `run` is short-lived and survives bmid's restart, not the host's.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The state folder.
    pub state: PathBuf,
    /// The run folder. At most 50 bytes: socket addresses beneath it must fit 107.
    pub run: PathBuf,
}

impl Paths {
    /// Everything of one network: `RUN/net/<network id>`.
    pub fn network(&self, network: Id) -> PathBuf {
        self.run.join("net").join(network.to_string())
    }

    /// What `TGT_IPC_SOCKET` is set to; tgtd and we append `.0` (control port 0).
    pub fn tgtd_ipc(&self, network: Id) -> PathBuf {
        self.network(network).join("tgtd/sock")
    }

    /// tgtd's management socket.
    pub fn tgtd_socket(&self, network: Id) -> PathBuf {
        self.network(network).join("tgtd/sock.0")
    }

    /// What the boot driver lays out: `dnsmasq.conf`, `hosts/`, `tftp/`.
    pub fn boot(&self, network: Id) -> PathBuf {
        self.network(network).join("boot")
    }

    /// What dnsmasq itself writes: pid file and leases.
    pub fn dnsmasq(&self, network: Id) -> PathBuf {
        self.network(network).join("dnsmasq")
    }
}

/// All drivers.
pub struct DriverSet {
    /// Bytes on datastores.
    pub storage: Box<dyn Driver<Step = StorageStep>>,
    /// Targets.
    pub target: Box<dyn Driver<Step = TargetStep>>,
    /// What machines are told.
    pub boot: Box<dyn Driver<Step = BootStep>>,
    /// Addresses.
    pub network: Box<dyn Driver<Step = NetworkStep>>,
    /// Processes.
    pub worker: Box<dyn Driver<Step = WorkerStep>>,
    /// Who notices that one of them dies.
    pub watch: Arc<dyn worker::Watch>,
    /// Who notices that links or addresses change.
    pub news: Arc<dyn network::News>,
    /// The simulators' world, if they are simulators.
    pub(crate) world: Option<sim::World>,
    /// Opens sealed secrets: for steps, and for the one answer that hands a secret out.
    pub(crate) unseal: std::sync::Arc<dyn Unseal>,
}

impl DriverSet {
    /// Passes a point of bmid's own, where a script of faults in a simulated world may end or hold the process, or have
    /// what is done there fail. Nothing happens with real drivers.
    pub(crate) fn cut(&self, family: &str, step: &str, when: &str) -> Result<(), DriverError> {
        match &self.world {
            Some(world) => world.cut(&format!("{family}.{step}.{when}")),
            None => Ok(()),
        }
    }

    /// Carries a step out by the driver of its family.
    pub fn apply(&self, step: &bmi::step::Step, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        use bmi::step::Step;
        match step {
            Step::Storage(s) => self.storage.apply(s, cx),
            Step::Target(s) => self.target.apply(s, cx),
            Step::Boot(s) => self.boot.apply(s, cx),
            Step::Network(s) => self.network.apply(s, cx),
            Step::Worker(s) => self.worker.apply(s, cx),
        }
    }

    /// Asks every driver that knows an answer; findings are joined.
    pub fn look(&self, look: &Look) -> Fact {
        let answers = [
            self.storage.look(look),
            self.target.look(look),
            self.boot.look(look),
            self.network.look(look),
            self.worker.look(look),
        ];
        let mut findings: Option<Vec<bmi::step::Finding>> = None;
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(Fact::Findings(more)) => findings.get_or_insert_default().extend(more),
                Ok(fact) => return fact,
                Err(e) => return Fact::Unknown(Fault::from(e).to_string()),
            }
        }
        findings.map_or_else(|| Fact::Unknown("no driver answers this question".to_owned()), Fact::Findings)
    }
}
