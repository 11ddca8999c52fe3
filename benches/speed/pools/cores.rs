//! Which program had the processors' time: what is measured and what it is measured against share them, so the rest follows from it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::figures::note;

/// Processor time of all programs until now, in ticks of 10 ms, by their names; and when that was.
pub(super) struct Spent(BTreeMap<String, u64>, Instant);

impl Spent {
    /// Looks at everything in this process namespace.
    pub(super) fn now() -> Spent {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            // The name stands in brackets and may hold anything.
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, s)| s.rsplit_once(')')) else { continue };
            let ticks = |n: usize| rest.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
            // proc(5): utime and stime, and those of children that were waited for.
            *all.entry(name.to_owned()).or_default() += (11..=14).map(ticks).sum::<u64>();
        }
        Spent(all, Instant::now())
    }

    /// Prints what each program took since then, for each of so many.
    pub(super) fn told(&self, what: &str, each: usize) {
        let rate = each as f64 / self.1.elapsed().as_secs_f64();
        let mut since: Vec<(u64, String)> =
            Spent::now().0.into_iter().map(|(n, t)| (t - self.0.get(&n).copied().unwrap_or(0).min(t), n)).collect();
        since.sort_unstable_by(|a, b| b.cmp(a));
        let ms = |ticks: u64| ticks as f64 * 10.0 / each as f64;
        let told: Vec<String> =
            since.iter().filter(|(t, _)| ms(*t) >= 0.1).map(|(t, name)| format!("{name} {:.1}", ms(*t))).collect();
        let total: u64 = since.iter().map(|(t, _)| t).sum();
        note(
            &format!("  processors, ms for each {what}"),
            &format!("{:.1} at {rate:.0} a second: {}", ms(total), told.join(", ")),
        );
    }
}
