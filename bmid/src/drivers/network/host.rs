//! This host's interfaces and links, as all who ask at the same time share them: with hundreds of networks each would else list
//! hundreds of interfaces. Nobody is told what was so before they asked. Never changes anything.

use std::io;
use std::sync::Arc;

use super::facts::{Interface, interfaces};
use super::netlink;
use super::vlan::Link;
use crate::drivers::DriverError;
use crate::drivers::host::Shared;

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

/// What is there now, shared by all who ask at the same time.
pub(super) fn now(shared: &Shared<Host>, tried: impl Fn() -> String) -> Result<Arc<Host>, DriverError> {
    shared.now(|| {
        let interfaces = interfaces(&tried)?;
        let (links, unread) = netlink::links().map_or_else(|e| (Vec::new(), Some(e)), |all| (all, None));
        Ok(Host { interfaces, links, unread })
    })
}
