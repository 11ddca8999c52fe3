//! The two sets of drivers there are: the real ones, and the simulators of one world.

use std::path::Path;
use std::sync::Arc;

use super::krbd::Krbd;
use super::sim::World;
use super::{DriverError, DriverSet, Paths, Pools, Unseal, boot, network, storage, target, worker};

impl DriverSet {
    /// The real outside. `workers` also says who mounts and converts: a system service leaves both to systemd.
    #[must_use]
    pub fn real(paths: &Paths, unseal: Arc<dyn Unseal>, workers: worker::Manager) -> DriverSet {
        let manager = match workers {
            worker::Manager::Systemd => storage::file::Manager::Systemd(storage::file::Systemd::new(&paths.run)),
            worker::Manager::Detached => storage::file::Manager::Detached,
        };
        let kernel = Arc::new(match workers {
            worker::Manager::Systemd => Krbd::by_units(&paths.run),
            worker::Manager::Detached => Krbd::direct(),
        });
        let workers = worker::Workers::new(paths.clone(), workers);
        let rbd = storage::rbd::RbdStore::new(paths.state.join("scratch"), manager.converter());
        let rbd = Arc::new(rbd.with_kernel(Arc::clone(&kernel)));
        let target = target::tgt::Tgt::new(paths.clone(), Arc::clone(&unseal))
            .with_pools(Arc::clone(&rbd) as Arc<dyn Pools>)
            .with_kernel(kernel);
        let storage = storage::places::Places { rbd, file: storage::file::FileStore::new(manager) };
        DriverSet {
            storage: Box::new(storage),
            target: Box::new(target),
            boot: Box::new(boot::Dnsmasq::new(paths.clone(), Arc::clone(&unseal))),
            network: Box::new(network::Netlink::new(paths)),
            worker: Box::new(workers.clone()),
            watch: Arc::new(workers),
            news: Arc::new(network::Netlink::listening()),
            world: None,
            unseal,
        }
    }

    /// Simulators whose outside is the folder `world`.
    pub fn sim(world: &Path, unseal: Arc<dyn Unseal>) -> Result<DriverSet, DriverError> {
        let at = World::open(world)?;
        let workers = worker::sim::SimWorkers::new(at.clone());
        Ok(DriverSet {
            storage: Box::new(storage::sim::SimStore::new(world)),
            target: Box::new(target::sim::SimTarget::new(at.clone())),
            boot: Box::new(boot::sim::SimBoot::new(at.clone(), Arc::clone(&unseal))),
            network: Box::new(network::sim::SimNetwork::new(at.clone())),
            worker: Box::new(workers.clone()),
            watch: Arc::new(workers),
            news: Arc::new(network::sim::SimNetwork::new(at.clone())),
            world: Some(at),
            unseal,
        })
    }
}
