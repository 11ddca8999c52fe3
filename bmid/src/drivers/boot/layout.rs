//! One network's files: how they come, go and are seen.
//!
//! A file gets its name only when it is whole. Unfinished ones stand in the network's own folder, where dnsmasq does not
//! look. Never follows a name that came from outside: names are ids and MAC addresses.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bmi::model::{Dhcp, Id, Kind, Mac};
use bmi::step::{DropEntry, Entry, Seen, Serve};
use rustix::process::Signal;

use super::mark::{self, Mark};
use super::{conf, http, lease, refused, script};
use crate::drivers::host::{self, Process};
use crate::drivers::{DriverError, Paths};

/// Where Debian's package `ipxe` puts the boot loaders.
pub(super) const LOADERS_FROM: &str = "/usr/lib/ipxe";

/// One network's files.
pub(super) struct Layout<'a> {
    paths: &'a Paths,
    network: Id,
    boot: PathBuf,
}

/// Which networks have files.
pub(super) fn networks(paths: &Paths) -> Result<Vec<Seen>, DriverError> {
    let folder = paths.run.join("net");
    let names = host::names(&folder).map_err(|e| DriverError::io(format!("list {}", folder.display()), e))?;
    let ids = names.iter().filter_map(|n| n.parse::<Id>().ok());
    Ok(ids.filter(|id| paths.boot(*id).exists()).map(Seen::Network).collect())
}

impl<'a> Layout<'a> {
    pub(super) fn new(paths: &'a Paths, network: Id) -> Layout<'a> {
        Layout { paths, network, boot: paths.boot(network) }
    }

    /// The scripts that are not a machine's, by their files' names.
    fn scripts(&self) -> [(&'static str, String); 2] {
        [("boot.ipxe", script::first(self.network)), ("autoexec.ipxe", script::alone(self.network))]
    }

    /// Lays out everything that is not a machine's.
    pub(super) fn serve(&self, s: &Serve) -> Result<bool, DriverError> {
        // What the kernel takes as a name, less what dnsmasq would read as more than one.
        if s.interface.is_empty() || !s.interface.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b)) {
            let why = "that cannot be the name of a network interface";
            return Err(DriverError::new(Kind::Invalid, format!("serve on {:?}", s.interface), why));
        }
        let mut changed = !self.conf().exists();
        for folder in [self.boot.join("hosts"), self.mac_folder(), self.paths.dnsmasq(self.network)] {
            host::make_folder(&folder).map_err(|e| DriverError::io(format!("make {}", folder.display()), e))?;
        }
        for name in conf::LOADERS {
            // A loader that is missing here is the doctor's to tell: machines with iPXE in their card boot without.
            if let Ok(loader) = std::fs::read(Path::new(LOADERS_FROM).join(name)) {
                changed |= self.write(&self.tftp(name), &loader)?;
            }
        }
        for (name, script) in self.scripts() {
            changed |= self.write(&self.tftp(name), script.as_bytes())?;
        }
        let mark = [
            ("network", self.network.to_string()),
            ("dhcp", conf::word(s.dhcp).to_owned()),
            ("interface", s.interface.clone()),
            ("address", s.address.address.to_string()),
            ("digest", super::service_digest(s)),
        ];
        let mark: Vec<(&str, &str)> = mark.iter().map(|(k, v)| (*k, v.as_str())).collect();
        for (file, text) in [(self.http(), http::text(s, self.paths)), (self.conf(), conf::dnsmasq(s, self.paths))] {
            changed |= self.write(&file, mark::write("", &mark, &text).as_bytes())?;
        }
        Ok(changed)
    }

    /// Takes everything away, the configuration last but for its folder: what is left of a failure is still seen.
    pub(super) fn unserve(&self) -> Result<bool, DriverError> {
        let gone = |path: &Path| {
            host::remove_folder(path).map_err(|e| DriverError::io(format!("remove {}", path.display()), e))
        };
        let mut changed = gone(&self.boot.join("hosts"))?;
        changed |= gone(&self.boot.join("tftp"))?;
        changed |= gone(&self.paths.dnsmasq(self.network))?;
        changed |= gone(&self.boot)?;
        // Others may still have something in there.
        let _ = std::fs::remove_dir(self.paths.network(self.network));
        Ok(changed)
    }

    /// Writes a machine's script and reservation. `text` is its script without the mark.
    pub(super) fn put(&self, e: &Entry, text: &str) -> Result<bool, DriverError> {
        let Some(service) = self.service()? else {
            let why = "the network's boot service is not laid out";
            let fix = "bring the network up first: bmictl reconcile";
            return Err(refused(format!("write the boot script of {}", e.mac), why).fix(fix));
        };
        let mut again = self.evict(e)?;
        let (node, mac, digest) = (e.node.to_string(), e.mac.to_string(), super::digest(e));
        let mark = [("node", node.as_str()), ("mac", &mac), ("digest", &digest)];
        let mut changed = self.write(&self.script_file(e.mac), mark::write("#!ipxe\n", &mark, text).as_bytes())?;
        let file = self.host_file(e.node);
        let old = file.exists();
        let new = self.write(&file, mark::write("", &mark, &conf::host(e)).as_bytes())?;
        // dnsmasq sees new files by itself; what it has read once it forgets only when told.
        again |= old && new;
        changed |= new || again;
        if again {
            self.read_again()?;
        }
        // In an IPv6 network a node has a block of addresses of its own: nobody else's lease is in its way.
        if let (Some(IpAddr::V4(address)), IpAddr::V4(engine)) = (e.address, service.address) {
            lease::free(self.paths, self.network, (&service.interface, engine), |l| {
                l.address == address && l.mac != e.mac
            });
        }
        Ok(changed)
    }

    /// Takes a machine's script and reservation away, if they are this node's. Something else may have taken the place of
    /// either: the node may have another card by now, the card another node.
    pub(super) fn drop(&self, d: &DropEntry) -> Result<bool, DriverError> {
        let (host_file, script_file) = (self.host_file(d.node), self.script_file(d.mac));
        let host_is_ours = match self.read(&host_file)? {
            Some(text) => match Mark::read(&text).and_then(|m| m.get::<Mac>("mac")) {
                Some(mac) => mac == d.mac,
                None => text.contains(&d.mac.to_string()),
            },
            None => false,
        };
        let script_is_ours = match self.read(&script_file)? {
            Some(text) => Mark::read(&text).and_then(|m| m.get::<Id>("node")).map_or(host_is_ours, |n| n == d.node),
            None => false,
        };
        let mut changed = false;
        if script_is_ours {
            changed |= self.remove(&script_file)?;
        }
        if host_is_ours && self.remove(&host_file)? {
            changed = true;
            self.read_again()?;
        }
        if changed
            && let Some(service) = self.service()?
            && let IpAddr::V4(engine) = service.address
        {
            lease::free(self.paths, self.network, (&service.interface, engine), |l| l.mac == d.mac);
        }
        Ok(changed)
    }

    /// Everything here that carries our mark.
    pub(super) fn seen(&self) -> Result<Vec<Seen>, DriverError> {
        if !self.boot.exists() {
            return Ok(Vec::new());
        }
        let mut seen = vec![Seen::Service(self.service_seen()?)];
        // Of each machine: what its script says, what its reservation says.
        let mut found: BTreeMap<(Id, Mac), [Option<String>; 2]> = BTreeMap::new();
        let said = |m: &Mark| if m.intact { m.get("digest") } else { None }.unwrap_or_else(|| "changed".to_owned());
        let mut owner = BTreeMap::new();
        for name in self.names(&self.boot.join("hosts"))? {
            let Ok(node) = name.parse::<Id>() else { continue };
            let Some(text) = self.read(&self.host_file(node))? else { continue };
            let Some(m) = Mark::read(&text) else { continue };
            let Some(mac) = m.get::<Mac>("mac") else { continue };
            owner.insert(mac, node);
            found.entry((node, mac)).or_default()[1] = Some(said(&m));
        }
        for name in self.names(&self.mac_folder())? {
            let Some(mac) = name.strip_suffix(".ipxe").and_then(|n| n.parse::<Mac>().ok()) else { continue };
            let Some(text) = self.read(&self.script_file(mac))? else { continue };
            let m = Mark::read(&text);
            // A script that lost its mark is still known by the reservation of its card.
            let node = m.as_ref().and_then(|m| m.get::<Id>("node")).or_else(|| owner.get(&mac).copied());
            let Some(node) = node else { continue };
            found.entry((node, mac)).or_default()[0] = Some(m.map_or_else(|| "changed".to_owned(), |m| said(&m)));
        }
        seen.extend(found.into_iter().map(|((node, mac), parts)| {
            let digest = match parts {
                [Some(script), Some(host)] if script == host => script,
                [Some(_), Some(_)] => "changed".to_owned(),
                _ => "partial".to_owned(),
            };
            Seen::Entry { node, mac, digest }
        }));
        Ok(seen)
    }

    /// The script a machine would get.
    pub(super) fn script(&self, mac: Mac) -> Result<Option<String>, DriverError> {
        self.read(&self.script_file(mac))
    }

    /// What the configuration's mark says; none if it is not there.
    pub(super) fn service(&self) -> Result<Option<Service>, DriverError> {
        Ok(self.read(&self.conf())?.and_then(|t| Mark::read(&t)).and_then(|m| Service::read(&m)))
    }

    /// The running dnsmasq of this network, if there is one.
    pub(super) fn process(&self) -> Option<Process> {
        let pid = host::read(&self.paths.dnsmasq(self.network).join("pid")).ok()??;
        let conf = self.conf();
        Process::open(pid.trim().parse().ok()?, &|process| host::is_dnsmasq(process, &conf))
    }

    fn service_seen(&self) -> Result<String, DriverError> {
        let Some(m) = self.read(&self.conf())?.and_then(|t| Mark::read(&t)) else { return Ok("partial".to_owned()) };
        let mut scripts = true;
        for (name, script) in self.scripts() {
            scripts &= self.read(&self.tftp(name))?.is_some_and(|found| found == script);
        }
        let loader = |name: &&str| !Path::new(LOADERS_FROM).join(name).exists() || self.tftp(name).exists();
        let same = |h: Mark| h.intact && h.get::<String>("digest") == m.get("digest");
        let http = self.read(&self.http())?.and_then(|t| Mark::read(&t)).is_some_and(same);
        let whole = scripts && http && m.intact && conf::LOADERS.iter().all(loader);
        Ok(if whole { m.get("digest") } else { None }.unwrap_or_else(|| "changed".to_owned()))
    }

    /// Another node's reservation of the same card goes: a leftover, since cards are unique among nodes.
    fn evict(&self, e: &Entry) -> Result<bool, DriverError> {
        let Some(text) = self.read(&self.script_file(e.mac))? else { return Ok(false) };
        match Mark::read(&text).and_then(|m| m.get::<Id>("node")) {
            Some(node) if node != e.node => {
                let file = self.host_file(node);
                let named = self.read(&file)?.is_some_and(|t| t.contains(&e.mac.to_string()));
                Ok(named && self.remove(&file)?)
            }
            _ => Ok(false),
        }
    }

    /// Has a running dnsmasq forget its reservations and read them again.
    fn read_again(&self) -> Result<(), DriverError> {
        let Some(dnsmasq) = self.process() else { return Ok(()) };
        // Its handlers are in place before it writes the pid file, so the signal cannot end it.
        dnsmasq
            .signal(Signal::HUP)
            .map_err(|e| DriverError::io(format!("have dnsmasq (process {}) read its files again", dnsmasq.pid), e))
    }

    fn conf(&self) -> PathBuf {
        self.boot.join("dnsmasq.conf")
    }

    fn http(&self) -> PathBuf {
        self.boot.join(http::FILE)
    }

    fn tftp(&self, name: &str) -> PathBuf {
        self.boot.join("tftp").join(name)
    }

    fn mac_folder(&self) -> PathBuf {
        self.boot.join("tftp/mac")
    }

    fn script_file(&self, mac: Mac) -> PathBuf {
        self.mac_folder().join(format!("{}.ipxe", mac.hyphens()))
    }

    fn host_file(&self, node: Id) -> PathBuf {
        self.boot.join("hosts").join(node.to_string())
    }

    fn read(&self, path: &Path) -> Result<Option<String>, DriverError> {
        tell("read", path, host::read(path))
    }

    fn names(&self, path: &Path) -> Result<Vec<String>, DriverError> {
        tell("list", path, host::names(path))
    }

    fn remove(&self, path: &Path) -> Result<bool, DriverError> {
        tell("remove", path, host::remove(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<bool, DriverError> {
        tell("write", path, host::write_whole(&self.paths.network(self.network), path, content))
    }
}

fn tell<T>(verb: &str, path: &Path, done: io::Result<T>) -> Result<T, DriverError> {
    done.map_err(|e| DriverError::io(format!("{verb} {}", path.display()), e))
}

/// What a network's configuration was made from, as far as others need it.
pub(super) struct Service {
    pub(super) interface: String,
    pub(super) address: IpAddr,
    pub(super) dhcp: Dhcp,
}

impl Service {
    fn read(m: &Mark) -> Option<Service> {
        Some(Service { interface: m.get("interface")?, address: m.get("address")?, dhcp: m.get("dhcp")? })
    }
}
