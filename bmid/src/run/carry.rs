//! Going on on the same thread: the step that ends a stage carries on with the next stage where that is one step and its lane
//! has a place free, so that nobody has to be woken in between. Nothing is waited for here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bmi::step::Step;

use super::lanes::{Lanes, Place};
use crate::drivers::{Done, DriverError};

/// The one step of the next stage, and how far it is.
pub(super) struct Carry {
    /// Steps of this stage that are not done.
    left: AtomicUsize,
    next: Option<(Step, Duration)>,
    state: Mutex<State>,
}

enum State {
    Waiting,
    Since(Instant),
    Returned(Result<Done, DriverError>),
}

impl Carry {
    /// A stage of so many steps, with the step that may be carried on with and its deadline.
    pub(super) fn new(steps: usize, next: Option<(Step, Duration)>) -> Carry {
        Carry { left: AtomicUsize::new(steps), next, state: Mutex::new(State::Waiting) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step of the stage was done. The last one gives its place back and carries on, if it may and there is a place.
    pub(super) fn done(
        &self,
        place: Place,
        lanes: &Lanes,
        may: impl FnOnce() -> bool,
        apply: impl FnOnce(&Step) -> Result<Done, DriverError>,
    ) {
        drop(place);
        if self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let Some((next, _)) = &self.next else { return };
        if !may() {
            return;
        }
        let Some(place) = lanes.free_place(next.lane()) else { return };
        *self.state() = State::Since(Instant::now());
        let returned = apply(next);
        drop(place);
        *self.state() = State::Returned(returned);
    }

    /// Since when the next step runs, and how long it may.
    pub(super) fn since(&self) -> Option<(Instant, Duration)> {
        match (&*self.state(), &self.next) {
            (State::Since(since), Some((_, limit))) => Some((*since, *limit)),
            _ => None,
        }
    }

    /// The next step, while it runs.
    pub(super) fn running(&self) -> Option<&Step> {
        self.since().and(self.next.as_ref()).map(|(step, _)| step)
    }

    /// What the next step returned, if it was carried on with.
    pub(super) fn returned(&self) -> Option<Result<Done, DriverError>> {
        match std::mem::replace(&mut *self.state(), State::Waiting) {
            State::Returned(returned) => Some(returned),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use bmi::model::Id;
    use bmi::step::{ClosePortal, Lane};

    use super::*;

    fn next() -> Step {
        ClosePortal { network: Id::from_random([1; 16]), address: [10, 9, 0, 1].into(), port: 3260, slot: 1 }.into()
    }

    fn place(lanes: &Lanes, n: u8) -> Place {
        lanes.free_place(Lane::Datastore(Id::from_random([n; 16]))).unwrap()
    }

    fn changed(_: &Step) -> Result<Done, DriverError> {
        Ok(Done::CHANGED)
    }

    fn never(_: &Step) -> Result<Done, DriverError> {
        panic!("it was carried on with")
    }

    #[test]
    fn the_step_that_ends_a_stage_carries_on_and_gives_its_own_place_back_before() {
        let (lanes, limit) = (Lanes::default(), Duration::from_secs(7));
        let carry = Carry::new(2, Some((next(), limit)));
        carry.done(place(&lanes, 2), &lanes, || true, never);
        assert!(carry.since().is_none() && carry.returned().is_none());
        carry.done(
            place(&lanes, 2),
            &lanes,
            || true,
            |step| {
                assert_eq!((step, carry.running()), (&next(), Some(&next())));
                assert_eq!(carry.since().unwrap().1, limit);
                // All of the lane it came from is free.
                let places: Vec<Place> = (0..8).map(|_| place(&lanes, 2)).collect();
                drop(places);
                changed(step)
            },
        );
        assert!(carry.running().is_none());
        assert_eq!(carry.returned().unwrap().unwrap(), Done::CHANGED);
        assert!(carry.returned().is_none());
    }

    #[test]
    fn nothing_is_carried_on_with_where_it_may_not_or_no_place_is_free() {
        let lanes = Lanes::default();
        let stage = || Carry::new(1, Some((next(), Duration::from_secs(7))));
        let carry = stage();
        carry.done(place(&lanes, 2), &lanes, || false, never);
        assert!(carry.returned().is_none());
        let mut places = Vec::new();
        while let Some(taken) = lanes.free_place(next().lane()) {
            places.push(taken);
        }
        let carry = stage();
        carry.done(place(&lanes, 2), &lanes, || true, never);
        assert!(carry.returned().is_none());
        let last = Carry::new(1, None);
        last.done(place(&lanes, 2), &lanes, || true, never);
        assert!(last.returned().is_none());
        drop(places);
        let carry = stage();
        carry.done(place(&lanes, 2), &lanes, || true, changed);
        assert!(carry.returned().is_some());
    }
}
