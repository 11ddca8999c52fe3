//! MAC addresses, IPv4 networks and ranges, checked once when read.

use std::fmt;
use std::net::Ipv4Addr;
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

/// An interface's address with its prefix length, as in `10.9.0.1/24`. The address is a host of that subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The interface's own address.
    pub address: Ipv4Addr,
    /// Length of the network part, 8 to 30.
    pub prefix: u8,
}

impl Cidr {
    /// The network mask.
    #[must_use]
    pub fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// The network's own address.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// Whether `a` lies in the subnet.
    #[must_use]
    pub fn contains(self, a: Ipv4Addr) -> bool {
        u32::from(a) & self.mask() == u32::from(self.network())
    }

    /// The subnet it is an address of.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        Subnet { network: self.network(), prefix: self.prefix }
    }

    /// All host addresses of its subnet.
    #[must_use]
    pub fn hosts(self) -> Range {
        Range {
            first: Ipv4Addr::from(u32::from(self.network()) + 1),
            last: Ipv4Addr::from(u32::from(self.broadcast()) - 1),
        }
    }

    /// Whether the two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Cidr, String> {
        let bad = || {
            format!(
                "{:?} is not an address with a prefix length; write it like 10.9.0.1/24",
                s.chars().take(40).collect::<String>()
            )
        };
        let (a, p) = s.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = a.parse().map_err(|_| bad())?;
        let prefix: u8 = p.parse().map_err(|_| bad())?;
        if !(8..=30).contains(&prefix) {
            return Err(format!("a prefix length of {prefix} does not fit a boot network; use 8 to 30"));
        }
        let cidr = Cidr { address, prefix };
        if address == cidr.network() || address == cidr.broadcast() {
            return Err(format!(
                "{address} is the network or broadcast address of {}/{prefix}; give the address the engine shall have",
                cidr.network()
            ));
        }
        if address.is_loopback()
            || address.is_multicast()
            || address.is_unspecified()
            || address.is_link_local()
            || address.octets()[0] >= 240
        {
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

/// A subnet, as in `10.9.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// Its own address: all host bits are zero.
    pub network: Ipv4Addr,
    /// Length of the network part, 8 to 30.
    pub prefix: u8,
}

impl Subnet {
    /// That address as an interface of this subnet has it. Whether it is one of its hosts is not looked at.
    #[must_use]
    pub fn with(self, address: Ipv4Addr) -> Cidr {
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
        let shown = || s.chars().take(40).collect::<String>();
        let bad = || format!("{:?} is not a subnet; write it like 10.9.0.0/24", shown());
        let (a, p) = s.split_once('/').ok_or_else(bad)?;
        let (network, prefix): (Ipv4Addr, u8) = (a.parse().map_err(|_| bad())?, p.parse().map_err(|_| bad())?);
        if prefix > 30 {
            return Err(format!("the subnet {} is too small for the engine and a node; use 8 to 30", shown()));
        }
        if prefix < 8 {
            return Err(format!("the subnet {} is larger than a boot network can be; use 8 to 30", shown()));
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
    pub first: Ipv4Addr,
    /// Last address.
    pub last: Ipv4Addr,
}

impl Range {
    /// How many addresses it holds.
    #[must_use]
    pub fn len(self) -> u32 {
        (u32::from(self.last) - u32::from(self.first)).saturating_add(1)
    }

    /// Never: a range holds at least one address.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// The address at `offset`, counted round and round.
    #[must_use]
    pub fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + offset % self.len())
    }

    /// Whether `a` lies in it.
    #[must_use]
    pub fn contains(self, a: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&a)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(s: &str) -> Result<Range, String> {
        let bad = || {
            format!(
                "{:?} is not an address range; write it like 10.9.0.100-10.9.0.150",
                s.chars().take(60).collect::<String>()
            )
        };
        let (a, b) = s.split_once('-').ok_or_else(bad)?;
        let (first, last) = (a.trim().parse().map_err(|_| bad())?, b.trim().parse().map_err(|_| bad())?);
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
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_have_one_spelling_and_people_several() {
        fn read<T: for<'de> serde::Deserialize<'de>>(text: &str) -> (bool, bool) {
            let stored = bincode::serialize(text).unwrap();
            let people = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
            (bincode::deserialize::<T>(&stored).is_ok(), T::deserialize(people).is_ok())
        }
        assert_eq!(read::<Mac>("52:54:00:00:00:0a"), (true, true));
        assert_eq!(read::<Mac>("52-54-00-00-00-0A"), (false, true));
        assert_eq!(read::<Cidr>("10.9.0.1/24"), (true, true));
        assert_eq!(read::<Cidr>("10.9.0.1/+24"), (false, true));
        assert_eq!(read::<Range>("10.9.0.1-10.9.0.2"), (true, true));
        assert_eq!(read::<Range>("10.9.0.1 - 10.9.0.2"), (false, true));
    }

    #[test]
    fn a_mac_is_one_cards_address() {
        assert_eq!("52-54-00-AB-cd-01".parse::<Mac>().map(|m| m.to_string()).as_deref(), Ok("52:54:00:ab:cd:01"));
        for bad in [
            "",
            "52:54:00:00:00",
            "52:54:00:00:00:01:02",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "5254:00:00:00:01",
            "g2:54:00:00:00:01",
            "52:54:00:00:00:0١",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        let c = |s: &str| s.parse::<Cidr>().expect(s);
        assert!(c("10.9.0.1/24").overlaps(c("10.9.0.129/25")));
        assert!(c("10.9.0.129/25").overlaps(c("10.9.0.1/16")));
        assert!(!c("10.9.0.1/24").overlaps(c("10.9.1.1/24")));
        for bad in ["10.9.0.0/24", "10.9.0.255/24", "10.9.0.1", "10.9.0.1/31", "127.0.0.2/8", "224.0.0.1/24", "x/24"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subnet_has_no_host_bits_and_room_for_a_node() {
        let s = |t: &str| t.parse::<Subnet>().map(|s| s.hosts().to_string());
        assert_eq!(s("10.9.0.0/24").as_deref(), Ok("10.9.0.1-10.9.0.254"));
        assert_eq!(s("10.9.0.4/30").as_deref(), Ok("10.9.0.5-10.9.0.6"));
        for (bad, told) in [
            ("10.9.0.7/24", "in the subnet 10.9.0.0/24"),
            ("10.9.0.0/31", "too small"),
            ("10.9.0.1/32", "too small"),
            ("10.0.0.0/7", "larger"),
            ("10.9.0.0", "like 10.9.0.0/24"),
            ("127.0.0.0/8", "cannot be an engine's"),
            ("224.0.0.0/24", "cannot be an engine's"),
        ] {
            let why = s(bad).expect_err(bad);
            assert!(why.contains(told), "{bad}: {why}");
        }
    }

    #[test]
    fn a_range_counts_round() {
        let r: Range = "10.9.0.100-10.9.0.102".parse().expect("range");
        assert_eq!((r.len(), r.at(4)), (3, Ipv4Addr::new(10, 9, 0, 101)));
        assert!("10.9.0.2-10.9.0.1".parse::<Range>().is_err());
    }
}
