//! Points in time: microseconds since 1970-01-01 UTC, written ISO 8601 with microseconds and Z (DESIGN section 6).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Microseconds since the epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This point and `seconds` more.
    #[must_use]
    pub fn plus_seconds(self, seconds: u64) -> Time {
        Time(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Whole seconds from `earlier` to this point, none if it lies later.
    #[must_use]
    pub fn seconds_since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// Days since the epoch to year, month, day in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last of its year; an era is 400 years.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let yoe = y % 400;
    let mp = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * mp + 2) / 5 + day - 1;
    let found = (era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy).checked_sub(719_468)?;
    (civil(found) == (year, month, day)).then_some(found)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (y, m, d) = civil(secs / 86_400);
        let s = secs % 86_400;
        write!(f, "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{micros:06}Z", s / 3_600, s / 60 % 60, s % 60)
    }
}

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(s: &str) -> Result<Time, String> {
        let bad = || {
            format!(
                "{:?} is not a time; write it like 2026-11-22T10:20:30.000000Z",
                s.chars().take(40).collect::<String>()
            )
        };
        let field = |from: usize, to: usize| -> Result<u64, String> {
            let part = s.get(from..to).filter(|p| p.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
            part.parse().map_err(|_| bad())
        };
        let mark = |at: usize, c: u8| (s.as_bytes().get(at) == Some(&c)).then_some(()).ok_or_else(bad);
        mark(4, b'-').and(mark(7, b'-')).and(mark(10, b'T')).and(mark(13, b':')).and(mark(16, b':'))?;
        let day = days(field(0, 4)?, field(5, 7)?, field(8, 10)?).ok_or_else(bad)?;
        let (h, m, sec) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
        let micros = match s.len() {
            20 => 0,
            27 => mark(19, b'.').and_then(|()| field(20, 26))?,
            _ => return Err(bad()),
        };
        mark(s.len() - 1, b'Z')?;
        if h > 23 || m > 59 || sec > 59 {
            return Err(bad());
        }
        Ok(Time((day * 86_400 + h * 3_600 + m * 60 + sec) * 1_000_000 + micros))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(D::Error::custom)
        } else {
            Ok(Time(u64::deserialize(d)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days_are_right() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Time(1_709_208_000_000_001).to_string(), "2024-02-29T12:00:00.000001Z");
        assert!("2023-02-29T12:00:00Z".parse::<Time>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(t in 0u64..253_402_300_799_999_999) {
            prop_assert_eq!(Time(t).to_string().parse::<Time>(), Ok(Time(t)));
        }
    }
}
