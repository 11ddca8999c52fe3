//! Turns a foreign disk image into raw bytes with qemu-img, which is never trusted: it reads hostile input.
//!
//! It gets our staged copy, read-only, and an empty file of the disk's size, which it cannot make larger; and nothing else.
//! It has no network, no privileges, bounded memory and time; the format is told, never guessed. The image was read by our
//! own parser before, so it names no other file.
//!
//! Two ways to confine it. [`Detached`]: `unshare`, `setpriv` and `prlimit` of util-linux, the files as standard input and
//! output. [`Unit`]: where bmid runs as a system service, the template unit `bmid-convert@.service`. Its instance is the
//! image's id, and before its start there is a folder `RUN/convert/<instance>/` with `in` and `out` (symbolic links to the
//! staged copy and to the empty file) and `env` (`FORMAT=` qemu-img's name of the format). It is a oneshot: when its start
//! returns, it has ended. Why it failed is read from the journal.
//!
//! While it runs, the copy is readable and the output writable for everybody, inside folders that only root enters.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bmi::model::{Format, Id, Kind};

use super::tool;
use crate::drivers::{DriverError, StepCx};

/// Address space of a converter. It maps its libraries and a few buffers; a table that lies can make it ask for more.
const MEMORY: u64 = 2 << 30;
/// A converter's time: a disk of a terabyte from a slow disk.
const TIME: Duration = Duration::from_secs(6 * 3_600);
/// Nobody.
const USER: &str = "65534";

/// One conversion.
#[derive(Debug)]
pub struct Job<'a> {
    /// The image, for names.
    pub image: Id,
    /// Its format, as our parser found it.
    pub format: Format,
    /// Our staged copy: where it is, and open for reading only.
    pub from: (&'a Path, &'a File),
    /// A file of zeros for the raw bytes: where it is, and open for writing.
    pub into: (&'a Path, &'a File),
    /// Size of the disk, as our parser found it, in whole sectors; the output has it already.
    pub size: u64,
}

/// A way to run the converter confined.
pub trait Convert: Send + Sync {
    /// Fills the output with the disk's raw bytes, holes where it has none. Returns only when nothing runs any more.
    fn convert(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<(), DriverError>;
}

/// As a child of ours.
#[derive(Debug, Clone, Copy)]
pub struct Detached;

/// As a unit of systemd.
#[derive(Debug, Clone)]
pub struct Unit {
    /// bmid's run folder.
    pub run: PathBuf,
    /// The systemctl to use.
    pub systemctl: PathBuf,
    /// The journalctl to use.
    pub journalctl: PathBuf,
}

/// qemu-img's name of a format.
#[must_use]
pub fn qemu_name(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        other => other.as_str(),
    }
}

impl Job<'_> {
    fn tried(&self) -> String {
        let into = self.into.0.parent().unwrap_or(self.into.0).display();
        format!("convert image {} from {} in {into}", self.image, self.format)
    }

    /// Lets another user reach the two files through their descriptors.
    fn open_up(&self) -> Result<(), DriverError> {
        let set = |f: &File, mode| f.set_permissions(Permissions::from_mode(mode));
        set(self.from.1, 0o444).and_then(|()| set(self.into.1, 0o666)).map_err(|e| DriverError::io(self.tried(), e))
    }

    /// What is asked between looks at the converter: goes on, or ends it.
    fn watch(&self, cx: &StepCx<'_>) -> Result<(), DriverError> {
        if (cx.cancelled)() {
            return Err(
                super::copy::cancelled(&self.tried()).fix("repeat the same command; it goes on where it stopped")
            );
        }
        let blocks = self.into.1.metadata().map_or(0, |m| m.blocks());
        (cx.progress)((blocks * 512).min(self.size), Some(self.size));
        Ok(())
    }

    /// Why it failed, from its own words.
    fn failure(&self, why: String, killed: bool) -> DriverError {
        let told = |kind, fix: &str| DriverError::new(kind, self.tried(), why.as_str()).fix(fix);
        let confining = ["unshare:", "setpriv:", "prlimit:"].iter().any(|w| why.starts_with(w));
        if why.contains("No space left") {
            told(Kind::Full, "free space there or choose another datastore")
        } else if why.contains("File too large") {
            told(Kind::Limit, "its header lies about its size; make the image anew")
        } else if confining {
            told(Kind::Outside, "the converter could not be confined; bmid must run as root")
        } else if killed || why.contains("llocate memory") {
            told(Kind::Outside, "the converter ran into its limits or was killed; look at the kernel's log")
        } else {
            told(Kind::Corrupt, "the image is damaged: check it with `qemu-img check`, or make it anew")
        }
    }
}

impl Convert for Detached {
    fn convert(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<(), DriverError> {
        job.open_up()?;
        let io = |e| DriverError::io(job.tried(), e);
        let mut c = confined(job.size);
        // The output is all zeros already: only data is written, and holes stay holes.
        c.args(["qemu-img", "convert", "-n", "--target-is-zero", "-f", qemu_name(job.format), "-O", "raw"]);
        c.args(["/dev/stdin", "/dev/stdout"]);
        c.stdin(job.from.1.try_clone().map_err(io)?).stdout(job.into.1.try_clone().map_err(io)?);
        if !tool::installed("qemu-img") {
            return Err(missing(job.tried()));
        }
        let ended = tool::run(&mut c, "util-linux", TIME, &mut || job.watch(cx))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(job.failure(tool::said(&ended), ended.status.signal().is_some()))
    }
}

/// The beginning of a command line under which a program has no network, no privileges, bounded memory, time and output,
/// and ends with the thread that started it.
pub(super) fn confined(limit: u64) -> Command {
    let mut c = tool::command("unshare");
    c.args(["--net", "--ipc", "--", "prlimit", "--core=0", "--nofile=64"]);
    c.arg(format!("--as={MEMORY}")).arg(format!("--cpu={}", TIME.as_secs())).arg(format!("--fsize={limit}"));
    c.args(["--", "setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs"]);
    c.args(["--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL", "--"]);
    c
}

fn missing(tried: String) -> DriverError {
    DriverError::new(Kind::Unavailable, tried, "qemu-img is not installed")
        .fix("install it: `apt-get install qemu-utils`; or give a raw image")
}

impl Convert for Unit {
    fn convert(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<(), DriverError> {
        job.open_up()?;
        let unit = format!("bmid-convert@{}.service", job.image);
        // One that an earlier bmid started may still run; it writes to a file that has no name any more.
        self.ctl("stop", &unit, cx, None)?;
        let folder = self.run.join("convert").join(job.image.to_string());
        let laid = self.lay_out(&folder, job);
        laid.map_err(|e| DriverError::io(format!("lay out {}", folder.display()), e))?;
        let ended = self.ctl("start", &unit, cx, Some(job));
        if ended.is_err() {
            // Cancelled or past its time: systemctl is gone, the unit is not yet.
            self.ctl("stop", &unit, &StepCx::PLAIN, None)?;
        }
        // Left behind it is only litter in /run; the next one of this image lays it out anew.
        let _ = fs::remove_dir_all(&folder);
        if ended?.status.success() {
            return Ok(());
        }
        match self.words(&unit) {
            Some(words) => Err(job.failure(words, false)),
            None => Err(job.failure(format!("{unit} failed; `journalctl -u {unit}` says why"), true)),
        }
    }
}

impl Unit {
    fn lay_out(&self, folder: &Path, job: &Job<'_>) -> std::io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        symlink(job.from.0, folder.join("in"))?;
        symlink(job.into.0, folder.join("out"))?;
        fs::write(folder.join("env"), format!("FORMAT={}\n", qemu_name(job.format)))
    }

    /// What the converter said last, from the journal.
    fn words(&self, unit: &str) -> Option<String> {
        let mut c = tool::command(&self.journalctl);
        c.args(["--unit", unit, "--output=cat", "--lines=20", "--no-pager", "--quiet"]);
        let text = tool::must(&mut c, "systemd", Duration::from_secs(30)).ok()?;
        let line = text.lines().map(str::trim).rfind(|l| l.starts_with("qemu-img:"))?;
        Some(line.chars().take(400).collect())
    }

    fn ctl(&self, verb: &str, unit: &str, cx: &StepCx<'_>, job: Option<&Job<'_>>) -> Result<tool::Ended, DriverError> {
        let mut c = tool::command(&self.systemctl);
        let watch = &mut || job.map_or(Ok(()), |j| j.watch(cx));
        tool::run(c.args([verb, unit]), "systemd", TIME + Duration::from_secs(60), watch)
    }
}
