//! Bounded pools: each datastore and each network has its own, so that a slow one holds up nobody else. A call that does not
//! return in time is left running and told apart from one that failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi::model::{Fault, Kind};
use bmi::step::{Fact, Lane, Look};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::drivers::DriverSet;

/// Side by side on one datastore.
const DATASTORE: usize = 8;
/// Imports and exports side by side on one datastore.
const IMPORT: usize = 2;
/// Side by side on one network: tgtd is one loop, more only queue there.
const NETWORK: usize = 4;

/// The pools, made as they are needed.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<Lane, Arc<Semaphore>>>);

/// A call that has not returned in time, or its result.
pub(super) enum Returned<T> {
    /// It returned.
    InTime(T),
    /// It still runs.
    Late(JoinHandle<T>),
}

impl Lanes {
    fn lane(&self, lane: Lane) -> Arc<Semaphore> {
        let size = match lane {
            Lane::Datastore(_) => DATASTORE,
            Lane::Import(_) => IMPORT,
            Lane::Network(_) => NETWORK,
        };
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(lane).or_insert_with(|| Arc::new(Semaphore::new(size))))
    }

    /// Runs `f` on the lane. The wait for a free place does not count against the deadline.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        deadline: Duration,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Returned<T>, Fault> {
        let permit = self.lane(lane).acquire_owned().await.map_err(|_| Fault::internal("a lane was closed"))?;
        let mut handle = tokio::task::spawn_blocking(move || {
            let out = f();
            drop(permit);
            out
        });
        match tokio::time::timeout(deadline, &mut handle).await {
            Ok(out) => Ok(Returned::InTime(out.map_err(panicked)?)),
            Err(_) => Ok(Returned::Late(handle)),
        }
    }

    /// Asks one question; what is not answered in time is unknown.
    pub(super) async fn look(&self, drivers: Arc<DriverSet>, look: Look) -> (Look, Fact) {
        let (lane, seconds) = match &look {
            Look::Datastore(id, _) => (Some(Lane::Datastore(*id)), 10),
            Look::Sessions { network, .. }
            | Look::Targets(network)
            | Look::Workers(network)
            | Look::Script(network, _) => (Some(Lane::Network(*network)), 10),
            Look::Interfaces => (None, 10),
            Look::Doctor { .. } => (None, 30),
        };
        let asked = look.clone();
        let ask = move || drivers.look(&asked);
        let deadline = Duration::from_secs(seconds);
        let fact = match lane {
            Some(lane) => match self.run(lane, deadline, ask).await {
                Ok(Returned::InTime(fact)) => fact,
                Ok(Returned::Late(_)) => late(seconds),
                Err(fault) => Fact::Unknown(fault.to_string()),
            },
            None => match tokio::time::timeout(deadline, tokio::task::spawn_blocking(ask)).await {
                Ok(Ok(fact)) => fact,
                Ok(Err(e)) => Fact::Unknown(panicked(e).to_string()),
                Err(_) => late(seconds),
            },
        };
        (look, fact)
    }
}

fn late(seconds: u64) -> Fact {
    Fact::Unknown(format!("no answer within {seconds} s"))
}

/// A driver that panics fails one call, not the daemon.
pub(super) fn panicked(e: tokio::task::JoinError) -> Fault {
    Fault::new(Kind::Internal, "a driver's call ended in a panic")
        .because(e.to_string())
        .fix("this is a defect of bmid; its log has the place")
}
