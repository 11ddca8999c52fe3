//! This host's links and addresses, as all who ask at the same time share them: with hundreds of networks each would else list
//! hundreds of interfaces. Nobody is told what was so before they asked. Never changes anything.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::ask::{self, Of};
use super::facts::Addresses;
use super::vlan::Link;
use crate::drivers::DriverError;
use crate::drivers::host::Shared;

/// What was there at one time.
#[derive(Debug)]
pub(super) struct Host {
    /// By name.
    pub(super) links: Vec<Link>,
    on: HashMap<u32, Addresses>,
}

/// What is on an interface that has no address.
static NOTHING: Addresses = Addresses { given: Vec::new(), all6: Vec::new() };

impl Host {
    fn list() -> io::Result<Host> {
        let mut links = ask::links()?;
        links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut on: HashMap<u32, Addresses> = HashMap::new();
        for address in ask::addresses(Of::Everywhere)? {
            on.entry(address.index).or_default().add(&address);
        }
        Ok(Host { links, on })
    }

    /// The link of that name.
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    /// What is on a link.
    pub(super) fn on(&self, link: &Link) -> &Addresses {
        self.on.get(&link.index).unwrap_or(&NOTHING)
    }
}

/// What is there now, shared by all who ask at the same time.
pub(super) fn now(shared: &Shared<Host>, tried: impl FnOnce() -> String) -> Result<Arc<Host>, DriverError> {
    shared.now(|| Host::list().map_err(|e| DriverError::io(tried(), e)))
}
