//! The ground that every simulator stands on: a world that is a folder, one small file an outside object, and a script of
//! faults in it.
//!
//! A world outlives the daemon, as the real outside does, so that a killed daemon leaves its leaks to be seen. It is not
//! made to survive the host: nothing here is fsynced. It never decides anything for a simulator and knows no step.
//!
//! Layout: `DIR/objects/<kind>/<name>` holds an object's JSON; `DIR/faults` is the script, looked at on every cut; and while
//! there is one, `DIR/hits/<point>` counts how often each point was passed, a byte a hit, and `DIR/trace` lists the points
//! in the order they were passed, a line each. The script's lines:
//!
//! ```text
//! # nothing                      a remark
//! fail storage.clone.before 2    the 2nd pass fails (kind `outside`)
//! fail storage.clone.after * full   every pass fails with that kind
//! kill storage.clone.after 1     the process ends as by kill -9
//! hang worker.start.before 1 20  the pass takes 20 seconds longer
//! hang tgtd.answer * 0           no tgtd answers anything while the line stands (`dnsmasq.answer` likewise)
//! ```
//!
//! Points are `<family>.<step>.before` and `<family>.<step>.after`; a few drivers have more between them. The run room's
//! own are `journal.<write>.applied` (the write is made and may not be durable yet) and `journal.<write>.durable` (nobody was
//! told yet), with the writes `begin`, `unwind`, `final`, `part`, `end`, `forget`, `mark`, `note`; and
//! `journal.restore.durable`. A failure there is one of the store: it serves nothing any more, and bmid ends.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bmi::model::Kind;
use serde::{Serialize, de::DeserializeOwned};

use super::DriverError;

/// A simulated outside.
#[derive(Debug, Clone)]
pub struct World {
    dir: PathBuf,
}

/// Simulators of one process share a world: a hit is counted and judged as one.
static HITS: Mutex<()> = Mutex::new(());
/// Temporary names are unique within the process; the process id makes them so within the world.
static TEMP: AtomicU64 = AtomicU64::new(0);

impl World {
    /// The world in `dir`, made if absent.
    pub fn open(dir: &Path) -> Result<World, DriverError> {
        for part in ["objects", "hits"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(|e| DriverError::io(format!("make {}", path.display()), e))?;
        }
        Ok(World { dir: dir.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Passes a point: fails, hangs or ends the process if the script says so for this pass.
    pub fn cut(&self, point: &str) -> Result<(), DriverError> {
        let path = self.dir.join("faults");
        let script = match fs::read_to_string(&path) {
            Ok(s) => s,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(DriverError::io(format!("read {}", path.display()), e)),
        };
        let hit = self.count(point)?;
        for line in script.lines() {
            match Fault::parse(line)? {
                Some(f) if f.point == point && f.when.is_none_or(|n| n == hit) => f.play(hit)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Does something between its two points: `STEP.before` and `STEP.after`. A failure after it is one whose effect stays.
    pub fn around<T>(&self, step: &str, act: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DriverError> {
        self.cut(&format!("{step}.before"))?;
        let done = act()?;
        self.cut(&format!("{step}.after"))?;
        Ok(done)
    }

    /// Whether what stands at a point answers within `limit`: it does not as long as the script has a `hang` for it. Such a
    /// point is asked at any time and by anybody, so it is not counted and not in the trace.
    #[must_use]
    pub fn answers(&self, point: &str, limit: Duration) -> bool {
        let end = std::time::Instant::now() + limit;
        let hangs = |script: String| {
            let lines = script.lines().filter_map(|l| Fault::parse(l).ok().flatten());
            lines.into_iter().any(|f| f.point == point && matches!(f.what, What::Hang(_)))
        };
        while fs::read_to_string(self.dir.join("faults")).is_ok_and(hangs) {
            if std::time::Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// How often a point was passed while there was a script.
    #[must_use]
    pub fn hits(&self, point: &str) -> u64 {
        fs::metadata(self.dir.join("hits").join(point)).map_or(0, |m| m.len())
    }

    /// Puts an object there, whole or not at all. False: it was so already.
    pub fn put<T: Serialize>(&self, kind: &str, name: &str, object: &T) -> Result<bool, DriverError> {
        let path = self.path(kind, name);
        let tried = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(object)
            .map_err(|e| DriverError::new(Kind::Internal, tried(), format!("it does not become JSON: {e}")))?;
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let folder = self.dir.join("objects").join(kind);
        let temp = folder.join(format!(".{}.{}", std::process::id(), TEMP.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&temp, &text))
            .and_then(|()| fs::rename(&temp, &path))
            .map_err(|e| DriverError::io(tried(), e))?;
        Ok(true)
    }

    /// An object, if it is there.
    pub fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>, DriverError> {
        read(&self.path(kind, name))
    }

    /// Takes an object away. False: it was gone already.
    pub fn del(&self, kind: &str, name: &str) -> Result<bool, DriverError> {
        let path = self.path(kind, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(DriverError::io(format!("remove {}", path.display()), e)),
        }
    }

    /// Whether an object of that kind was ever put there.
    #[must_use]
    pub fn knows(&self, kind: &str) -> bool {
        self.dir.join("objects").join(kind).is_dir()
    }

    /// All objects of a kind by name, in the order of their names.
    pub fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, T)>, DriverError> {
        let folder = self.dir.join("objects").join(kind);
        let tried = || format!("list {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(DriverError::io(tried(), e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| DriverError::io(tried(), e))?;
            let Some(name) = entry.file_name().to_str().and_then(unescape) else { continue };
            // A file may go between the listing and the reading: then it is not there.
            if let Some(object) = read(&entry.path())? {
                found.push((name, object));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.dir.join("objects").join(kind).join(escape(name))
    }

    fn count(&self, point: &str) -> Result<u64, DriverError> {
        let path = self.dir.join("hits").join(point);
        let append = |path: &Path, text: &str| {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(text.as_bytes()).and_then(|()| file.metadata())
        };
        let _one = HITS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        append(&self.dir.join("trace"), &format!("{point}\n"))
            .and_then(|_| append(&path, "."))
            .map(|m| m.len())
            .map_err(|e| DriverError::io(format!("count a hit in {}", path.display()), e))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DriverError> {
    let tried = || format!("read {}", path.display());
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| DriverError::new(Kind::Corrupt, tried(), e.to_string()).fix("remove the simulator's folder")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DriverError::io(tried(), e)),
    }
}

/// A file name for any object's name: what is not plain becomes `%XX`, so nothing leaves the folder or hides.
fn escape(name: &str) -> String {
    let plain = |i: usize, b: u8| b.is_ascii_alphanumeric() || b"-_:@".contains(&b) || (b == b'.' && i > 0);
    let mut out = String::new();
    for (i, b) in name.bytes().enumerate() {
        if plain(i, b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// The object's name behind a file name; none for temporary files.
fn unescape(file: &str) -> Option<String> {
    if file.starts_with('.') {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(b);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// One line of the script.
struct Fault<'a> {
    what: What,
    point: &'a str,
    /// Which pass; none means every one.
    when: Option<u64>,
}

enum What {
    Fail(Kind),
    Kill,
    Hang(Duration),
}

impl<'a> Fault<'a> {
    fn parse(line: &'a str) -> Result<Option<Fault<'a>>, DriverError> {
        let bad = |why: &str| DriverError::new(Kind::Invalid, format!("play the fault {line:?}"), why);
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, point, when, rest) = match words.as_slice() {
            [] => return Ok(None),
            [first, ..] if first.starts_with('#') => return Ok(None),
            [verb, point, when, rest @ ..] => (*verb, *point, *when, rest),
            _ => return Err(bad("a line is a verb, a point and a number")),
        };
        let when = match when {
            "*" => None,
            n => Some(n.parse().map_err(|_| bad("the third word is a number or *"))?),
        };
        let what = match (verb, rest) {
            ("fail", []) => What::Fail(Kind::Outside),
            ("fail", [kind]) => {
                let kind = serde_json::from_value(serde_json::Value::from(*kind));
                What::Fail(kind.map_err(|_| bad("the fourth word of `fail` is a kind of failure"))?)
            }
            ("kill", []) => What::Kill,
            ("hang", [seconds]) => {
                What::Hang(Duration::from_secs(seconds.parse().map_err(|_| bad("`hang` ends with seconds"))?))
            }
            _ => return Err(bad("a verb is fail, kill or hang")),
        };
        Ok(Some(Fault { what, point, when }))
    }

    fn play(&self, hit: u64) -> Result<(), DriverError> {
        match self.what {
            What::Fail(kind) => {
                let why = format!("the script of faults says so (pass {hit})");
                Err(DriverError::new(kind, format!("pass {}", self.point), why).fix("remove it from the file `faults`"))
            }
            What::Hang(time) => {
                std::thread::sleep(time);
                Ok(())
            }
            What::Kill => {
                use nix::sys::signal::{Signal, kill};
                // An ordinary exit would run destructors and flush: a crash does neither.
                let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
                std::process::abort()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn world() -> (tempfile::TempDir, World) {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path()).unwrap();
        (dir, world)
    }

    #[test]
    fn an_object_is_there_until_it_is_taken_away_whatever_its_name() {
        let (_dir, w) = world();
        let all = ["../../etc/passwd", ".hidden", "a", "iqn.2026-11.internal:x", "ü%41"];
        for name in all {
            assert!(w.put("things", name, &name.len()).unwrap());
            assert!(!w.put("things", name, &name.len()).unwrap(), "putting the same again changes nothing");
            assert_eq!(w.get::<usize>("things", name).unwrap(), Some(name.len()));
        }
        let names: Vec<String> = w.list::<usize>("things").unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, all);
        assert!(w.del("things", "a").unwrap());
        assert!(!w.del("things", "a").unwrap());
        assert_eq!(w.list::<usize>("nothing").unwrap(), vec![]);
    }

    #[test]
    fn a_fault_strikes_at_its_pass_only_and_a_world_reopened_goes_on_counting() {
        let (dir, w) = world();
        fs::write(dir.path().join("faults"), "# remark\n\nfail a.b.before 2\nfail a.b.after * full\n").unwrap();
        w.cut("a.b.before").unwrap();
        let again = World::open(dir.path()).unwrap();
        assert_eq!(again.cut("a.b.before").unwrap_err().kind, Kind::Outside);
        w.cut("a.b.before").unwrap();
        assert_eq!(w.hits("a.b.before"), 3);
        assert_eq!(w.around("a.b", || Ok(())).unwrap_err().kind, Kind::Full);
        assert_eq!(w.hits("a.b.after"), 1);
    }

    #[test]
    fn without_a_script_nothing_strikes_and_nothing_is_counted() {
        let (_dir, w) = world();
        assert_eq!(w.around("a.b", || Ok(7)).unwrap(), 7);
        assert_eq!(w.hits("a.b.before"), 0);
    }

    #[test]
    fn a_line_that_means_nothing_is_refused() {
        let (dir, w) = world();
        for bad in ["fail", "fail a x", "fail a 1 sometimes", "explode a 1", "hang a 1", "kill a 1 2"] {
            fs::write(dir.path().join("faults"), bad).unwrap();
            assert_eq!(w.cut("a").unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_kill_ends_the_process_at_the_point_and_leaves_the_world() {
        if let Ok(child) = std::env::var("BMID_SIM_WORLD") {
            let w = World::open(Path::new(&child)).unwrap();
            w.put("things", "before", &1).unwrap();
            w.cut("a.b.after").unwrap();
            w.put("things", "behind", &1).unwrap();
            return;
        }
        let (dir, w) = world();
        fs::write(dir.path().join("faults"), "kill a.b.after 1\n").unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "drivers::sim::tests::a_kill_ends_the_process_at_the_point_and_leaves_the_world"])
            .env("BMID_SIM_WORLD", dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        let left: Vec<String> = w.list::<i32>("things").unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(left, ["before"]);
    }
}
