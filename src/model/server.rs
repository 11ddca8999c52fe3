//! Servers (engines, datastores), networks and where they stand on an engine.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{Bytes, Cidr, Id, Name, Owner, Range, Time};

/// What a server is (BMI external services).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// A host that runs bmid.
    Engine,
    /// Where bytes live.
    Datastore,
    /// Whoever vouches for users.
    Authentication,
}

/// Whether a datastore may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// Being made.
    Creating,
    /// In use.
    Active,
    /// Being removed.
    Deleting,
    /// Taken over from an engine that is gone: its records are to be restored before it is used.
    Adopted,
}

/// Where a datastore's bytes are, in its driver's terms. Everything a storage step needs to find them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A folder (the embedded default).
    Folder {
        /// Absolute path of the root; it holds a file with the datastore's id.
        path: String,
        /// Size of the XFS file that bmid made and mounts there, if it did.
        loop_size: Option<Bytes>,
        /// That file is sparse: it can run out of space under a tenant.
        thin: bool,
    },
    /// A pool of a Ceph cluster, or a namespace in one.
    Rbd(RbdPlace),
}

/// How the disks of a pool come to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RbdExport {
    /// By the kernel where it can, else by tgtd itself: what is asked for. A datastore's record says which it came to.
    #[default]
    Auto,
    /// Mapped by the kernel's client.
    Kernel,
    /// Opened by tgtd's rbd module.
    Librbd,
}

/// Everything that is needed to reach a pool and to find our images in it. No secret: the key stays in its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RbdPlace {
    /// The pool.
    pub pool: String,
    /// The namespace in it; none is the pool's own.
    pub namespace: Option<String>,
    /// Absolute path of the cluster's configuration file.
    pub conf: String,
    /// The Ceph user, without `client.`.
    pub user: String,
    /// Absolute path of the user's keyring; none: where the configuration says.
    pub keyring: Option<String>,
    /// The datastore: it stands in the names of our images.
    pub datastore: Id,
    /// How targets get the disks.
    pub export: RbdExport,
}

impl RbdPlace {
    /// What the names of our images begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("bmi.{}", self.datastore.to_string().replace('-', ""))
    }

    /// Whether targets get its disks through the kernel.
    #[must_use]
    pub fn by_kernel(&self) -> bool {
        self.export == RbdExport::Kernel
    }

    /// `POOL` or `POOL/NAMESPACE`.
    #[must_use]
    pub fn spec(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}", self.pool),
            None => self.pool.clone(),
        }
    }
}

impl Place {
    /// Where it is, for people and as a key: a folder's path, or `rbd:POOL/NAMESPACE` with the cluster's configuration.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Place::Folder { path, .. } => path.clone(),
            Place::Rbd(r) => format!("rbd:{}@{}", r.spec(), r.conf),
        }
    }
}

/// An engine, a datastore or an authentication service. Source: BMI external services, DreamFactory Server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Primary key.
    pub id: Id,
    /// Unique per kind.
    pub name: Name,
    /// What it is.
    pub kind: ServerKind,
    /// The driver's name (BMI type): `file`, `tgt`.
    pub driver: String,
    /// Unique per kind where given.
    pub url: Option<String>,
    /// Unique per kind with the port, where given.
    pub ip: Option<String>,
    /// See `ip`.
    pub port: Option<u16>,
    /// Where the bytes are; none for what holds none.
    pub place: Option<Place>,
    /// Whether it may be used.
    pub state: ServerState,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it now.
    pub operation: Option<Id>,
}

impl std::str::FromStr for RbdExport {
    type Err = String;
    fn from_str(s: &str) -> Result<RbdExport, String> {
        match s {
            "auto" => Ok(RbdExport::Auto),
            "kernel" => Ok(RbdExport::Kernel),
            "librbd" => Ok(RbdExport::Librbd),
            _ => Err(format!(
                "{:?} is not a way to export; auto, kernel or librbd",
                s.chars().take(40).collect::<String>()
            )),
        }
    }
}

/// How addresses are given on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// bmid's dnsmasq gives addresses and boot files.
    Serve,
    /// Another server gives addresses, ours only the boot file (PXE proxy).
    Proxy,
    /// Neither: somebody else's server names our TFTP.
    Off,
    /// bmid's dnsmasq gives IPv6 addresses and boot files, and machines need no IPv4 at all.
    Ipv6,
}

impl std::str::FromStr for Dhcp {
    type Err = String;
    fn from_str(s: &str) -> Result<Dhcp, String> {
        match s {
            "serve" => Ok(Dhcp::Serve),
            "proxy" => Ok(Dhcp::Proxy),
            "off" => Ok(Dhcp::Off),
            "ipv6" => Ok(Dhcp::Ipv6),
            _ => {
                let shown = s.chars().take(40).collect::<String>();
                Err(format!("{shown:?} is not a DHCP mode; serve, proxy, off or ipv6"))
            }
        }
    }
}

/// How frames of a VLAN are tagged on the parent interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tagging {
    /// IEEE 802.1Q: a customer tag, what every switch port in trunk mode speaks.
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1q,
    /// IEEE 802.1ad: a service tag, for providers' networks (QinQ).
    #[serde(rename = "802.1ad")]
    Dot1ad,
}

impl Tagging {
    /// The standard's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Tagging::Dot1q => "802.1Q",
            Tagging::Dot1ad => "802.1ad",
        }
    }
}

impl std::str::FromStr for Tagging {
    type Err = String;
    fn from_str(s: &str) -> Result<Tagging, String> {
        match s.to_ascii_lowercase().as_str() {
            "802.1q" => Ok(Tagging::Dot1q),
            "802.1ad" => Ok(Tagging::Dot1ad),
            _ => {
                Err(format!("{:?} is not a way of tagging; 802.1Q or 802.1ad", s.chars().take(40).collect::<String>()))
            }
        }
    }
}

/// Network lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// Being set up.
    Creating,
    /// Serving.
    Ready,
    /// Being taken down.
    Deleting,
}

/// An owner's use of one VLAN or untagged interface on which nodes boot. Source: BMI Vlan and networkId.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Primary key.
    pub id: Id,
    /// Owner; none: it is everyone's.
    pub owner: Option<Owner>,
    /// Unique per owner, and among everyone's.
    pub name: Name,
    /// VLAN number 1 to 4094, none for an untagged interface.
    pub vlan: Option<u16>,
    /// The engine's address and the subnet.
    pub address: Cidr,
    /// From where nodes get addresses; none means any free one of the subnet, by reservation only.
    pub range: Option<Range>,
    /// Who gives addresses.
    pub dhcp: Dhcp,
    /// Lifecycle.
    pub state: NetworkState,
    /// Small number unique among live networks: its tgtd fills behind 127.97.(slot/256).(slot%256).
    pub slot: u16,
    /// When made.
    pub created_at: Time,
    /// The operation that holds it now.
    pub operation: Option<Id>,
    /// The router that machines are told of.
    pub router: Option<Ipv4Addr>,
    /// The name servers that machines are told of.
    pub dns: Vec<Ipv4Addr>,
}

impl Network {
    /// Whether an address of its subnet is the engine's, the router's or a name server's: no node gets it.
    #[must_use]
    pub fn keeps(&self, address: IpAddr) -> bool {
        address == self.address.address || self.router.iter().chain(&self.dns).any(|kept| address == *kept)
    }
}

/// Where and how bmid makes an engine's interface on a VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// The interface whose link carries the tagged frames.
    pub parent: String,
    /// How they are tagged.
    pub tagging: Tagging,
    /// Largest packet; none: the parent's.
    pub mtu: Option<u32>,
}

/// A network's one interface on one engine. Source: BMI ProvisionEngineVlan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineNetwork {
    /// Primary key.
    pub id: Id,
    /// The network.
    pub network: Id,
    /// The engine.
    pub engine: Id,
    /// The interface's name (BMI interfaceName).
    pub interface: String,
    /// bmid put the address on it, so bmid takes it off again.
    pub address_ours: bool,
    /// What the interface is, where bmid makes it itself.
    pub trunk: Option<Trunk>,
}
