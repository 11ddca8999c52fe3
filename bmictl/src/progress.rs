//! How far a long operation is: a bar on a terminal, lines for machines, nothing elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use bmi::protocol;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Globals, Progress};
use crate::words::{Line, Words, clean};

/// A bar that would be gone at once only flickers.
const NOT_BEFORE: Duration = Duration::from_millis(300);

/// Reports for machines come no faster than this, except the first and the last of each thing done.
const NOT_FASTER: Duration = Duration::from_millis(100);

/// What shows progress.
pub(crate) enum Shown {
    /// Nothing does.
    Nothing,
    /// A bar, once it is worth it.
    Bar { since: Instant, bar: Option<ProgressBar> },
    /// A line a report; when the last was, and of what.
    Lines(Option<(Instant, String)>),
}

impl Shown {
    pub(crate) fn new(globals: &Globals) -> Shown {
        let bar = match globals.progress {
            Progress::Jsonl => return Shown::Lines(None),
            Progress::None => false,
            Progress::Bar => true,
            Progress::Auto => !globals.quiet && io::stderr().is_terminal(),
        };
        if bar { Shown::Bar { since: Instant::now(), bar: None } } else { Shown::Nothing }
    }

    /// Whether the daemon is to send progress at all.
    pub(crate) fn wanted(&self) -> bool {
        !matches!(self, Shown::Nothing)
    }

    pub(crate) fn update(&mut self, words: &Words, p: &protocol::Progress) {
        match self {
            Shown::Nothing => {}
            Shown::Lines(last) => {
                let now = Instant::now();
                if due(last.as_ref(), now, p) {
                    let (op_id, done, total, bytes) = (p.op_id, p.done, p.total, p.bytes);
                    words.line(&Line::Progress { op_id, what: &p.what, done, total, bytes });
                    *last = Some((now, p.what.clone()));
                }
            }
            Shown::Bar { since, bar } => {
                if since.elapsed() >= NOT_BEFORE {
                    let bar =
                        bar.get_or_insert_with(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
                    draw(bar, p);
                }
            }
        }
    }

    /// Takes the bar off the terminal, so that words stand alone.
    pub(crate) fn clear(&mut self) {
        if let Shown::Bar { bar: Some(bar), .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// Whether a report is worth a line.
fn due(last: Option<&(Instant, String)>, now: Instant, p: &protocol::Progress) -> bool {
    match last {
        Some((at, what)) => {
            *what != p.what || p.total == Some(p.done) || now.saturating_duration_since(*at) >= NOT_FASTER
        }
        None => true,
    }
}

fn draw(bar: &ProgressBar, p: &protocol::Progress) {
    let template = match (p.bytes, p.total.is_some()) {
        (true, true) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        (true, false) => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        (false, true) => "{msg} {wide_bar} {pos}/{len}",
        (false, false) => "{msg} {spinner} {pos}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if let Some(total) = p.total {
        bar.set_length(total);
    }
    bar.set_message(clean(&p.what));
    bar.set_position(p.done);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmi::model::Id;

    #[test]
    fn a_flood_of_reports_becomes_a_trickle_that_misses_no_beginning_and_no_end() {
        let start = Instant::now();
        let report = |what: &str, done| protocol::Progress {
            op_id: Id([1; 16]),
            what: what.to_owned(),
            done,
            total: Some(9),
            bytes: true,
        };
        let last = (start, "copy".to_owned());
        assert!(due(None, start, &report("copy", 0)));
        assert!(!due(Some(&last), start, &report("copy", 1)));
        assert!(due(Some(&last), start + NOT_FASTER, &report("copy", 2)));
        assert!(due(Some(&last), start, &report("copy", 9)));
        assert!(due(Some(&last), start, &report("hash", 1)));
    }
}
