//! Runs a tool of the system: without a shell, without a terminal, never for longer than its deadline, its words kept.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bmi::model::Kind;

use crate::drivers::DriverError;

/// Where tools are looked for: bmid may have been started with any PATH.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of a tool's words.
const WORDS: u64 = 16 << 10;

/// A tool's end.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) out: String,
    pub(super) err: String,
}

/// A command with a clean environment and no input.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    c
}

/// Whether a tool is installed.
pub(super) fn installed(program: &str) -> bool {
    PATH.split(':').any(|dir| std::path::Path::new(dir).join(program).exists())
}

/// Runs it to its end. `watch` is called every few moments and may end it with an error.
pub(super) fn run(
    c: &mut Command,
    package: &str,
    limit: Duration,
    watch: &mut dyn FnMut() -> Result<(), DriverError>,
) -> Result<Ended, DriverError> {
    let name = c.get_program().to_string_lossy().into_owned();
    let tried = format!("run {name}");
    let mut child = c.stderr(Stdio::piped()).spawn().map_err(|e| {
        let fix = format!("install it: `apt-get install {package}`");
        if e.kind() == std::io::ErrorKind::NotFound {
            DriverError::new(Kind::Unavailable, tried.as_str(), format!("{name} is not installed")).fix(fix)
        } else {
            DriverError::io(tried.as_str(), e)
        }
    })?;
    let (out, err) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let end = wait(&mut child, &tried, limit, watch);
    if end.is_err() {
        // Whatever it still does is not wanted any more; a dead one cannot be killed again.
        let _ = child.kill();
        let _ = child.wait();
    }
    let words = |t: JoinHandle<String>| t.join().unwrap_or_default();
    let (out, err) = (words(out), words(err));
    Ok(Ended { status: end?, out, err })
}

/// Runs it and makes a failure an error with the tool's own words.
pub(super) fn must(c: &mut Command, package: &str, limit: Duration) -> Result<String, DriverError> {
    let ended = run(c, package, limit, &mut || Ok(()))?;
    if ended.status.success() {
        return Ok(ended.out);
    }
    let name = c.get_program().to_string_lossy().into_owned();
    let kind = if ended.err.contains("No space left") { Kind::Full } else { Kind::Outside };
    Err(DriverError::new(kind, format!("run {name}"), said(&ended)))
}

/// The last line of what it said, or how it ended.
pub(super) fn said(ended: &Ended) -> String {
    let last = ended.err.lines().map(str::trim).rfind(|l| !l.is_empty());
    last.map_or_else(|| format!("it ended with {}", ended.status), |l| l.chars().take(400).collect())
}

fn wait(
    child: &mut Child,
    tried: &str,
    limit: Duration,
    watch: &mut dyn FnMut() -> Result<(), DriverError>,
) -> Result<ExitStatus, DriverError> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(|e| DriverError::io(tried, e))? {
            return Ok(status);
        }
        if started.elapsed() > limit {
            return Err(DriverError::new(Kind::Timeout, tried, format!("it took more than {} s", limit.as_secs())));
        }
        watch()?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Reads all a pipe has, so that the tool never waits for us, and keeps the beginning.
fn listen(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return String::new() };
        let mut kept = Vec::new();
        // A pipe that cannot be read says nothing more.
        let _ = pipe.by_ref().take(WORDS).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}
