//! Ids: 128 random bits, written as a UUID. Every outside name derives from one (never from a name a caller gave).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An object's id. On the wire and in rows 16 bytes; in JSON and on a terminal a lower-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// An id out of 16 random bytes, with the version and variant bits of RFC 9562 (UUIDv4) set.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Id {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Id(bytes)
    }

    /// A stable id derived from this one: the same `salt` gives the same id. For things that exist once per object.
    #[must_use]
    pub fn derived(self, salt: u8) -> Id {
        let mut bytes = self.0;
        for (i, b) in bytes.iter_mut().enumerate() {
            *b ^= salt.wrapping_mul(31).wrapping_add(i as u8);
        }
        Id::from_random(bytes)
    }

    /// The first eight hex digits: for log lines and interface aliases, never as a key.
    #[must_use]
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId(pub String);

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an id; an id looks like 0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b", self.0)
    }
}

impl std::error::Error for BadId {}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(s: &str) -> Result<Id, BadId> {
        let bad = || BadId(s.chars().take(64).collect());
        let b = s.as_bytes();
        if b.len() != 36 {
            return Err(bad());
        }
        let mut out = [0u8; 16];
        let mut n = 0;
        for (i, &c) in b.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(bad());
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or_else(bad)? as u8;
            out[n / 2] = out[n / 2] << 4 | digit;
            n += 1;
        }
        Ok(Id(out))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Id, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(D::Error::custom)
        } else {
            Ok(Id(<[u8; 16]>::deserialize(d)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_writes_and_refuses_the_rest() {
        let id = Id::from_random([7; 16]);
        assert_eq!(id.to_string().parse::<Id>(), Ok(id));
        for bad in [
            "",
            "0f8e7c1a",
            "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5",
            "0f8e7c1a_2b3d_4e5f_8a9b_0c1d2e3f4a5b",
            "../../../../etc/passwd/etc/passwd/etc",
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_derived_id_is_stable_and_different() {
        let id = Id::from_random([9; 16]);
        assert_eq!(id.derived(1), id.derived(1));
        assert_ne!(id.derived(1), id.derived(2));
        assert_ne!(id.derived(0), id);
    }
}
