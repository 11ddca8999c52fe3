//! The boot driver: what dnsmasq of a network is told, and the scripts by which machines reach their disks.
//!
//! It lays out files and tells a running dnsmasq to read them again. It never starts or stops a process (a worker's
//! business), and it never takes away or changes a file that does not carry its mark.
//!
//! ```text
//! RUN/net/<network>/boot/dnsmasq.conf         read at dnsmasq's start; written last: it says that the layout is whole
//! RUN/net/<network>/boot/http.conf            read at the HTTP server's start
//! RUN/net/<network>/boot/hosts/<node>         one machine's reservation; new ones are picked up as they appear
//! RUN/net/<network>/boot/tftp/                boot loaders, boot.ipxe, autoexec.ipxe
//! RUN/net/<network>/boot/tftp/mac/<mac>.ipxe  one machine's script
//! RUN/net/<network>/dnsmasq/                  dnsmasq's own: pid file, leases
//! ```
//!
//! The scripts are as readable as TFTP and HTTP make them: for everybody on the network. On the host only root may enter.

mod conf;
mod doctor;
pub mod http;
mod layout;
mod lease;
mod mark;
mod packet;
mod script;
pub mod sim;

use std::sync::Arc;

use bmi::model::Kind;
use bmi::step::{BootStep, Entry, Fact, Look, Scope, Seen, Serve};
use serde::Serialize;

use super::{Done, Driver, DriverError, Paths, StepCx, Unseal};

/// dnsmasq's files of all networks.
pub struct Dnsmasq {
    paths: Paths,
    unseal: Arc<dyn Unseal>,
}

/// Raised whenever what we write from the same step changes, so that an upgraded bmid writes it anew.
const FORMAT: u32 = 3;

impl Dnsmasq {
    /// A driver for the files beneath `paths`.
    #[must_use]
    pub fn new(paths: Paths, unseal: Arc<dyn Unseal>) -> Dnsmasq {
        Dnsmasq { paths, unseal }
    }
}

/// The digest that [`Seen::Entry`] shows while this entry is in place, unchanged.
#[must_use]
pub fn digest(entry: &Entry) -> String {
    digest_of("entry", entry)
}

/// The digest that [`Seen::Service`] shows while this layout is in place, unchanged.
#[must_use]
pub fn service_digest(serve: &Serve) -> String {
    digest_of("serve", serve)
}

fn digest_of<T: Serialize>(what: &str, step: &T) -> String {
    // A step is plain data: it always has bytes. Should it not, an empty digest equals nothing that is seen.
    bincode::serialize(&(what, FORMAT, step)).map(|b| mark::hash(&b)).unwrap_or_default()
}

/// The text of a machine's script without its mark, with the secret opened.
fn script_of(entry: &Entry, unseal: &dyn Unseal) -> Result<String, DriverError> {
    let secret = entry.secret.as_ref().map(|s| unseal.open(&s.secret)).transpose()?;
    script::machine(entry, secret.as_deref())
}

impl Driver for Dnsmasq {
    type Step = BootStep;

    fn apply(&self, step: &BootStep, _: &StepCx<'_>) -> Result<Done, DriverError> {
        let layout = layout::Layout::new(&self.paths, step.network());
        let changed = match step {
            BootStep::Serve(s) => layout.serve(s)?,
            BootStep::ChangeServe(s) => layout.serve(&s.to)?,
            BootStep::Unserve(_) => layout.unserve()?,
            BootStep::Entry(e) => layout.put(e, &script_of(e, &*self.unseal)?)?,
            BootStep::DropEntry(d) => layout.drop(d)?,
        };
        Ok(Done::changed(changed))
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        match scope {
            Scope::Network { network, .. } => layout::Layout::new(&self.paths, *network).seen(),
            Scope::Networks => layout::networks(&self.paths),
            Scope::Datastore { .. } => Ok(Vec::new()),
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Script(network, mac) => {
                Some(layout::Layout::new(&self.paths, *network).script(*mac).map(Fact::Script))
            }
            Look::Doctor { networks } => Some(Ok(Fact::Findings(doctor::findings(&self.paths, networks)))),
            _ => None,
        }
    }
}

/// A refusal: the step asks for something that is not so.
fn refused(tried: String, why: impl Into<String>) -> DriverError {
    DriverError::new(Kind::Conflict, tried, why)
}

#[cfg(test)]
mod tests;
