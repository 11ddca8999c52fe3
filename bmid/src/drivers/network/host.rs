//! This host's interfaces and links, as all who ask at the same time share them: with hundreds of networks each would else list
//! hundreds of interfaces. Nobody is told what was so before they asked. Never changes anything.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::facts::{Interface, interfaces};
use super::netlink;
use super::vlan::Link;
use crate::drivers::DriverError;

/// What was there at one time.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) interfaces: Vec<Interface>,
    pub(super) links: Vec<Link>,
    /// Why there are no links in it. Interfaces are known nevertheless.
    unread: Option<io::Error>,
}

impl Host {
    /// The links, or why there are none.
    pub(super) fn links(&self, tried: impl Fn() -> String) -> Result<&[Link], DriverError> {
        match &self.unread {
            None => Ok(&self.links),
            Some(e) => Err(DriverError::io(tried(), io::Error::new(e.kind(), e.to_string()))),
        }
    }
}

/// The last listing, and when it was begun.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Option<(Instant, Arc<Host>)>>);

impl Shared {
    /// What is there now: a listing that was begun since this was called, by whomever.
    pub(super) fn now(&self, tried: impl Fn() -> String) -> Result<Arc<Host>, DriverError> {
        self.since(Instant::now(), || {
            let interfaces = interfaces(&tried)?;
            let (links, unread) = netlink::links().map_or_else(|e| (Vec::new(), Some(e)), |all| (all, None));
            Ok(Host { interfaces, links, unread })
        })
    }

    fn since(&self, came: Instant, list: impl FnOnce() -> Result<Host, DriverError>) -> Result<Arc<Host>, DriverError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, host)) = last.as_ref().filter(|(begun, _)| *begun >= came) {
            return Ok(Arc::clone(host));
        }
        let begun = Instant::now();
        let host = Arc::new(list()?);
        *last = Some((begun, Arc::clone(&host)));
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn who_waited_shares_a_listing_and_who_comes_later_gets_a_new_one() {
        let (shared, listed) = (Shared::default(), AtomicUsize::new(0));
        let list = || {
            listed.fetch_add(1, Ordering::SeqCst);
            Ok(Host { interfaces: Vec::new(), links: Vec::new(), unread: None })
        };
        let came = Instant::now();
        let first = shared.since(came, list).unwrap();
        assert!(Arc::ptr_eq(&first, &shared.since(came, list).unwrap()), "it was begun after both had come");
        assert_eq!(listed.load(Ordering::SeqCst), 1);
        let later = shared.since(Instant::now(), list).unwrap();
        assert!(!Arc::ptr_eq(&first, &later), "what was so before is nobody's answer");
        let gone = || Err(DriverError::new(bmi::model::Kind::Outside, "list", "no"));
        assert!(shared.since(Instant::now(), gone).is_err());
        assert!(Arc::ptr_eq(&later, &shared.since(came, list).unwrap()), "a failure is nobody's but its own");
    }
}
