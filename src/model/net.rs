//! MAC addresses, IP networks and ranges, checked once when read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A station's MAC address: never multicast, never all zeroes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// `52-54-00-00-00-01`: how iPXE writes `${mac:hexhyp}`, and so the name of the machine's script.
    #[must_use]
    pub fn hyphens(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Mac, String> {
        let shown = || s.chars().take(40).collect::<String>();
        let bad = || format!("{:?} is not a MAC address; write it like 52:54:00:12:34:56", shown());
        let sep = if s.contains('-') { '-' } else { ':' };
        let mut out = [0u8; 6];
        let mut n = 0;
        for part in s.split(sep) {
            if n == 6 || part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            out[n] = u8::from_str_radix(part, 16).map_err(|_| bad())?;
            n += 1;
        }
        if n != 6 {
            return Err(bad());
        }
        if out[0] & 1 == 1 {
            return Err(format!(
                "{} is a multicast address: no network card has it; give the card's own address",
                shown()
            ));
        }
        if out == [0; 6] {
            return Err("00:00:00:00:00:00 is no network card's address; give the card's own address".to_owned());
        }
        Ok(Mac(out))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address as a number, and how many bits it has.
fn bits(a: IpAddr) -> (u128, u8) {
    match a {
        IpAddr::V4(a) => (u32::from(a).into(), 32),
        IpAddr::V6(a) => (a.into(), 128),
    }
}

/// The address of that number, in the family of `like`.
fn address_of(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // No sum of ours leaves the family: what is above 32 bits is nothing.
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The bytes of an address, for keys.
#[must_use]
pub fn octets(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Prefix lengths that a boot network has: of IPv6 the one by which machines make their own addresses.
fn fits(a: IpAddr, prefix: u8) -> bool {
    if a.is_ipv4() { (8..=30).contains(&prefix) } else { prefix == 64 }
}

/// What an engine's address on a boot network can be.
fn is_a_hosts(a: IpAddr) -> bool {
    let plain = !(a.is_loopback() || a.is_multicast() || a.is_unspecified());
    plain
        && match a {
            IpAddr::V4(a) => !a.is_link_local() && a.octets()[0] < 240,
            IpAddr::V6(a) => !a.is_unicast_link_local() && a.to_ipv4_mapped().is_none(),
        }
}

/// An interface's address with its prefix length, as in `10.9.0.1/24` or `fd00:7::1/64`. The address is a host of that subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The interface's own address.
    pub address: IpAddr,
    /// Length of the network part: 8 to 30, of IPv6 64.
    pub prefix: u8,
}

impl Cidr {
    /// Its lowest and highest number.
    fn ends(self) -> (u128, u128) {
        let (number, width) = bits(self.address);
        let hosts = u128::MAX.checked_shr(128 - u32::from(width.saturating_sub(self.prefix))).unwrap_or(0);
        (number & !hosts, number | hosts)
    }

    fn range(self, first: u128, last: u128) -> Range {
        Range { first: address_of(first, self.address), last: address_of(last, self.address) }
    }

    /// The network's own address.
    #[must_use]
    pub fn network(self) -> IpAddr {
        address_of(self.ends().0, self.address)
    }

    /// Whether `a` lies in the subnet.
    #[must_use]
    pub fn contains(self, a: IpAddr) -> bool {
        let (first, last) = self.ends();
        a.is_ipv4() == self.address.is_ipv4() && (first..=last).contains(&bits(a).0)
    }

    /// The subnet it is an address of.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        Subnet { network: self.network(), prefix: self.prefix }
    }

    /// All host addresses of its subnet.
    #[must_use]
    pub fn hosts(self) -> Range {
        let (first, last) = self.ends();
        // IPv6 has no broadcast address.
        self.range(first.saturating_add(1), if self.address.is_ipv4() { last.saturating_sub(1) } else { last })
    }

    /// Of an IPv6 subnet: addresses for machines that nobody has provisioned.
    #[must_use]
    pub fn leased(self) -> Range {
        let first = self.ends().0;
        self.range(first | 0x1_0000, first | 0x1_7fff)
    }

    /// Of an IPv6 subnet: addresses for provisioned machines, each of which has [`BLOCK`] of them.
    #[must_use]
    pub fn reserved(self) -> Range {
        let first = self.ends().0;
        self.range(first | 0x1000_0000, first | 0xffff_ffff)
    }

    /// Whether the two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }
}

/// Addresses that a node has in an IPv6 network, the first of which is the one it is shown with: DHCPv6 knows machines by what their
/// programs call themselves, and gives an address that a machine's loader holds to nobody else, be it the same machine's system.
pub const BLOCK: u32 = 16;

impl FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Cidr, String> {
        let bad = || {
            format!(
                "{:?} is not an address with a prefix length; write it like 10.9.0.1/24 or fd00:7::1/64",
                s.chars().take(60).collect::<String>()
            )
        };
        let (a, p) = s.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = a.parse().map_err(|_| bad())?;
        let prefix: u8 = p.parse().map_err(|_| bad())?;
        if !fits(address, prefix) {
            let which = if address.is_ipv4() { "8 to 30" } else { "64" };
            return Err(format!("a prefix length of {prefix} does not fit a boot network; use {which}"));
        }
        let cidr = Cidr { address, prefix };
        if !cidr.hosts().contains(address) {
            let what = if address.is_ipv4() { "network or broadcast address" } else { "network address" };
            return Err(format!(
                "{address} is the {what} of {}/{prefix}; give the address the engine shall have",
                cidr.network()
            ));
        }
        if !is_a_hosts(address) {
            return Err(format!(
                "{address} cannot be an engine's address on a boot network; give a unicast address of that network"
            ));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

/// A subnet, as in `10.9.0.0/24` or `fd00:7::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// Its own address: all host bits are zero.
    pub network: IpAddr,
    /// Length of the network part: 8 to 30, of IPv6 64.
    pub prefix: u8,
}

impl Subnet {
    /// That address as an interface of this subnet has it. Whether it is one of its hosts is not looked at.
    #[must_use]
    pub fn with(self, address: IpAddr) -> Cidr {
        Cidr { address, prefix: self.prefix }
    }

    /// Its host addresses.
    #[must_use]
    pub fn hosts(self) -> Range {
        self.with(self.network).hosts()
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(s: &str) -> Result<Subnet, String> {
        let shown = || s.chars().take(60).collect::<String>();
        let bad = || format!("{:?} is not a subnet; write it like 10.9.0.0/24 or fd00:7::/64", shown());
        let (a, p) = s.split_once('/').ok_or_else(bad)?;
        let (network, prefix): (IpAddr, u8) = (a.parse().map_err(|_| bad())?, p.parse().map_err(|_| bad())?);
        if !fits(network, prefix) {
            return Err(match (network, prefix) {
                (IpAddr::V6(_), _) => format!("the subnet {} does not fit a boot network; of IPv6 use 64", shown()),
                (_, 31..) => format!("the subnet {} is too small for the engine and a node; use 8 to 30", shown()),
                _ => format!("the subnet {} is larger than a boot network can be; use 8 to 30", shown()),
            });
        }
        let subnet = Subnet { network, prefix };
        let cidr = subnet.with(network);
        if cidr.network() != network {
            return Err(format!(
                "{network} is an address in the subnet {}/{prefix}; give that, or the engine's own by --address",
                cidr.network()
            ));
        }
        // The engine's address must be one that an engine can have.
        subnet.with(subnet.hosts().first).to_string().parse::<Cidr>().map(|_| subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.network, self.prefix))
    }
}

/// A range of addresses that nodes get, both ends included: `10.9.0.100-10.9.0.150`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

impl Range {
    /// How many addresses it holds, as far as that can be counted.
    #[must_use]
    pub fn len(self) -> u32 {
        let more = bits(self.last).0.saturating_sub(bits(self.first).0);
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Never: a range holds at least one address.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// The address at `offset`, counted round and round.
    #[must_use]
    pub fn at(self, offset: u32) -> IpAddr {
        address_of(bits(self.first).0 + u128::from(offset % self.len()), self.first)
    }

    /// Whether `a` lies in it.
    #[must_use]
    pub fn contains(self, a: IpAddr) -> bool {
        a.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&a)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(s: &str) -> Result<Range, String> {
        let bad = || {
            format!(
                "{:?} is not an address range; write it like 10.9.0.100-10.9.0.150",
                s.chars().take(80).collect::<String>()
            )
        };
        let (a, b) = s.split_once('-').ok_or_else(bad)?;
        let (first, last): (IpAddr, IpAddr) =
            (a.trim().parse().map_err(|_| bad())?, b.trim().parse().map_err(|_| bad())?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(bad());
        }
        if first > last {
            return Err(format!("the range {s} ends before it begins; swap the two addresses"));
        }
        Ok(Range { first, last })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

/// Types that are written as their text.
macro_rules! as_text {
    ($($t:ident)*) => {$(
        impl serde::Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        // People may write it in several ways, we in one: stored bytes that say it otherwise are damaged.
        impl<'de> serde::Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$t, D::Error> {
                let people = d.is_human_readable();
                let text = <String as serde::Deserialize>::deserialize(d)?;
                let value: $t = text.parse().map_err(serde::de::Error::custom)?;
                if !people && value.to_string() != text {
                    return Err(serde::de::Error::custom(format!("{text:?} is not how {value} is stored")));
                }
                Ok(value)
            }
        }
    )*};
}
pub(super) use as_text;
as_text! { Mac Cidr Subnet Range }

#[cfg(test)]
mod tests;
