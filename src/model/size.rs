//! Sizes in bytes, read as people write them (`10G`, `512MiB`), counted exactly, shown in GiB rounded up where a record says `size`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. `10G` and `10GiB` both mean 10 * 2^30: disks and their images are measured in powers of two here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Whole GiB, rounded up: the unit of `size` and of the `gigabytes` quota (DESIGN section 2, point 9).
    #[must_use]
    pub fn gib(self) -> u64 {
        self.0.div_ceil(1 << 30)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(s: &str) -> Result<Bytes, String> {
        let bad = || {
            format!(
                "{:?} is not a size; write a number of bytes, or a number with K, M, G or T",
                s.chars().take(40).collect::<String>()
            )
        };
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = s[..digits].parse().map_err(|_| bad())?;
        let unit = match s[digits..].to_ascii_lowercase().as_str() {
            "" | "b" => 1u64,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(Bytes).ok_or_else(bad)
    }
}

/// What sizes are shown in.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The unit is chosen after rounding: what rounds up to 1024 of one is 1.0 of the next.
        let mut unit = 0;
        let mut tenths = u128::from(self.0) * 10;
        while unit + 1 < UNITS.len() && tenths >= 10_240 {
            unit += 1;
            tenths = (u128::from(self.0) * 10 + (1 << (10 * unit - 1))) >> (10 * unit);
        }
        let text = match unit {
            0 => format!("{} B", self.0),
            _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_and_overflow_is_refused() {
        assert_eq!("10G".parse(), Ok(Bytes(10 << 30)));
        assert_eq!("512MiB".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("1".parse(), Ok(Bytes(1)));
        for bad in ["", "G", "-1", "1.5G", "10X", "99999999999999T", "18446744073709551616"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes((1 << 30) + 1).gib(), 2);
    }

    #[test]
    fn sizes_are_shown_in_one_way_whatever_they_round_to() {
        let shown = |n: u64| Bytes(n).to_string();
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown((1 << 40) - 1), "1.0 TiB", "never 1024.0 GiB");
        assert_eq!((shown(1 << 40), shown((1 << 20) - 1)), ("1.0 TiB".to_owned(), "1.0 MiB".to_owned()));
        assert_eq!(shown(u64::MAX), "16777216.0 TiB");
    }
}
