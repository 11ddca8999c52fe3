//! iSCSI targets in a network's tgtd.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::family;
use crate::model::{Id, RbdPlace, Sealed};

/// A disk behind a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lun {
    /// LUN, from 1.
    pub number: u8,
    /// Absolute path of the backing, or `rbd:POOL/IMAGE`.
    pub path: String,
    /// What initiators see as the disk's serial; derives from the volume's id, so it stays through every swap.
    pub serial: String,
    /// What initiators see as the disk's SCSI id; derives from the volume's id too.
    pub scsi_id: String,
    /// How its pool is reached, for a backing in one.
    pub pool: Option<RbdPlace>,
}

/// A CHAP account (the target checks the initiator).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Unique in the tgtd.
    pub user: String,
    /// The secret; only the driver opens it.
    pub secret: Sealed,
}

/// Makes a target whole: target, LUNs, account, ACL last. On a live tgtd an initiator never meets a half-filled target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeTarget {
    /// In which network's tgtd.
    pub network: Id,
    /// tgtd's number for it.
    pub tid: u32,
    /// Its name.
    pub iqn: String,
    /// Its disks.
    pub luns: Vec<Lun>,
    /// The one initiator name let in.
    pub initiator: String,
    /// CHAP, if asked for.
    pub account: Option<Account>,
}

/// Takes a target away. Without `force` it refuses under a live session; with it, sessions are dropped and it is verified
/// that the target is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropTarget {
    /// In which network's tgtd.
    pub network: Id,
    /// tgtd's number for it.
    pub tid: u32,
    /// Its name: a target of that number with another name is not touched.
    pub iqn: String,
    /// The account that goes with it.
    pub account: Option<String>,
    /// Drop live sessions.
    pub force: bool,
    /// Its disks, which nobody serves afterwards: what the host holds for them is let go.
    pub luns: Vec<Lun>,
}

/// Puts another backing behind a LUN. IQN, LUN, serial and SCSI id stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapLun {
    /// In which network's tgtd.
    pub network: Id,
    /// tgtd's number for the target.
    pub tid: u32,
    /// The target's name.
    pub iqn: String,
    /// The LUN as it shall be.
    pub to: Lun,
    /// The backing it has now: where the inverse goes back to.
    pub from: String,
    /// Drop live sessions first (they would write to the old backing).
    pub force: bool,
}

/// Gives a target's account another secret. Live sessions go on: a secret counts at login alone. Nobody logs in meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapAccount {
    /// In which network's tgtd.
    pub network: Id,
    /// tgtd's number for the target.
    pub tid: u32,
    /// The target's name.
    pub iqn: String,
    /// The one initiator name let in: kept out while the account is away.
    pub initiator: String,
    /// The account as it shall be.
    pub to: Account,
    /// The account it has now: where the inverse goes back to.
    pub from: Account,
}

/// Opens a tgtd's portal to its network, verifies it, and closes the loopback one it was filled behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPortal {
    /// Whose tgtd.
    pub network: Id,
    /// The engine's address on that network.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// The network's slot: names the loopback address it was filled behind.
    pub slot: u16,
}

/// Closes a tgtd's portal to its network again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosePortal {
    /// Whose tgtd.
    pub network: Id,
    /// The engine's address on that network.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// The network's slot.
    pub slot: u16,
}

/// The loopback address a network's tgtd is filled behind.
#[must_use]
pub fn fill_address(slot: u16) -> Ipv4Addr {
    let [hi, lo] = slot.to_be_bytes();
    Ipv4Addr::new(127, 97, hi, lo)
}

family! {
    /// Steps of the target drivers.
    TargetStep in Target { MakeTarget, DropTarget, SwapLun, OpenPortal, ClosePortal, SwapAccount } undo {
        MakeTarget => |s| DropTarget {
            network: s.network, tid: s.tid, iqn: s.iqn.clone(), account: s.account.as_ref().map(|a| a.user.clone()), force: true, luns: s.luns.clone(),
        },
        SwapLun => |s| SwapLun {
            network: s.network, tid: s.tid, iqn: s.iqn.clone(), to: Lun { path: s.from.clone(), ..s.to.clone() }, from: s.to.path.clone(), force: s.force,
        },
        SwapAccount => |s| SwapAccount { to: s.from.clone(), from: s.to.clone(), ..s.clone() },
        OpenPortal => |s| ClosePortal { network: s.network, address: s.address, port: s.port, slot: s.slot },
    }
}

impl TargetStep {
    /// Whose tgtd.
    #[must_use]
    pub fn network(&self) -> Id {
        match self {
            TargetStep::MakeTarget(s) => s.network,
            TargetStep::DropTarget(s) => s.network,
            TargetStep::SwapLun(s) => s.network,
            TargetStep::OpenPortal(s) => s.network,
            TargetStep::ClosePortal(s) => s.network,
            TargetStep::SwapAccount(s) => s.network,
        }
    }

    /// What it does, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            TargetStep::MakeTarget(s) => format!("make target {}", s.iqn),
            TargetStep::DropTarget(s) => format!("take target {} away", s.iqn),
            TargetStep::SwapLun(s) => format!("put {} behind LUN {} of target {}", s.to.path, s.to.number, s.iqn),
            TargetStep::OpenPortal(s) => format!("open portal {}", SocketAddr::new(s.address, s.port)),
            TargetStep::ClosePortal(s) => format!("close portal {}", SocketAddr::new(s.address, s.port)),
            TargetStep::SwapAccount(s) => format!("give account {} of target {} another secret", s.to.user, s.iqn),
        }
    }
}
