//! What is there, without effect.

use std::fs;
use std::io::ErrorKind;

use bmi::model::Id;
use bmi::step::{Seen, SeenLun, SeenTarget, Session};

use super::client::Client;
use super::kernel::named;
use super::show::Connection;
use super::wire::Code;
use crate::drivers::krbd::Krbd;
use crate::drivers::{DriverError, Paths};

/// All targets and portals of one network's tgtd. It serves us alone, so all of it is ours.
pub(super) fn network(client: &Client, network: Id, kernel: &Krbd) -> Result<Vec<Seen>, DriverError> {
    let failed = |e| client.fault(format!("look at the targets of network {network}"), e);
    let mut seen = Vec::new();
    for t in client.listing().map_err(failed)? {
        let live = match client.connections(t.tid) {
            _ if !t.busy => Vec::new(),
            Ok(live) => live,
            Err(e) if e.code() == Some(Code::NO_TARGET) => Vec::new(),
            Err(e) => return Err(failed(e)),
        };
        seen.push(Seen::Target(SeenTarget {
            tid: t.tid,
            iqn: t.iqn,
            luns: t.luns.into_iter().map(|l| SeenLun { number: l.number, path: named(kernel, l.path) }).collect(),
            initiators: t.initiators,
            accounts: t.accounts,
            sessions: live.into_iter().map(session).collect(),
        }));
    }
    let portals = client.portals().map_err(failed)?;
    seen.extend(portals.into_iter().map(|(address, port)| Seen::Portal(address, port)));
    Ok(seen)
}

/// Networks with a tgtd's folder, whether it runs or not.
pub(super) fn networks(paths: &Paths) -> Result<Vec<Seen>, DriverError> {
    let folder = paths.run.join("net");
    let tried = || format!("list the networks in {}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(DriverError::io(tried(), e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| DriverError::io(tried(), e))?;
        let id = entry.file_name().to_str().and_then(|name| name.parse::<Id>().ok());
        found.extend(id.filter(|_| entry.path().join("tgtd").is_dir()));
    }
    found.sort();
    Ok(found.into_iter().map(Seen::Network).collect())
}

/// Who is logged in to one target; nobody, if there is none.
pub(super) fn sessions(client: &Client, tid: u32, iqn: &str) -> Result<Vec<Session>, DriverError> {
    let failed = |e| client.fault(format!("ask who is logged in to target {iqn}"), e);
    if !client.targets().map_err(failed)?.iter().any(|(t, name)| *t == tid && name == iqn) {
        return Ok(Vec::new());
    }
    match client.connections(tid) {
        Ok(live) => Ok(live.into_iter().map(session).collect()),
        Err(e) if e.code() == Some(Code::NO_TARGET) => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

fn session(c: Connection) -> Session {
    Session { sid: c.sid, initiator: c.initiator, address: c.address }
}
