//! The network driver's simulator: addresses as objects of a simulated world.
//!
//! A simulated host has `lo` and `eth0` to `eth9`, up and without addresses; objects of kind `interface` (by name, an
//! [`InterfaceFacts`]) add to them or take their place.

use std::collections::BTreeMap;

use bmi::model::{Cidr, Kind};
use bmi::step::{Fact, InterfaceFacts, Look, NetworkStep, Scope, Seen};

use crate::drivers::sim::World;
use crate::drivers::{Done, Driver, DriverError, StepCx};

/// Addresses of a simulated host. Points: `network.put_address`, `network.drop_address`.
#[derive(Clone)]
pub struct SimNetwork {
    world: World,
}

/// Objects: an address by itself, saying on which interface.
const ADDRESS: &str = "address";
const INTERFACE: &str = "interface";

impl SimNetwork {
    /// The interfaces of a simulated world.
    #[must_use]
    pub fn new(world: World) -> SimNetwork {
        SimNetwork { world }
    }

    pub(super) fn interfaces(&self) -> Result<Vec<InterfaceFacts>, DriverError> {
        let plain = |name: &str| InterfaceFacts {
            name: name.to_owned(),
            addresses: Vec::new(),
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: name == "lo",
        };
        let mut all: BTreeMap<String, InterfaceFacts> =
            (0..10).map(|n| format!("eth{n}")).chain(["lo".to_owned()]).map(|n| (n.clone(), plain(&n))).collect();
        all.extend(self.world.list::<InterfaceFacts>(INTERFACE)?);
        for (text, interface) in self.world.list::<String>(ADDRESS)? {
            if let (Ok(address), Some(at)) = (text.parse::<Cidr>(), all.get_mut(&interface)) {
                at.addresses.push(address);
            }
        }
        Ok(all.into_values().collect())
    }

    fn put(&self, s: &bmi::step::PutAddress) -> Result<bool, DriverError> {
        let tried = || format!("put {} on {}", s.address, s.interface);
        let all = self.interfaces()?;
        if !all.iter().any(|i| i.name == s.interface && !i.loopback) {
            let why = format!("this host has no interface {} for machines", s.interface);
            return Err(DriverError::new(Kind::NotFound, tried(), why));
        }
        for at in &all {
            if at
                .addresses
                .iter()
                .any(|a| a.address == s.address.address && (at.name != s.interface || *a != s.address))
            {
                let why = format!("{} sits on {} already", s.address.address, at.name);
                return Err(DriverError::new(Kind::Conflict, tried(), why).fix("give the network another address"));
            }
        }
        if all.iter().any(|i| i.name == s.interface && i.addresses.contains(&s.address)) {
            return Ok(false);
        }
        self.world.put(ADDRESS, &s.address.to_string(), &s.interface)
    }
}

impl Driver for SimNetwork {
    type Step = NetworkStep;

    fn apply(&self, step: &NetworkStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        match step {
            NetworkStep::PutAddress(s) => self.world.around("network.put_address", || self.put(s)),
            NetworkStep::DropAddress(s) => self.world.around("network.drop_address", || {
                let there = self.world.get::<String>(ADDRESS, &s.address.to_string())?;
                if s.ours && there.as_ref() == Some(&s.interface) {
                    return self.world.del(ADDRESS, &s.address.to_string());
                }
                Ok(false)
            }),
        }
        .map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        let Scope::Network { interface, .. } = scope else { return Ok(Vec::new()) };
        let all = self.interfaces()?.into_iter().filter(|i| i.name == *interface);
        Ok(all.flat_map(|i| i.addresses).map(Seen::Address).collect())
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Interfaces => Some(self.interfaces().map(Fact::Interfaces)),
            Look::Doctor { networks } => Some(
                self.interfaces()
                    .map(|all| Fact::Findings(networks.iter().flat_map(|n| super::findings(&all, n, true)).collect())),
            ),
            _ => None,
        }
    }
}
