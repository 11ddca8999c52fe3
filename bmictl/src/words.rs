//! What is said on standard error: failures, and whether anything changed. Data never goes here, words never go to
//! standard output.

use std::io::{self, IsTerminal, Write};

use bmi::model::{Fault, Id};
use bmi::protocol::Ended;
use serde::Serialize;

use crate::cli::{Color, Globals, Progress};
use crate::value::Value;

/// How to say things.
pub(crate) struct Words {
    color: bool,
    terminal: bool,
    quiet: bool,
    json_errors: bool,
    /// Every line is a JSON object.
    pub(crate) machine: bool,
}

/// A failure as JSON shows it.
#[derive(Serialize)]
pub(crate) struct ErrorObject<'a> {
    code: u8,
    message: String,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    kind: &'static str,
    class: &'static str,
    tried: &'a str,
    why: &'a str,
    fix: &'a str,
    causes: &'a [String],
}

impl<'a> ErrorObject<'a> {
    pub(crate) fn of(fault: &'a Fault) -> ErrorObject<'a> {
        ErrorObject {
            code: fault.kind.class().exit_code(),
            message: fault.to_string(),
            data: ErrorData {
                kind: fault.kind.as_str(),
                class: fault.kind.class().as_str(),
                tried: &fault.tried,
                why: &fault.why,
                fix: &fault.fix,
                causes: &fault.causes,
            },
        }
    }
}

/// A line of `--progress=jsonl`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Progress {
        op_id: Id,
        what: &'a str,
        done: u64,
        total: Option<u64>,
        bytes: bool,
    },
    Gap {
        missed: u64,
    },
    End {
        op_id: Option<Id>,
        changed: bool,
        running: bool,
        check: bool,
    },
    Error {
        error: ErrorObject<'a>,
    },
    #[serde(rename = "error")]
    RawError {
        error: &'a Value,
    },
    Note {
        message: &'a str,
    },
}

impl Words {
    pub(crate) fn new(globals: &Globals) -> Words {
        let terminal = io::stderr().is_terminal();
        Words {
            color: colored(globals.color, terminal),
            terminal,
            quiet: globals.quiet,
            json_errors: globals.json_errors(),
            machine: globals.progress == Progress::Jsonl,
        }
    }

    /// A failure: on a terminal what was tried, why it failed and what to do on lines of their own.
    pub(crate) fn fault(&self, fault: &Fault) {
        if self.machine {
            return self.line(&Line::Error { error: ErrorObject::of(fault) });
        }
        self.say(&if self.terminal {
            spread(fault, self.color)
        } else {
            format!("bmictl: {}", clean(&fault.to_string()))
        });
        if self.json_errors {
            self.say(&serde_json::to_string(&ErrorObject::of(fault)).unwrap_or_default());
        }
    }

    /// A raw call's failure, as the daemon worded it.
    pub(crate) fn raw_error(&self, message: &str, error: &Value) {
        if self.machine {
            return self.line(&Line::RawError { error });
        }
        self.say(&format!("bmictl: {}", clean(message)));
        if self.json_errors {
            self.say(&serde_json::to_string(error).unwrap_or_default());
        }
    }

    /// How a change ended.
    pub(crate) fn ended(&self, ended: &Ended, check: bool, change: bool) {
        if self.machine {
            let Ended { op_id, changed, running } = *ended;
            return self.line(&Line::End { op_id, changed, running, check });
        }
        if self.quiet || ended.running || !(change || ended.changed) {
            return;
        }
        self.say(match (check, ended.changed) {
            (false, true) => "changed",
            (false, false) => "unchanged",
            (true, true) => "would change",
            (true, false) => "would not change",
        });
    }

    /// An empty table: otherwise its header alone looks like something gone wrong.
    pub(crate) fn none(&self) {
        if !(self.machine || self.quiet) {
            self.say("none");
        }
    }

    /// Something worth knowing that is no failure.
    pub(crate) fn note(&self, message: &str) {
        if self.machine {
            self.line(&Line::Note { message });
        } else if !self.quiet {
            self.say(&format!("bmictl: {}", clean(message)));
        }
    }

    /// A line for machines.
    pub(crate) fn line(&self, line: &Line<'_>) {
        self.say(&serde_json::to_string(line).unwrap_or_default());
    }

    fn say(&self, text: &str) {
        // Where standard error cannot be written, nobody can be told so.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Whether to use colour: asked for, or on a terminal that nobody declared colourless.
pub(crate) fn colored(wanted: Color, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    match wanted {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
    }
}

/// Text from elsewhere without control characters: it must not drive the reader's terminal.
#[must_use]
pub(crate) fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn spread(fault: &Fault, color: bool) -> String {
    let (red, bold, end) = if color { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}bmictl:{end} ");
    let mut why = clean(&fault.why);
    for cause in &fault.causes {
        why.push_str(&format!("\n      {}", clean(cause)));
    }
    if fault.tried.is_empty() {
        text.push_str(&why);
    } else {
        text.push_str(&format!("{bold}cannot {}{end}\n  why {why}", clean(&fault.tried)));
    }
    if !fault.fix.is_empty() {
        text.push_str(&format!("\n  fix {}", clean(&fault.fix)));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use bmi::model::Kind;

    fn fault() -> Fault {
        Fault::new(Kind::NotFound, "there is no image debian-13\x1b[2J")
            .trying("provision node web1")
            .because("nor a shared one")
            .fix("`bmictl image ls` lists what there is")
    }

    #[test]
    fn a_terminal_gets_what_why_and_fix_on_lines_of_their_own_and_no_foreign_escapes() {
        assert_eq!(
            spread(&fault(), false),
            "bmictl: cannot provision node web1\n  why there is no image debian-13\\u{1b}[2J\n      nor a shared one\n  \
             fix `bmictl image ls` lists what there is"
        );
        assert!(spread(&fault(), true).starts_with("\x1b[31mbmictl:\x1b[0m"));
    }

    #[test]
    fn a_failure_as_json_has_code_message_kind_and_class() {
        let text = serde_json::to_string(&ErrorObject::of(&fault())).unwrap();
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&back["code"], &back["data"]["kind"], &back["data"]["class"]),
            (&3.into(), &"not_found".into(), &"not_found".into())
        );
        assert!(back["message"].as_str().unwrap().starts_with("cannot provision node web1: there is no image"));
    }

    #[test]
    fn colour_is_used_when_asked_for_and_never_off_a_terminal_otherwise() {
        assert!(colored(Color::Always, false));
        assert!(!colored(Color::Never, true));
        assert!(!colored(Color::Auto, false));
    }
}
