//! The engine's interfaces on VLANs, and its addresses on interfaces.

use serde::{Deserialize, Serialize};

use super::family;
use crate::model::{Cidr, Id, Tagging};

/// Makes the engine's interface on a VLAN: a sub-interface of `parent`, marked as bmid's for this network, and up. An interface
/// of that name or VLAN that is not ours is refused, never taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeVlan {
    /// For which network.
    pub network: Id,
    /// The name it gets, at most 15 characters.
    pub interface: String,
    /// The interface whose link carries the tagged frames: a network card, a bond or a bridge.
    pub parent: String,
    /// The VLAN, 1 to 4094.
    pub vlan: u16,
    /// How frames are tagged.
    pub tagging: Tagging,
    /// Largest packet; none: the parent's.
    pub mtu: Option<u32>,
}

/// Takes a network's VLAN interfaces away, whatever they are called. One that is not ours stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropVlan {
    /// For which network.
    pub network: Id,
    /// The name it should have: a half-made one is known by it alone.
    pub interface: String,
}

/// The name of the engine's interface on a VLAN: a VLAN has one network at most, so the number alone tells them apart.
#[must_use]
pub fn vlan_interface(vlan: u16) -> String {
    format!("bmi-v{vlan}")
}

/// Puts the engine's address on an interface (and a private IPv6 one, so that router solicitations are answered and iPXE
/// does not wait for them), and brings it up. Refused if the address sits on another interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAddress {
    /// For which network.
    pub network: Id,
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: Cidr,
    /// The IPv4 address is bmid's to take off again. The IPv6 one, derived from the network's id, always is.
    pub ours: bool,
}

/// Takes the engine's address off again, if it is bmid's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropAddress {
    /// For which network.
    pub network: Id,
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: Cidr,
    /// The IPv4 address is bmid's to take off.
    pub ours: bool,
}

/// The private IPv6 subnet a network's router advertisements announce: fd97::/16 and the first six bytes of its id; /64.
#[must_use]
pub fn ipv6_prefix(network: Id) -> std::net::Ipv6Addr {
    let b = network.0;
    let mut o = [0u8; 16];
    o[0] = 0xfd;
    o[1] = 0x97;
    o[2..8].copy_from_slice(&b[..6]);
    std::net::Ipv6Addr::from(o)
}

/// Whether it is in one of those subnets: no network is put there by hand.
#[must_use]
pub fn is_private(a: std::net::Ipv6Addr) -> bool {
    a.segments()[0] == 0xfd97
}

/// The engine's own address in that subnet.
#[must_use]
pub fn ipv6_address(network: Id) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from(u128::from(ipv6_prefix(network)) | 1)
}

family! {
    /// Steps of the network drivers.
    NetworkStep in Network { PutAddress, DropAddress, MakeVlan, DropVlan } undo {
        PutAddress => |s| DropAddress { network: s.network, interface: s.interface.clone(), address: s.address, ours: s.ours },
        MakeVlan => |s| DropVlan { network: s.network, interface: s.interface.clone() },
    }
}

impl NetworkStep {
    /// For which network.
    #[must_use]
    pub fn network(&self) -> Id {
        match self {
            NetworkStep::PutAddress(s) => s.network,
            NetworkStep::DropAddress(s) => s.network,
            NetworkStep::MakeVlan(s) => s.network,
            NetworkStep::DropVlan(s) => s.network,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            NetworkStep::PutAddress(s) => format!("put {} on {}", s.address, s.interface),
            NetworkStep::DropAddress(s) => format!("take {} off {}", s.address, s.interface),
            NetworkStep::MakeVlan(s) => format!("make {} for VLAN {} on {}", s.interface, s.vlan, s.parent),
            NetworkStep::DropVlan(s) => format!("remove the VLAN interface of network {}", s.network),
        }
    }
}
