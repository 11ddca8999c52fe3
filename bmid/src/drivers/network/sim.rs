//! The network driver's simulator: addresses and interfaces on VLANs as objects of a simulated world.
//!
//! A simulated host has `lo` and `eth0` to `eth9`, up and without addresses; objects of kind `interface` (by name, an
//! [`InterfaceFacts`]) add to them or take their place.

use std::collections::BTreeMap;

use bmi::model::{Cidr, Kind};
use bmi::step::{DropVlan, Fact, InterfaceFacts, Look, MakeVlan, NetworkStep, Routing, Scope, Seen, VlanFacts};

use super::vlan::{self, Link, Mark, Todo};

use crate::drivers::sim::World;
use crate::drivers::{Done, Driver, DriverError, StepCx};

/// Addresses of a simulated host. Points: `network.put_address`, `network.drop_address`,
/// `network.make_vlan`, `network.drop_vlan`.
#[derive(Clone)]
pub struct SimNetwork {
    world: World,
}

/// Objects: an address by itself, saying on which interface.
const ADDRESS: &str = "address";
const INTERFACE: &str = "interface";
const ROUTING: &str = "routing";
/// Objects: the step that made an interface on a VLAN, by its name.
const VLAN: &str = "vlan";

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
            vlan: None,
            private: Vec::new(),
        };
        let mut all: BTreeMap<String, InterfaceFacts> =
            (0..10).map(|n| format!("eth{n}")).chain(["lo".to_owned()]).map(|n| (n.clone(), plain(&n))).collect();
        all.extend(self.world.list::<InterfaceFacts>(INTERFACE)?);
        for (name, made) in self.world.list::<MakeVlan>(VLAN)? {
            // The kernel takes it away together with its parent.
            let Some(parent) = all.get(&made.parent) else { continue };
            let vlan =
                VlanFacts { parent: made.parent, vlan: made.vlan, tagging: made.tagging, network: Some(made.network) };
            let mtu = made.mtu.unwrap_or(parent.mtu);
            let it = InterfaceFacts { mtu, vlan: Some(vlan), carrier: parent.up, ..plain(&name) };
            all.insert(name, it);
        }
        for (text, interface) in self.world.list::<String>(ADDRESS)? {
            if let (Ok(address), Some(at)) = (text.parse::<Cidr>(), all.get_mut(&interface)) {
                at.addresses.push(address);
            }
        }
        Ok(all.into_values().collect())
    }

    /// What a test says the host does: object `host` of kind `routing`.
    fn routing(&self) -> Routing {
        self.world.get(ROUTING, "host").ok().flatten().unwrap_or_default()
    }

    /// As the kernel would list them.
    fn links(&self, mark: &Mark) -> Result<Vec<Link>, DriverError> {
        let all = self.interfaces()?;
        let index = |name: &str| all.iter().position(|i| i.name == name).and_then(|n| u32::try_from(n + 1).ok());
        let link = |i: &InterfaceFacts| Link {
            index: index(&i.name).unwrap_or_default(),
            name: i.name.clone(),
            up: i.up,
            carrier: i.carrier,
            loopback: i.loopback,
            mtu: i.mtu,
            group: 0,
            alias: i.vlan.as_ref().and_then(|v| v.network).map(|n| mark.of(n)),
            vlan: i.vlan.as_ref().map(|v| (index(&v.parent).unwrap_or_default(), v.vlan, v.tagging)),
        };
        Ok(all.iter().map(link).collect())
    }

    fn make(&self, s: &MakeVlan) -> Result<bool, DriverError> {
        let mark = Mark::default();
        match vlan::judge(&mark, &self.links(&mark)?, s)? {
            Todo::Nothing => Ok(false),
            _ => self.world.put(VLAN, &s.interface, s).map(|_| true),
        }
    }

    fn remove(&self, s: &DropVlan) -> Result<bool, DriverError> {
        let mut gone = false;
        for (name, made) in self.world.list::<MakeVlan>(VLAN)? {
            if made.network == s.network {
                gone |= self.world.del(VLAN, &name)?;
            }
        }
        Ok(gone)
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
            NetworkStep::MakeVlan(s) => self.world.around("network.make_vlan", || self.make(s)),
            NetworkStep::DropVlan(s) => self.world.around("network.drop_vlan", || self.remove(s)),
        }
        .map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        let mark = Mark::default();
        match scope {
            Scope::Datastore { .. } => Ok(Vec::new()),
            Scope::Networks => {
                Ok(self.links(&mark)?.iter().filter_map(|l| mark.network(l)).map(Seen::Network).collect())
            }
            Scope::Network { network, interface } => {
                let vlan = vlan::seen(&mark, &self.links(&mark)?, *network, interface).map(Seen::Vlan);
                let all = self.interfaces()?.into_iter().filter(|i| i.name == *interface);
                Ok(all.flat_map(|i| i.addresses).map(Seen::Address).chain(vlan).collect())
            }
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Routing => Some(Ok(Fact::Routing(self.routing()))),
            Look::Interfaces => Some(self.interfaces().map(Fact::Interfaces)),
            Look::Doctor { networks } => Some(self.interfaces().map(|all| {
                Fact::Findings(networks.iter().flat_map(|n| super::findings(&all, n, true, self.routing())).collect())
            })),
            _ => None,
        }
    }
}
