//! How far a long operation is: a bar on a terminal, lines for machines, nothing elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use bmi::protocol;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Globals, Progress};
use crate::words::{Line, Words, clean};

/// A bar that would be gone at once only flickers.
const NOT_BEFORE: Duration = Duration::from_millis(300);

/// What shows progress.
pub(crate) enum Shown {
    /// Nothing does.
    Nothing,
    /// A bar, once it is worth it.
    Bar { since: Instant, bar: Option<ProgressBar> },
    /// A line a report.
    Lines,
}

impl Shown {
    pub(crate) fn new(globals: &Globals) -> Shown {
        let bar = match globals.progress {
            Progress::Jsonl => return Shown::Lines,
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
            Shown::Lines => words.line(&Line::Progress {
                op_id: p.op_id,
                what: &p.what,
                done: p.done,
                total: p.total,
                bytes: p.bytes,
            }),
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
