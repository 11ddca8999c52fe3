//! An operation of the table: asked about, resolved, sent, waited for, shown.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bmi::model::{Fault, Id, Kind};
use bmi::ops::table::Entry;
use bmi::ops::{Bare, Effect, Request, Shape, Sheet};
use bmi::protocol::{ClientFrame, Ended, Envelope, ServerFrame, Submit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::ask;
use crate::bell::Bell;
use crate::cli::{Format, Globals};
use crate::link::{Got, Link};
use crate::progress::Shown;
use crate::resolve::Files;
use crate::show::{Look, Show};
use crate::stop::Stop;
use crate::value::Value;
use crate::words::{Line, Words, colored};

/// The exit code of `--check` when something would change.
const WOULD_CHANGE: u8 = 10;
/// How much longer than `--timeout` the daemon may take to say that time is up.
const GRACE: Duration = Duration::from_secs(2);
/// The number of the one request on its connection.
const ID: u64 = 1;

/// Carries an operation out; the exit code if it came to its end.
pub(crate) fn run(globals: &Globals, words: &Words, mut request: Request, entry: &'static Entry) -> Result<u8, Stop> {
    let sheet = entry.sheet;
    Show::check(globals.columns.as_deref(), (entry.fields)())?;
    let destroys = request.destroys();
    if !(destroys.is_empty() || globals.yes || globals.check) {
        ask::may_go_on(&format!("bmictl {}", sheet.command()), destroys)?;
    }
    let mut files = Files::default();
    request.resolve(&mut files)?;
    if files.writes() && globals.no_wait && !globals.wait {
        return Err(Fault::invalid("its answer is written into your file, which has a name only when it is whole")
            .trying(format!("only begin `bmictl {}`", sheet.command()))
            .fix("leave --no-wait out")
            .into());
    }
    let many = request.many();
    let mut progress = Shown::new(globals);
    let envelope = envelope(globals, sheet, &files, progress.wanted())?;
    let op_id = envelope.op_id;
    let mut link = Link::open(&globals.socket)?;
    link.same_protocol()?;
    let bell = Bell::set().map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("take signals over"))?;
    link.send(&ClientFrame::Submit(Submit { id: ID, envelope, request }), &files.descriptors)?;
    // The daemon has them now; a pipe ends for its writer only when nobody holds it open any more.
    files.descriptors.clear();
    let show = show(globals, sheet, many, files.to_stdout);
    let mut wait = Waiting { globals, words, sheet, link, bell, op_id, until: until(globals) };
    let ended = match wait.answer(show, &mut progress) {
        // What took the file on standard output has seen enough (`| head`): no failure.
        Err(Stop::Fault(_)) if files.to_stdout && reader_gone() => return Err(Stop::Quiet(0)),
        other => other?,
    };
    if !globals.check {
        files.commit()?;
    }
    words.ended(&ended, globals.check, sheet.effect == Effect::Change);
    if ended.running {
        begun(globals, ended.op_id.or(op_id))?;
    }
    Ok(if globals.check && ended.changed { WOULD_CHANGE } else { 0 })
}

/// Whether standard output is a pipe that nobody reads any more.
fn reader_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
        && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLERR))
}

/// What was tried, where the daemon leaves it open.
fn doing(sheet: &Sheet) -> String {
    format!("do `bmictl {}`", sheet.command())
}

fn until(globals: &Globals) -> Option<Instant> {
    globals.timeout.map(|t| Instant::now() + t + GRACE)
}

fn envelope(globals: &Globals, sheet: &Sheet, files: &Files, progress: bool) -> Result<Envelope, Fault> {
    let op_id = match globals.op_id {
        Some(id) => Some(id),
        // Known from the start, so that a change can be watched or safely repeated whatever happens to this connection.
        None if sheet.effect == Effect::Change && !globals.check => Some(fresh_id()?),
        None => None,
    };
    Ok(Envelope {
        op_id,
        project: globals.project.clone(),
        check: globals.check,
        no_wait: globals.no_wait && !globals.wait,
        timeout_ms: globals.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        progress,
        cancel_on_close: files.writes(),
    })
}

fn fresh_id() -> Result<Id, Fault> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("read /dev/urandom"))?;
    Ok(Id::from_random(bytes))
}

/// Where the answer is shown; nowhere while standard output carries a file.
fn show<'a>(globals: &'a Globals, sheet: &'a Sheet, many: bool, taken: bool) -> Show<'a> {
    let stdout = io::stdout();
    let color = colored(globals.color, stdout.is_terminal());
    let out: Box<dyn io::Write> = if taken { Box::new(io::sink()) } else { Box::new(BufWriter::new(stdout)) };
    Show::new(out, Look::of(globals, sheet, many, color))
}

/// `--no-wait`: the operation's id is the answer.
fn begun(globals: &Globals, op_id: Option<Id>) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Begun {
        op_id: Option<Id>,
        running: bool,
    }
    use io::Write;
    let mut out = io::stdout().lock();
    let text = match (globals.format(), op_id) {
        (Format::Table | Format::Csv, Some(id)) => format!("{id}\n"),
        (Format::Table | Format::Csv, None) => String::new(),
        (Format::Json | Format::Jsonl, op_id) => {
            serde_json::to_string(&Begun { op_id, running: true }).unwrap_or_default() + "\n"
        }
        (Format::Yaml, op_id) => serde_yaml_ng::to_string(&Begun { op_id, running: true }).unwrap_or_default(),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Stop::output(&e))
}

/// A request that has been sent.
struct Waiting<'a> {
    globals: &'a Globals,
    words: &'a Words,
    sheet: &'static Sheet,
    link: Link,
    bell: Bell,
    op_id: Option<Id>,
    until: Option<Instant>,
}

impl Waiting<'_> {
    /// Shows items and progress until the end.
    fn answer(&mut self, mut show: Show<'_>, progress: &mut Shown) -> Result<Ended, Stop> {
        let ended = loop {
            match self.frame(&mut show, progress) {
                Ok(None) => {}
                Ok(Some(ended)) => break ended,
                Err(stop) => {
                    progress.clear();
                    show.broken_off();
                    return Err(stop);
                }
            }
        };
        progress.clear();
        // A change that was only begun has no answer yet.
        if !ended.running
            && show.end()? == 0
            && self.sheet.shape == Shape::Many
            && self.globals.format() == Format::Table
        {
            self.words.none();
        }
        Ok(ended)
    }

    fn frame(&mut self, show: &mut Show<'_>, progress: &mut Shown) -> Result<Option<Ended>, Stop> {
        let frame = match self.link.next(self.until, Some(&self.bell))? {
            Got::Frame(frame) => *frame,
            Got::Closed => return Err(self.lost().into()),
            Got::Late => return Err(self.late().into()),
            Got::Rung => return Err(self.interrupted()),
        };
        match frame {
            ServerFrame::Item { id: ID, item } => show.item(Value::of(&Bare(&item))?)?,
            ServerFrame::Progress { id: ID, progress: report } => {
                self.op_id = Some(report.op_id);
                progress.update(self.words, &report);
            }
            ServerFrame::Gap { id: ID, missed } => {
                if self.words.machine {
                    self.words.line(&Line::Gap { missed });
                } else {
                    self.words.note(&format!("{missed} items were missed: this reader was too slow"));
                }
            }
            ServerFrame::End { id: ID, end } => {
                return Ok(Some(end.map_err(|f| f.trying(doing(self.sheet)))?));
            }
            _ => {
                return Err(Fault::new(Kind::Protocol, "the answer belongs to another request")
                    .trying(doing(self.sheet))
                    .fix("restart bmid and bmictl in the same release")
                    .into());
            }
        }
        Ok(None)
    }

    fn is_change(&self) -> bool {
        self.sheet.effect == Effect::Change && !self.globals.check
    }

    fn lost(&self) -> Fault {
        let fault = Fault::new(Kind::Unavailable, "bmid closed the connection before the answer was whole")
            .trying(doing(self.sheet));
        match (self.is_change(), self.op_id) {
            (true, Some(id)) => fault.fix(format!(
                "what it has begun it brings to an end: `bmictl op show {id}` tells; the same command with --op-id {id} does \
                 nothing twice"
            )),
            _ => fault.fix("see whether bmid runs: `systemctl status bmid`, `journalctl -u bmid -n 50`"),
        }
    }

    fn late(&self) -> Fault {
        let waited = self.globals.timeout.unwrap_or_default().as_secs_f64();
        let fault = Fault::new(Kind::Timeout, format!("there is no answer after {waited} s")).trying(doing(self.sheet));
        match (self.is_change(), self.op_id) {
            (true, Some(id)) => fault.fix(format!("it goes on: `bmictl op watch {id}` waits for it")),
            _ => fault.fix("give a longer --timeout"),
        }
    }

    /// Ctrl-C ends the waiting, never a change.
    fn interrupted(&self) -> Stop {
        if let (true, Some(id)) = (self.is_change(), self.op_id) {
            self.words.note(&format!(
                "the operation goes on: `bmictl op watch {id}` waits for it, `bmictl op cancel {id}` undoes it"
            ));
        }
        Stop::Quiet(self.bell.exit_code())
    }
}
