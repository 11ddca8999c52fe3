//! What machines are told on a network: addresses, boot files, scripts.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::family;
use crate::model::{Cidr, Dhcp, Id, Mac, Range, Sealed};

/// The port of boot files by HTTP. Above 1024, so that the server needs no right at all, and not one that web servers of the host take on
/// all its addresses: whoever is sent here is told the port, too.
pub const HTTP_PORT: u16 = 8067;

/// Lays out a network's boot service: folder, dnsmasq's configuration, boot loaders, the script that finds the machine's
/// own one. The process itself is a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// The network.
    pub network: Id,
    /// On which interface.
    pub interface: String,
    /// The engine's address and the subnet.
    pub address: Cidr,
    /// From where unreserved machines get addresses.
    pub range: Option<Range>,
    /// Who gives addresses.
    pub dhcp: Dhcp,
    /// The router that machines are told of.
    pub router: Option<Ipv4Addr>,
    /// The name servers that machines are told of.
    pub dns: Vec<Ipv4Addr>,
}

/// Takes a network's boot service layout away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unserve {
    /// The network.
    pub network: Id,
}

/// Lays out a network's boot service otherwise. Programs that serve it read their configuration once: they are to be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeServe {
    /// How it shall be.
    pub to: Serve,
    /// How it was.
    pub from: Serve,
}

/// CHAP credentials for a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptSecret {
    /// Account name.
    pub user: String,
    /// The secret; only the driver opens it.
    pub secret: Sealed,
}

/// One machine's reservation and script. Putting it again with other values replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// On which network.
    pub network: Id,
    /// Which node: the mark of what we wrote.
    pub node: Id,
    /// The machine's card.
    pub mac: Mac,
    /// Its reserved address.
    pub address: Option<IpAddr>,
    /// Its name in DHCP.
    pub hostname: String,
    /// Where its disk is.
    pub portal: IpAddr,
    /// TCP port.
    pub port: u16,
    /// The target's name.
    pub iqn: String,
    /// LUN of the boot disk.
    pub lun: u8,
    /// The name the machine logs in with.
    pub initiator: String,
    /// CHAP credentials the script carries.
    pub secret: Option<ScriptSecret>,
}

/// Takes one machine's reservation and script away, if they are this node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEntry {
    /// On which network.
    pub network: Id,
    /// Which node.
    pub node: Id,
    /// The machine's card.
    pub mac: Mac,
}

family! {
    /// Steps of the boot drivers.
    BootStep in Boot { Serve, Unserve, Entry, DropEntry, ChangeServe } undo {
        Serve => |s| Unserve { network: s.network },
        ChangeServe => |s| ChangeServe { to: s.from.clone(), from: s.to.clone() },
        Entry => |s| DropEntry { network: s.network, node: s.node, mac: s.mac },
    }
}

impl BootStep {
    /// On which network.
    #[must_use]
    pub fn network(&self) -> Id {
        match self {
            BootStep::Serve(s) => s.network,
            BootStep::Unserve(s) => s.network,
            BootStep::Entry(s) => s.network,
            BootStep::DropEntry(s) => s.network,
            BootStep::ChangeServe(s) => s.to.network,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            BootStep::Serve(s) => format!("lay out the boot service of network {} on {}", s.network, s.interface),
            BootStep::Unserve(s) => format!("take the boot service of network {} away", s.network),
            BootStep::Entry(s) => format!("write the boot script of {} ({})", s.hostname, s.mac),
            BootStep::DropEntry(s) => format!("take the boot script of {} away", s.mac),
            BootStep::ChangeServe(s) => format!("lay out the boot service of network {} otherwise", s.to.network),
        }
    }
}
