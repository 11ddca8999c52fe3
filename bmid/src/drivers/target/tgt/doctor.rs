//! What is wrong with targets on this host, for people. Looks only.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi::model::{Id, Kind};
use bmi::step::{Finding, Severity};

use super::client::Client;
use super::door;

/// How long a portal may take to take a connection from its own host.
const REACH: Duration = Duration::from_secs(1);
/// How long a tgtd may take to name its portals.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where iSCSI targets listen unless told otherwise.
const ISCSI: u16 = 3260;

/// One finding on the program, one on each network's portal, one on its door where there is something to tell. Networks are asked
/// side by side.
pub(super) fn findings(
    networks: &[(Id, String, String)],
    folder: impl Fn(Id) -> PathBuf,
    client: impl Fn(Id) -> Client + Sync,
) -> Vec<Finding> {
    let mut all = vec![program(std::env::var_os("PATH"))];
    all.extend(networks.iter().filter_map(|(id, interface, _)| door::finding(&folder(*id), interface)));
    std::thread::scope(|scope| {
        let client = &client;
        let ask = |(id, interface, address): &(Id, String, String)| portal(&client(*id), *id, interface, address);
        let asked: Vec<_> = networks.iter().map(|n| scope.spawn(move || ask(n))).collect();
        // A thread that panicked has nothing to tell.
        all.extend(asked.into_iter().filter_map(|t| t.join().ok()));
    });
    all
}

/// Whether tgtd is installed. Services run with a short PATH, so where Debian puts it is looked at too.
pub(super) fn program(path: Option<std::ffi::OsString>) -> Finding {
    let check = "tgtd".to_owned();
    let listed = path.iter().flat_map(std::env::split_paths);
    let folders = listed.chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    let runs = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    match folders.map(|f| f.join(Path::new("tgtd"))).find(runs) {
        Some(found) => {
            Finding { check, severity: Severity::Ok, found: found.display().to_string(), fix: String::new() }
        }
        None => Finding {
            check,
            severity: Severity::Error,
            found: "tgtd is not installed: no machine can be given a disk".to_owned(),
            fix: "apt-get install tgt".to_owned(),
        },
    }
}

fn portal(client: &Client, id: Id, interface: &str, address: &str) -> Finding {
    let at = |severity, found: String, fix: &str| Finding {
        check: format!("portal on {interface}"),
        severity,
        found,
        fix: fix.to_owned(),
    };
    let Ok(address) = address.split('/').next().unwrap_or_default().parse::<IpAddr>() else {
        return at(Severity::Error, format!("{address:?} is not an address"), "`bmictl network show` names it");
    };
    let (open, why) = match client.clone().limit(PATIENCE).portals() {
        Ok(open) => (open.into_iter().find(|(a, _)| *a == address), "its portal is not open".to_owned()),
        Err(e) => {
            let e = client.fault("ask", e);
            if e.kind != Kind::Unavailable {
                // It runs, so what listens there may well be itself.
                return at(Severity::Error, e.why, &e.fix);
            }
            (None, e.why)
        }
    };
    match open {
        Some(open) if reaches(open.0, open.1) => at(Severity::Ok, format!("{} answers", SocketAddr::from(open)), ""),
        Some(open) => at(
            Severity::Error,
            format!("tgtd listens at {}, but a connection to it does not come about", SocketAddr::from(open)),
            "is the address on the interface, and no firewall before the port?",
        ),
        None if reaches(address, ISCSI) => at(
            Severity::Error,
            format!("something else listens at {address}:{ISCSI}, and network {id} cannot have it: {why}"),
            "`ss -ltnp sport = 3260` names it; stop it (Debian's own tgt.service listens on every address)",
        ),
        None => at(
            Severity::Error,
            format!("network {id}: {why}"),
            "`bmictl reconcile` opens it; `bmictl status` says why not",
        ),
    }
}

fn reaches(address: IpAddr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), REACH).is_ok()
}
