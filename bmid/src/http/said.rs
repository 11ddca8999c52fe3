//! What the server tells of machines: which came, and what it got. A machine that asks without end gets few lines: the log is
//! the host's memory or disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in [`SPAN`].
const MOST: u32 = 60;
const SPAN: Duration = Duration::from_secs(60);
/// A log file beyond this is emptied; a journal keeps its own measure.
const LOG: u64 = 4 << 20;

/// Counts lines.
pub(super) struct Said {
    state: Mutex<(Instant, u32)>,
}

impl Said {
    pub(super) fn new() -> Said {
        Said { state: Mutex::new((Instant::now(), 0)) }
    }

    /// Says it, unless too much was said already.
    pub(super) fn line(&self, text: std::fmt::Arguments<'_>) {
        if let Some(unsaid) = self.may(Instant::now()) {
            if unsaid > 0 {
                println!("{unsaid} lines were left out");
            }
            println!("{text}");
        }
    }

    /// Whether a line may be said, and how many were not before it.
    fn may(&self, now: Instant) -> Option<u32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, lines) = *state;
        if now.duration_since(since) >= SPAN {
            *state = (now, 1);
            bound_log();
            return Some(lines.saturating_sub(MOST));
        }
        state.1 = lines.saturating_add(1);
        (lines < MOST).then_some(0)
    }
}

/// The log is appended to, so it goes on at the beginning.
fn bound_log() {
    let out = std::io::stdout();
    let is_long = |s: rustix::fs::Stat| {
        rustix::fs::FileType::from_raw_mode(s.st_mode).is_file() && u64::try_from(s.st_size).is_ok_and(|n| n > LOG)
    };
    if rustix::fs::fstat(&out).is_ok_and(is_long) {
        // A log is no reason to fail.
        let _ = rustix::fs::ftruncate(&out, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_requests_is_a_few_lines_and_a_number() {
        let (said, begin) = (Said::new(), Instant::now());
        let lines = (0..1_000).filter_map(|_| said.may(begin)).count();
        assert_eq!(lines, 60);
        assert_eq!(said.may(begin + SPAN * 2), Some(940));
        assert_eq!(said.may(begin + SPAN * 2), Some(0));
    }
}
