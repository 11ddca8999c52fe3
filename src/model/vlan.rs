//! VLANs of the data centre: which numbers there are, who may use them, and how people name several or none.
//!
//! A VLAN here is a number in the pool; what stands on it is a [`super::Network`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::net::as_text;
use super::{Id, Owner, Time};

/// The numbers that IEEE 802.1Q leaves: 0 means "no VLAN", 4095 is reserved.
pub const NUMBERS: std::ops::RangeInclusive<u16> = 1..=4094;

/// A VLAN in the pool. Source: BMI Vlan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Primary key.
    pub id: Id,
    /// Unique, 1 to 4094.
    pub number: u16,
    /// The project that may have a network on it; none: any project.
    pub owner: Option<Owner>,
    /// When it came into the pool.
    pub created_at: Time,
}

/// Why a number is no VLAN; none if it is one.
#[must_use]
pub fn refuse(number: u16) -> Option<String> {
    (!NUMBERS.contains(&number))
        .then(|| format!("{number} is not a VLAN: they are numbered 1 to 4094; 0 and 4095 are reserved (IEEE 802.1Q)"))
}

/// VLANs named together, both ends included: `100-199`, or one: `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlans {
    /// First number.
    pub first: u16,
    /// Last number.
    pub last: u16,
}

impl Vlans {
    /// Each of them.
    pub fn numbers(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

fn number(s: &str) -> Result<u16, String> {
    let s = s.trim();
    // A sign is no part of a number, whatever the parser takes.
    let number = Some(s).filter(|s| s.bytes().all(|b| b.is_ascii_digit())).and_then(|s| s.parse().ok());
    let number = number.ok_or_else(|| {
        let shown: String = s.chars().take(40).collect();
        format!("{shown:?} is not a VLAN; give a number from 1 to 4094")
    })?;
    refuse(number).map_or(Ok(number), Err)
}

impl FromStr for Vlans {
    type Err = String;

    fn from_str(s: &str) -> Result<Vlans, String> {
        let (first, last) = match s.split_once('-') {
            Some((a, b)) => (number(a)?, number(b)?),
            None => (number(s)?, number(s)?),
        };
        if first > last {
            return Err(format!("the VLANs {first}-{last} end before they begin; swap the two numbers"));
        }
        Ok(Vlans { first, last })
    }
}

impl fmt::Display for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return f.pad(&self.first.to_string());
        }
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

as_text! { Vlans }

/// Which VLAN a network shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VlanChoice {
    /// This one.
    Number(u16),
    /// The lowest free one of the pool.
    Auto,
}

impl FromStr for VlanChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<VlanChoice, String> {
        match s {
            "auto" => Ok(VlanChoice::Auto),
            _ => {
                let bad = || {
                    let shown: String = s.chars().take(40).collect();
                    format!("{shown:?} is not a VLAN; give a number from 1 to 4094, or auto")
                };
                // Whether there is such a VLAN is the plan's to say, with the reason.
                s.parse().map(VlanChoice::Number).map_err(|_| bad())
            }
        }
    }
}

/// A [`VlanChoice`] as a field: in JSON a number, `"auto"` or null; on the wire what it is.
pub mod choice {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::VlanChoice;

    /// Writes it.
    pub fn serialize<S: Serializer>(choice: &Option<VlanChoice>, s: S) -> Result<S::Ok, S::Error> {
        match choice {
            choice if !s.is_human_readable() => choice.serialize(s),
            None => s.serialize_none(),
            Some(VlanChoice::Auto) => s.serialize_str("auto"),
            Some(VlanChoice::Number(n)) => s.serialize_u16(*n),
        }
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<VlanChoice>, D::Error> {
        if d.is_human_readable() { d.deserialize_any(Json) } else { Option::deserialize(d) }
    }

    struct Json;

    impl Visitor<'_> for Json {
        type Value = Option<VlanChoice>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a VLAN's number, \"auto\" or null")
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<Option<VlanChoice>, E> {
            // A number too large for any VLAN is refused like 4095: by the plan, with the reason.
            Ok(Some(VlanChoice::Number(u16::try_from(number).unwrap_or(u16::MAX))))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Option<VlanChoice>, E> {
            text.parse().map(Some).map_err(E::custom)
        }
        fn visit_unit<E>(self) -> Result<Option<VlanChoice>, E> {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_one_number_or_two_that_are_in_order() {
        let v = |s: &str| s.parse::<Vlans>().map(|v| v.to_string());
        assert_eq!(v("100-199").as_deref(), Ok("100-199"));
        assert_eq!(v("100").as_deref(), Ok("100"));
        assert_eq!(v("1-4094").map(|_| ()), Ok(()));
        for bad in ["", "0", "4095", "65536", "abc", "-1", "1-", "-", "1-2-3", "200-100", "+1", "1-4095", "٣"] {
            let told = v(bad).expect_err(bad);
            assert!(told.contains("VLAN"), "{bad}: {told}");
        }
    }

    #[test]
    fn a_choice_is_a_number_or_auto() {
        assert_eq!("auto".parse(), Ok(VlanChoice::Auto));
        assert_eq!("7".parse(), Ok(VlanChoice::Number(7)));
        for bad in ["abc", "", "-1", "1-2", "70000", "Auto"] {
            let told = bad.parse::<VlanChoice>().expect_err(bad);
            assert!(told.contains("auto"), "{bad}: {told}");
        }
    }
}
