//! Targets in tgtd, one process a network, through its management socket.
//!
//! `wire` the bytes, `show` the listings, `socket` one request, `client` what can be asked; `make`, `take`, `swap`, `portal`
//! the steps; `seen` and `doctor` the questions. Must never start a program (tgtadm, tgt-admin), never let an initiator meet a
//! target that is not whole, and never put a secret into a text.
//!
//! How a target is kept from initiators while it changes: a new one by binding its ACL last; a live one by setting it
//! offline, which refuses logins as a passing failure (initiators try again) and shows in the listing, so a step that was cut
//! short is seen and completed.

mod account;
mod client;
mod doctor;
mod door;
mod kernel;
mod make;
mod pool;
mod portal;
mod seen;
pub mod show;
mod socket;
mod swap;
mod take;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi::model::{Id, Kind};
use bmi::step::{Fact, Look, Scope, Seen, TargetStep};

use self::client::Client;
use super::check::check;
use crate::drivers::krbd::Krbd;
use crate::drivers::{Done, Driver, DriverError, Paths, Pools, StepCx, Unseal};

/// How long one request may take. The slowest one known, a listing of 5,000 targets, takes under a second.
const LIMIT: Duration = Duration::from_secs(10);
/// The same for a question that nobody needs an answer to.
const LOOK: Duration = Duration::from_secs(5);
/// How long tgtd may take to let go of sessions and LUNs.
const LET_GO: Duration = Duration::from_secs(5);

/// The driver for tgtd.
pub struct Tgt {
    paths: Paths,
    unseal: Arc<dyn Unseal>,
    pools: Option<Arc<dyn Pools>>,
    kernel: Arc<Krbd>,
    guarded: pool::Guarded,
    limit: Duration,
}

impl Tgt {
    /// Finds each network's tgtd beneath `paths`.
    #[must_use]
    pub fn new(paths: Paths, unseal: Arc<dyn Unseal>) -> Tgt {
        let guarded = pool::Guarded::default();
        Tgt { paths, unseal, pools: None, kernel: Arc::new(Krbd::direct()), guarded, limit: LIMIT }
    }

    /// The same, for disks in pools too.
    #[must_use]
    pub fn with_pools(self, pools: Arc<dyn Pools>) -> Tgt {
        Tgt { pools: Some(pools), ..self }
    }

    /// The same, with the kernel's RBD client that datastores use, too.
    #[must_use]
    pub(crate) fn with_kernel(self, kernel: Arc<Krbd>) -> Tgt {
        Tgt { kernel, ..self }
    }

    fn client(&self, network: Id) -> Client {
        Client::new(network, self.paths.tgtd_socket(network), self.limit)
    }

    /// Those of the other networks. One that cannot be listed has nothing open that could be asked for.
    fn others(&self, network: Id) -> Vec<Client> {
        let all = seen::networks(&self.paths).unwrap_or_default();
        let id = |s| if let Seen::Network(id) = s { Some(id) } else { None };
        all.into_iter().filter_map(id).filter(|id| *id != network).map(|id| self.client(id).limit(LOOK)).collect()
    }
}

impl Driver for Tgt {
    type Step = TargetStep;

    fn apply(&self, step: &TargetStep, _cx: &StepCx<'_>) -> Result<Done, DriverError> {
        check(step)?;
        let at = At {
            client: self.client(step.network()),
            tried: step.describe(),
            pools: self.pools.clone(),
            kernel: &self.kernel,
            guarded: &self.guarded,
            folder: self.paths.network(step.network()).join("tgtd"),
            others: &|| self.others(step.network()),
            paths: self.paths.clone(),
        };
        let changed = match step {
            TargetStep::MakeTarget(s) => make::make(&at, s, &*self.unseal),
            TargetStep::DropTarget(s) => take::take(&at, s),
            TargetStep::SwapLun(s) => swap::swap(&at, s),
            TargetStep::SwapAccount(s) => account::swap(&at, s, &*self.unseal),
            TargetStep::OpenPortal(s) => portal::open(&at, s),
            TargetStep::ClosePortal(s) => portal::close(&at, s),
        }?;
        Ok(Done::changed(changed))
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Datastore { .. } => Ok(Vec::new()),
            Scope::Network { network, .. } => seen::network(&self.client(*network), *network, &self.kernel),
            Scope::Networks => seen::networks(&self.paths),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        let client = |network| self.client(network).limit(self.limit.min(LOOK));
        match look {
            Look::Sessions { network, tid, iqn } => {
                Some(seen::sessions(&client(*network), *tid, iqn).map(Fact::Sessions))
            }
            Look::Targets(network) => Some(seen::network(&client(*network), *network, &self.kernel).map(Fact::Targets)),
            Look::Doctor { networks } => Some(Ok(Fact::Findings(doctor::findings(
                networks,
                |id| self.paths.network(id).join("tgtd"),
                |id| self.client(id),
            )))),
            _ => None,
        }
    }
}

/// One step at one tgtd: whom to ask, and what to say was tried.
struct At<'a> {
    client: Client,
    tried: String,
    /// Who is asked for disks in pools.
    pools: Option<Arc<dyn Pools>>,
    /// Who maps them.
    kernel: &'a Krbd,
    /// Which tgtds have the guard.
    guarded: &'a pool::Guarded,
    /// Files of that tgtd.
    folder: PathBuf,
    /// The tgtds of the other networks.
    others: &'a dyn Fn() -> Vec<Client>,
    /// Those of all.
    paths: Paths,
}

impl At<'_> {
    /// All targets whole, with backings named as steps name them.
    fn listing(&self) -> Result<Vec<show::Listed>, client::Failure> {
        let mut all = self.client.listing()?;
        for lun in all.iter_mut().flat_map(|t| &mut t.luns) {
            lun.path = kernel::named(self.kernel, std::mem::take(&mut lun.path));
        }
        Ok(all)
    }

    /// Who is asked for disks in pools, or the error that nobody is.
    fn pools(&self) -> Result<&dyn Pools, DriverError> {
        self.pools.as_deref().ok_or_else(|| self.error(Kind::Internal, "nobody can be asked for disks in pools"))
    }

    /// A request's failure, told as this step's.
    fn failed(&self, failure: client::Failure) -> DriverError {
        self.client.fault(self.tried.clone(), failure)
    }

    fn error(&self, kind: Kind, why: impl Into<String>) -> DriverError {
        DriverError::new(kind, self.tried.clone(), why)
    }

    /// Refused because somebody is logged in.
    fn in_use(&self, iqn: &str, live: &[show::Connection]) -> DriverError {
        let mut who: Vec<String> = live.iter().map(|c| format!("{} from {}", c.initiator, c.address)).collect();
        who.dedup();
        self.error(Kind::Conflict, format!("{} is logged in to target {iqn}", who.join(", ")))
            .fix("power the machine off first, or force it")
    }

    /// Sees to it that nobody is logged in and nobody can: the target is offline afterwards. Without `force` it refuses
    /// under a session and leaves all as it was.
    fn quiet(&self, tid: u32, iqn: &str, force: bool) -> Result<(), DriverError> {
        let live = self.client.connections(tid).map_err(|e| self.failed(e))?;
        if !force && !live.is_empty() {
            return Err(self.in_use(iqn, &live));
        }
        self.client.target_ready(tid, false).map_err(|e| self.failed(e))?;
        let emptied = self.empty(tid, iqn, force);
        if emptied.is_err() {
            // As it was; that this fails too adds nothing to the error.
            let _ = self.client.target_ready(tid, true);
        }
        emptied
    }

    fn empty(&self, tid: u32, iqn: &str, force: bool) -> Result<(), DriverError> {
        let mut wait = Patience::new();
        loop {
            let live = self.client.connections(tid).map_err(|e| self.failed(e))?;
            if live.is_empty() {
                return Ok(());
            }
            if !force {
                return Err(self.in_use(iqn, &live));
            }
            self.cut(tid, &live)?;
            if !wait.more() {
                let why = format!("sessions of target {iqn} do not end");
                return Err(self
                    .error(Kind::Unavailable, why)
                    .fix("try again; if it lasts, restart that network's tgtd"));
            }
        }
    }

    /// Cuts connections; what is gone already is fine.
    fn cut(&self, tid: u32, live: &[show::Connection]) -> Result<(), DriverError> {
        use wire::Code;
        for c in live {
            let gone = [Code::NO_SESSION, Code::NO_CONNECTION, Code::NO_TARGET];
            client::unless(self.client.connection_close(tid, c.sid, c.cid), &gone).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }
}

/// Short pauses that get longer, for at most [`LET_GO`] in all.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience { end: Instant::now() + LET_GO, pause: Duration::from_millis(2) }
    }

    /// Waits a little; false when the time is up.
    fn more(&mut self) -> bool {
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(100));
        Instant::now() < self.end
    }
}

#[cfg(test)]
mod tests;
