//! Bounded pools: each datastore and each network has its own, so that a slow one holds up nobody else. A call that does not
//! return in time is left running and told apart from one that failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::{Fault, Kind};
use bmi::step::Lane;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Side by side on one datastore.
const DATASTORE: usize = 8;
/// Imports and exports side by side on one datastore.
const IMPORT: usize = 2;
/// Side by side on one network: tgtd is one loop, more only queue there.
const NETWORK: usize = 4;

/// The pools that somebody uses now.
type Pools = Mutex<HashMap<Lane, Arc<Semaphore>>>;

/// A call is looked after at least this often: it may have gone on with something that has a deadline of its own.
const LOOK: Duration = Duration::from_secs(1);

/// The pools, made as they are needed and gone with their last user: datastores and networks come and go for years.
#[derive(Clone, Default)]
pub(super) struct Lanes(Arc<Pools>);

/// A place on a lane; dropped, it is free.
pub(super) struct Place(#[allow(dead_code, reason = "held, not looked at")] User);

/// Somebody who uses a pool, or waits for a place in it.
struct User {
    pools: Arc<Pools>,
    lane: Lane,
    pool: Option<Arc<Semaphore>>,
    place: Option<OwnedSemaphorePermit>,
}

impl User {
    fn new(pools: &Arc<Pools>, lane: Lane) -> User {
        let size = match lane {
            Lane::Datastore(_) => DATASTORE,
            Lane::Import(_) => IMPORT,
            Lane::Network(_) => NETWORK,
        };
        let mut all = pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = Arc::clone(all.entry(lane.clone()).or_insert_with(|| Arc::new(Semaphore::new(size))));
        User { pools: Arc::clone(pools), lane, pool: Some(pool), place: None }
    }

    async fn take_place(&mut self) -> Result<(), Fault> {
        let closed = || Fault::internal("a lane was closed");
        let pool = Arc::clone(self.pool.as_ref().ok_or_else(closed)?);
        self.place = Some(pool.acquire_owned().await.map_err(|_| closed())?);
        Ok(())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.place = None;
        let mut all = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool = None;
        // Users come and go under the lock alone, so one that is counted once is the map's own.
        if all.get(&self.lane).is_some_and(|pool| Arc::strong_count(pool) == 1) {
            all.remove(&self.lane);
        }
    }
}

/// A call that has not returned in time, or its result.
pub(super) enum Returned<T> {
    /// It returned.
    InTime(T),
    /// It still runs.
    Late(JoinHandle<T>),
}

impl Lanes {
    /// Runs `f` on the lane. The wait for a free place does not count against the deadline.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        deadline: Duration,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Returned<T>, Fault> {
        let call = move |place: Place| {
            let out = f();
            drop(place);
            out
        };
        self.run_on(lane, deadline, || None, call).await
    }

    /// Runs `f` on the lane; it gives its place back itself. Where it goes on with something else, `on` says since when and
    /// how long that may take, and its own deadline does not count any more.
    pub(super) async fn run_on<T: Send + 'static>(
        &self,
        lane: Lane,
        deadline: Duration,
        on: impl Fn() -> Option<(Instant, Duration)>,
        f: impl FnOnce(Place) -> T + Send + 'static,
    ) -> Result<Returned<T>, Fault> {
        let mut user = User::new(&self.0, lane);
        user.take_place().await?;
        let begun = Instant::now();
        let mut handle = tokio::task::spawn_blocking(move || f(Place(user)));
        loop {
            let (since, limit) = on().unwrap_or((begun, deadline));
            let left = limit.saturating_sub(since.elapsed());
            match tokio::time::timeout(left.min(LOOK), &mut handle).await {
                Ok(out) => return Ok(Returned::InTime(out.map_err(panicked)?)),
                Err(_) if left <= LOOK && on().is_none_or(|(s, _)| s == since) => return Ok(Returned::Late(handle)),
                Err(_) => {}
            }
        }
    }

    /// A place on a lane, if one is free now.
    pub(super) fn free_place(&self, lane: Lane) -> Option<Place> {
        let mut user = User::new(&self.0, lane);
        user.place = Some(Arc::clone(user.pool.as_ref()?).try_acquire_owned().ok()?);
        Some(Place(user))
    }
}

/// A driver that panics fails one call, not the daemon.
pub(super) fn panicked(e: tokio::task::JoinError) -> Fault {
    Fault::new(Kind::Internal, "a driver's call ended in a panic")
        .because(e.to_string())
        .fix("this is a defect of bmid; its log has the place")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::mpsc;

    use bmi::model::Id;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn lane(n: u8) -> Lane {
        Lane::Network(Id::from_random([n; 16]))
    }

    fn count(lanes: &Lanes) -> usize {
        lanes.0.lock().unwrap().len()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pools_of_two_hundred_networks_that_came_and_went_are_gone() {
        let lanes = Lanes::default();
        for n in 0..200 {
            let ran = lanes.run(lane(n), LONG, move || n).await.unwrap();
            assert!(matches!(ran, Returned::InTime(m) if m == n));
        }
        assert_eq!(count(&lanes), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_stays_one_pool_for_as_long_as_a_call_runs_or_waits_in_it() {
        let lanes = Arc::new(Lanes::default());
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let mut late = Vec::new();
        for _ in 0..NETWORK {
            let ended = Arc::clone(&ended);
            let call = move || ended.lock().unwrap().recv().map_or((), |()| ());
            match lanes.run(lane(1), Duration::from_millis(1), call).await.unwrap() {
                Returned::Late(handle) => late.push(handle),
                Returned::InTime(()) => panic!("it was told to wait"),
            }
        }
        assert_eq!(count(&lanes), 1);
        // No place is free: one who waits and goes away leaves the pool as full as it was.
        let waiting = lanes.run(lane(1), LONG, || ());
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        let behind = Arc::clone(&lanes);
        let behind = tokio::spawn(async move { behind.run(lane(1), LONG, || ()).await.map(|_| ()) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!behind.is_finished(), "a second pool was made beside the full one");
        drop(end);
        for handle in late {
            handle.await.unwrap();
        }
        behind.await.unwrap().unwrap();
        assert_eq!(count(&lanes), 0);
    }
}
