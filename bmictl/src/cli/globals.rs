//! What may stand before or after every verb: where the daemon is, how answers look, how long to wait.
//!
//! Every id begins with `global-`, so that no argument of an operation can ever be taken for one of these.

use std::path::PathBuf;
use std::time::Duration;

use bmi::model::{Id, Owner};
use clap::builder::ArgAction;
use clap::{Args, ValueEnum};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One JSON value: the bare object, or an array
    Json,
    /// A JSON object a line
    Jsonl,
    /// YAML
    Yaml,
    /// Comma-separated values
    Csv,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How to show that work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// A bar on a terminal
    Auto,
    /// A bar
    Bar,
    /// Machine-readable: every line of standard error is a JSON object
    Jsonl,
    /// Not at all
    None,
}

/// The options of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Globals {
    /// The daemon's socket
    #[arg(id = "global-socket", long = "socket", value_name = "PATH", global = true)]
    #[arg(env = "BMI_SOCKET", default_value = "/run/bmid/bmid.sock")]
    pub socket: PathBuf,
    /// How to print the answer [default: table; for call: json]
    #[arg(id = "global-format", short = 'f', long = "format", alias = "output-format", value_name = "FORMAT")]
    #[arg(env = "BMI_FORMAT", global = true)]
    pub format: Option<Format>,
    /// No header line in tables and CSV
    #[arg(id = "global-no-header", short = 'H', long = "no-header", global = true)]
    pub no_header: bool,
    /// Only these fields, in this order
    #[arg(id = "global-columns", short = 'o', long = "columns", value_name = "A,B,C", global = true)]
    #[arg(value_delimiter = ',', action = ArgAction::Set)]
    pub columns: Option<Vec<String>>,
    /// Sizes in tables as exact numbers
    #[arg(id = "global-bytes", long = "bytes", global = true)]
    pub bytes: bool,
    /// No words on standard error unless it fails
    #[arg(id = "global-quiet", short = 'q', long = "quiet", global = true)]
    pub quiet: bool,
    /// Act for this project
    #[arg(id = "global-project", long = "project", value_name = "PROJECT", env = "BMI_PROJECT", global = true)]
    pub project: Option<Owner>,
    /// This operation's id: repeating a command with the same id does not do it twice
    #[arg(id = "global-op-id", long = "op-id", value_name = "ID", global = true)]
    pub op_id: Option<Id>,
    /// Only say what would change (exit code 10 if something would)
    #[arg(id = "global-check", long = "check", global = true)]
    pub check: bool,
    /// Wait until it is done (the default)
    #[arg(id = "global-wait", long = "wait", global = true, overrides_with = "global-no-wait")]
    pub wait: bool,
    /// Only begin, and print the operation's id
    #[arg(id = "global-no-wait", long = "no-wait", global = true, overrides_with = "global-wait")]
    pub no_wait: bool,
    /// Wait at most this long; the operation goes on (exit code 7)
    #[arg(id = "global-timeout", long = "timeout", value_name = "SECONDS", env = "BMI_TIMEOUT", global = true)]
    #[arg(value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Do not ask before something is destroyed
    #[arg(id = "global-yes", short = 'y', long = "yes", global = true)]
    pub yes: bool,
    /// When to use colour
    #[arg(id = "global-color", long = "color", value_name = "WHEN", default_value = "auto", global = true)]
    pub color: Color,
    /// How to show progress
    #[arg(id = "global-progress", long = "progress", value_name = "HOW", default_value = "auto", global = true)]
    pub progress: Progress,
}

impl Globals {
    /// The format, if none was asked for: a table.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format.unwrap_or(Format::Table)
    }

    /// Errors are wanted as JSON too.
    #[must_use]
    pub fn json_errors(&self) -> bool {
        matches!(self.format, Some(Format::Json | Format::Jsonl))
    }
}

/// A time to wait, up to a year.
fn seconds(s: &str) -> Result<Duration, String> {
    let bad = || format!("{s:?} is not a number of seconds; write it like 30 or 0.5");
    let n: f64 = s.parse().map_err(|_| bad())?;
    if !(n > 0.0 && n <= 31_536_000.0) {
        return Err(bad());
    }
    Ok(Duration::from_secs_f64(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "-1", "NaN", "inf", "1e99", "10s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
