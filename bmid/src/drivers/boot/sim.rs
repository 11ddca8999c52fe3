//! The boot driver's simulator: layouts and entries as objects of a simulated world. Nothing is sent to any machine.

use std::collections::BTreeSet;
use std::sync::Arc;

use bmi::model::{Id, Mac};
use bmi::step::{BootStep, ChangeServe, Entry, Fact, Finding, Look, Scope, Seen, Severity};
use serde::{Deserialize, Serialize};

use super::{digest, refused, script_of, service_digest};
use crate::drivers::sim::World;
use crate::drivers::{Done, Driver, DriverError, StepCx, Unseal};

/// dnsmasq's files of all networks, simulated. Points: `boot.serve`, `boot.unserve`, `boot.entry`, `boot.drop_entry`.
pub struct SimBoot {
    world: World,
    unseal: Arc<dyn Unseal>,
}

/// A layout: objects of kind `boot.service` by network.
#[derive(Serialize, Deserialize)]
struct Service {
    digest: String,
}

/// A machine's script and reservation: objects of kind `boot.entry` by network and MAC. Without its secret.
#[derive(Serialize, Deserialize)]
struct Machine {
    node: Id,
    digest: String,
    entry: Entry,
}

const SERVICE: &str = "boot.service";
const ENTRY: &str = "boot.entry";

impl SimBoot {
    /// The boot services of a simulated world.
    #[must_use]
    pub fn new(world: World, unseal: Arc<dyn Unseal>) -> SimBoot {
        SimBoot { world, unseal }
    }

    fn do_it(&self, step: &BootStep) -> Result<bool, DriverError> {
        let network = step.network();
        match step {
            BootStep::Serve(s) | BootStep::ChangeServe(ChangeServe { to: s, .. }) => {
                self.world.put(SERVICE, &network.to_string(), &Service { digest: service_digest(s) })
            }
            BootStep::Unserve(_) => {
                let mut changed = self.world.del(SERVICE, &network.to_string())?;
                for (mac, _) in self.machines(network)? {
                    changed |= self.world.del(ENTRY, &name(network, mac))?;
                }
                Ok(changed)
            }
            BootStep::Entry(e) => {
                if self.world.get::<Service>(SERVICE, &network.to_string())?.is_none() {
                    let why = "the network's boot service is not laid out";
                    return Err(refused(format!("write the boot script of {}", e.mac), why));
                }
                // As the real one: refuses what cannot be written into a script.
                script_of(e, &*self.unseal)?;
                let machine = Machine { node: e.node, digest: digest(e), entry: e.clone() };
                self.world.put(ENTRY, &name(network, e.mac), &machine)
            }
            BootStep::DropEntry(d) => match self.world.get::<Machine>(ENTRY, &name(network, d.mac))? {
                Some(machine) if machine.node == d.node => self.world.del(ENTRY, &name(network, d.mac)),
                _ => Ok(false),
            },
        }
    }

    fn machines(&self, network: Id) -> Result<Vec<(Mac, Machine)>, DriverError> {
        let mine = |(name, machine): (String, Machine)| {
            let mac = name.strip_prefix(&format!("{network}@"))?.parse().ok()?;
            Some((mac, machine))
        };
        Ok(self.world.list::<Machine>(ENTRY)?.into_iter().filter_map(mine).collect())
    }
}

fn name(network: Id, mac: Mac) -> String {
    format!("{network}@{mac}")
}

impl Driver for SimBoot {
    type Step = BootStep;

    fn apply(&self, step: &BootStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        let point = match step {
            BootStep::Serve(_) => "boot.serve",
            BootStep::ChangeServe(_) => "boot.change_serve",
            BootStep::Unserve(_) => "boot.unserve",
            BootStep::Entry(_) => "boot.entry",
            BootStep::DropEntry(_) => "boot.drop_entry",
        };
        self.world.around(point, || self.do_it(step)).map(Done::changed)
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Network { network, .. } => {
                let service = self.world.get::<Service>(SERVICE, &network.to_string())?;
                let mut seen: Vec<Seen> = service.map(|s| Seen::Service(s.digest)).into_iter().collect();
                let machines = self.machines(*network)?.into_iter();
                seen.extend(machines.map(|(mac, m)| Seen::Entry { node: m.node, mac, digest: m.digest }));
                Ok(seen)
            }
            Scope::Networks => {
                let services = self.world.list::<Service>(SERVICE)?.into_iter().map(|(name, _)| name);
                let machines = self.world.list::<Machine>(ENTRY)?.into_iter();
                let machines = machines.filter_map(|(name, _)| Some(name.split_once('@')?.0.to_owned()));
                let ids: BTreeSet<Id> = services.chain(machines).filter_map(|n| n.parse().ok()).collect();
                Ok(ids.into_iter().map(Seen::Network).collect())
            }
            Scope::Datastore { .. } => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Script(network, mac) => Some(self.world.get::<Machine>(ENTRY, &name(*network, *mac)).and_then(|m| {
                let text = m.map(|m| script_of(&m.entry, &*self.unseal)).transpose()?;
                Ok(Fact::Script(text.map(|t| format!("#!ipxe\n{t}"))))
            })),
            Look::Doctor { networks } => {
                let ok = |(_, interface, _): &(Id, String, String)| Finding {
                    check: format!("DHCP on {interface}"),
                    severity: Severity::Ok,
                    found: "simulated".to_owned(),
                    fix: String::new(),
                };
                Some(Ok(Fact::Findings(networks.iter().map(ok).collect())))
            }
            _ => None,
        }
    }
}
