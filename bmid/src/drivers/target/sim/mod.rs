//! Targets played in a simulator's world: one object a target, an account, a portal.
//!
//! Behaves as the driver for tgtd does towards its caller, half-made targets included. Sessions are played from outside: the
//! object `sessions/<iqn>` lists the initiators that are logged in. In a world with simulated workers a network's tgtd answers
//! while its worker is there and the script does not make `tgtd.answer` hang; in one without, always.
//!
//! Points: `target.{make,drop,swap,account,open_portal,close_portal}.{before,after}`, and `target.{make,swap,account}.middle`,
//! where a target lets nobody in yet and a LUN or an account is away.

use std::net::IpAddr;
use std::time::Duration;

use bmi::model::{Id, Kind};
use bmi::step::{
    ClosePortal, DropTarget, Fact, Look, Lun, MakeTarget, OpenPortal, Scope, Seen, SeenLun, SeenTarget, Session,
    SwapAccount, SwapLun, TargetStep, WorkerKind,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::check::check;
use crate::drivers::sim::World;
use crate::drivers::{Done, Driver, DriverError, StepCx};

/// A simulated tgtd a network.
#[derive(Debug)]
pub struct SimTarget {
    world: World,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Object {
    network: Id,
    tid: u32,
    iqn: String,
    luns: Vec<Lun>,
    account: Option<String>,
    /// Empty until the target is whole.
    initiators: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Portal {
    network: Id,
    address: IpAddr,
    port: u16,
}

/// The workers' simulator's objects: `<network>@<program>`.
const WORKER: &str = "worker";
/// As the driver for tgtd waits for an answer.
const LIMIT: Duration = Duration::from_secs(5);
const TARGETS: &str = "targets";
const ACCOUNTS: &str = "accounts";
const PORTALS: &str = "portals";
const SESSIONS: &str = "sessions";

impl SimTarget {
    /// Plays in `world`.
    #[must_use]
    pub fn new(world: World) -> SimTarget {
        SimTarget { world }
    }

    /// Fails if that network's tgtd is known not to run.
    fn answers(&self, network: Id, tried: &str) -> Result<(), DriverError> {
        let name = format!("{network}@{}", WorkerKind::Tgtd.as_str());
        if !self.world.knows(WORKER) || self.world.get::<IgnoredAny>(WORKER, &name)?.is_some() {
            if self.world.answers("tgtd.answer", LIMIT) {
                return Ok(());
            }
            let why = format!("tgtd of network {network}: it did not answer within {LIMIT:?}");
            return Err(DriverError::new(Kind::Timeout, tried, why));
        }
        let why = format!("tgtd of network {network} is not running");
        Err(DriverError::new(Kind::Unavailable, tried, why).fix("bmid starts it again by itself"))
    }

    fn targets(&self, network: Id) -> Result<Vec<Object>, DriverError> {
        let all = self.world.list::<Object>(TARGETS)?.into_iter().map(|(_, t)| t);
        let mut ours: Vec<Object> = all.filter(|t| t.network == network).collect();
        ours.sort_by_key(|t| t.tid);
        Ok(ours)
    }

    fn store(&self, t: &Object) -> Result<bool, DriverError> {
        self.world.put(TARGETS, &key(t.network, t.tid), t)
    }

    fn logged_in(&self, iqn: &str) -> Result<Vec<String>, DriverError> {
        Ok(self.world.get(SESSIONS, iqn)?.unwrap_or_default())
    }

    /// Ends sessions by force, or refuses under them.
    fn quiet(&self, tried: String, iqn: &str, force: bool) -> Result<(), DriverError> {
        let live = self.logged_in(iqn)?;
        if live.is_empty() {
            return Ok(());
        }
        if !force {
            let why = format!("{} is logged in to target {iqn}", live.join(", "));
            return Err(DriverError::new(Kind::Conflict, tried, why).fix("power the machine off first, or force it"));
        }
        self.world.del(SESSIONS, iqn).map(drop)
    }

    fn make(&self, s: &MakeTarget, tried: String) -> Result<bool, DriverError> {
        let there = self.targets(s.network)?;
        let found = there.iter().find(|t| t.tid == s.tid);
        if let Some(other) = found.filter(|t| t.iqn != s.iqn) {
            let why = format!("number {} belongs to target {} in that tgtd", s.tid, other.iqn);
            return Err(DriverError::new(Kind::Conflict, tried, why));
        }
        let account = s.account.as_ref().map(|a| a.user.clone());
        let whole = Object {
            network: s.network,
            tid: s.tid,
            iqn: s.iqn.clone(),
            luns: s.luns.clone(),
            account,
            initiators: vec![s.initiator.clone()],
        };
        if found == Some(&whole) {
            return Ok(false);
        }
        if found.is_some_and(|t| t.luns != whole.luns) {
            self.quiet(tried.clone(), &s.iqn, false)?;
        }
        if let Some(elsewhere) = there.iter().find(|t| t.iqn == s.iqn && t.tid != s.tid) {
            self.quiet(tried, &s.iqn, false)?;
            self.world.del(TARGETS, &key(s.network, elsewhere.tid))?;
        }
        self.store(&Object { initiators: Vec::new(), ..whole.clone() })?;
        self.world.cut("target.make.middle")?;
        if let Some(user) = &whole.account {
            self.world.put(ACCOUNTS, &format!("{}:{user}", s.network), user)?;
        }
        self.store(&whole)?;
        Ok(true)
    }

    fn take(&self, s: &DropTarget, tried: String) -> Result<bool, DriverError> {
        let mut changed = false;
        if self.targets(s.network)?.iter().any(|t| t.tid == s.tid && t.iqn == s.iqn) {
            self.quiet(tried, &s.iqn, s.force)?;
            changed = self.world.del(TARGETS, &key(s.network, s.tid))?;
        }
        if let Some(user) = &s.account {
            changed |= self.world.del(ACCOUNTS, &format!("{}:{user}", s.network))?;
        }
        Ok(changed)
    }

    fn swap(&self, s: &SwapLun, tried: String) -> Result<bool, DriverError> {
        let found = self.targets(s.network)?.into_iter().find(|t| t.tid == s.tid && t.iqn == s.iqn);
        let Some(mut target) = found else {
            let why = format!("tgtd has no target {} of number {}", s.iqn, s.tid);
            return Err(DriverError::new(Kind::NotFound, tried, why));
        };
        if target.luns.contains(&s.to) {
            return Ok(false);
        }
        self.quiet(tried, &s.iqn, s.force)?;
        target.luns.retain(|l| l.number != s.to.number);
        self.store(&target)?;
        self.world.cut("target.swap.middle")?;
        target.luns.push(s.to.clone());
        target.luns.sort_by_key(|l| l.number);
        self.store(&target)
    }

    /// Secrets are not played: as with tgtd, nobody can see whether one was so already.
    fn account(&self, s: &SwapAccount, tried: String) -> Result<bool, DriverError> {
        let found = self.targets(s.network)?.into_iter().find(|t| t.tid == s.tid && t.iqn == s.iqn);
        let Some(mut target) = found else {
            let why = format!("tgtd has no target {} of number {}", s.iqn, s.tid);
            return Err(DriverError::new(Kind::NotFound, tried, why));
        };
        target.initiators.clear();
        self.store(&target)?;
        self.world.del(ACCOUNTS, &format!("{}:{}", s.network, s.from.user))?;
        self.world.cut("target.account.middle")?;
        self.world.put(ACCOUNTS, &format!("{}:{}", s.network, s.to.user), &s.to.user)?;
        target.account = Some(s.to.user.clone());
        target.initiators = vec![s.initiator.clone()];
        self.store(&target)?;
        Ok(true)
    }

    fn open(&self, s: &OpenPortal) -> Result<bool, DriverError> {
        let portal = Portal { network: s.network, address: s.address, port: s.port };
        self.world.put(PORTALS, &portal_key(s.network, s.address, s.port), &portal)
    }

    fn close(&self, s: &ClosePortal) -> Result<bool, DriverError> {
        self.world.del(PORTALS, &portal_key(s.network, s.address, s.port))
    }

    fn sessions(&self, iqn: &str) -> Result<Vec<Session>, DriverError> {
        let play = |(sid, initiator)| Session { sid, initiator, address: "127.0.0.1".to_owned() };
        Ok((1u64..).zip(self.logged_in(iqn)?).map(play).collect())
    }

    fn network(&self, network: Id) -> Result<Vec<Seen>, DriverError> {
        self.answers(network, "list targets")?;
        let mut seen = Vec::new();
        for t in self.targets(network)? {
            seen.push(Seen::Target(SeenTarget {
                tid: t.tid,
                luns: t.luns.into_iter().map(|l| SeenLun { number: l.number, path: l.path }).collect(),
                initiators: t.initiators,
                accounts: t.account.into_iter().collect(),
                sessions: self.sessions(&t.iqn)?,
                iqn: t.iqn,
            }));
        }
        let portals = self.world.list::<Portal>(PORTALS)?.into_iter().map(|(_, p)| p);
        seen.extend(portals.filter(|p| p.network == network).map(|p| Seen::Portal(p.address, p.port)));
        Ok(seen)
    }

    fn networks(&self) -> Result<Vec<Seen>, DriverError> {
        let targets = self.world.list::<Object>(TARGETS)?.into_iter().map(|(_, t)| t.network);
        let portals = self.world.list::<Portal>(PORTALS)?.into_iter().map(|(_, p)| p.network);
        let mut ids: Vec<Id> = targets.chain(portals).collect();
        ids.sort();
        ids.dedup();
        Ok(ids.into_iter().map(Seen::Network).collect())
    }
}

fn key(network: Id, tid: u32) -> String {
    format!("{network}:{tid}")
}

fn portal_key(network: Id, address: IpAddr, port: u16) -> String {
    format!("{network}:{address}:{port}")
}

impl Driver for SimTarget {
    type Step = TargetStep;

    fn apply(&self, step: &TargetStep, _cx: &StepCx<'_>) -> Result<Done, DriverError> {
        check(step)?;
        let tried = step.describe();
        let point = match step {
            TargetStep::MakeTarget(_) => "target.make",
            TargetStep::DropTarget(_) => "target.drop",
            TargetStep::SwapLun(_) => "target.swap",
            TargetStep::SwapAccount(_) => "target.account",
            TargetStep::OpenPortal(_) => "target.open_portal",
            TargetStep::ClosePortal(_) => "target.close_portal",
        };
        let act = || {
            self.answers(step.network(), &tried)?;
            match step {
                TargetStep::MakeTarget(s) => self.make(s, tried),
                TargetStep::DropTarget(s) => self.take(s, tried),
                TargetStep::SwapLun(s) => self.swap(s, tried),
                TargetStep::SwapAccount(s) => self.account(s, tried),
                TargetStep::OpenPortal(s) => self.open(s),
                TargetStep::ClosePortal(s) => self.close(s),
            }
        };
        self.world.around(point, act).map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Datastore { .. } => Ok(Vec::new()),
            Scope::Network { network, .. } => self.network(*network),
            Scope::Networks => self.networks(),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Sessions { network, tid, iqn } => Some(self.answers(*network, "list sessions").and_then(|()| {
                let all = self.targets(*network)?;
                let there = all.iter().any(|t| t.tid == *tid && t.iqn == *iqn);
                Ok(Fact::Sessions(if there { self.sessions(iqn)? } else { Vec::new() }))
            })),
            Look::Targets(network) => Some(self.network(*network).map(Fact::Targets)),
            Look::Doctor { .. } => Some(Ok(Fact::Findings(Vec::new()))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
