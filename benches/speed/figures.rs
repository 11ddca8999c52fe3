//! Figures: medians, what the slowest one of a hundred took, ratios, and how they are printed.

use std::time::{Duration, Instant};

/// How long something took, again and again.
#[derive(Clone, Default)]
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    /// Adds one.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Does it and adds how long it took.
    pub(crate) fn time<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let out = f();
        self.add(begun.elapsed());
        out
    }

    /// The last so many of them.
    pub(crate) fn last(&self, n: usize) -> Figures {
        Figures(self.0[self.0.len().saturating_sub(n)..].to_vec())
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// So many of a hundred took at most this long.
    pub(crate) fn percentile(&self, of_hundred: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * of_hundred / 100).min(sorted.len() - 1)]
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The longest.
    pub(crate) fn worst(&self) -> Duration {
        self.percentile(100)
    }
}

/// How many times as long.
pub(crate) fn ratio(this: Duration, that: Duration) -> f64 {
    this.as_secs_f64() / that.as_secs_f64()
}

/// In milliseconds.
pub(crate) fn ms(d: Duration) -> String {
    format!("{:.2} ms", d.as_secs_f64() * 1e3)
}

/// A heading.
pub(crate) fn title(text: &str) {
    println!("\n== {text}");
}

/// A line: what, what was found, what is wanted and whether it is so.
pub(crate) fn line(what: &str, found: &str, goal: &str, reached: bool) {
    let verdict = if reached { "reached" } else { "NOT REACHED" };
    println!("  {what:<44} {found:<58} goal {goal}: {verdict}");
}

/// A line without a goal.
pub(crate) fn note(what: &str, found: &str) {
    println!("  {what:<44} {found}");
}
