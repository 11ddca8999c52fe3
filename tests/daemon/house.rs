//! bmid as a child process in a folder of its own. Dropped, both are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A folder, and the bmid in it.
pub(crate) struct House {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

/// Waits until it is so; fails after 30 s.
pub(crate) fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(value) = f() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}

impl House {
    /// An empty folder, open to all users.
    pub(crate) fn new() -> House {
        let dir = tempfile::Builder::new().prefix("bmid").tempdir().expect("a folder");
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        House { dir, child: None }
    }

    /// With bmid in it, answering.
    pub(crate) fn running() -> House {
        let mut house = House::new();
        house.start(&mut house.bmid());
        house
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where bmid listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/bmid.sock")
    }

    /// bmid with this folder's state and run folder, not started yet. Nothing of the test's own surroundings reaches it.
    pub(crate) fn bmid(&self) -> Command {
        let mut command = Command::new(super::support::bmid());
        self.with_flags(command.env_clear());
        command
    }

    /// Adds the flags that keep it in this folder.
    pub(crate) fn with_flags(&self, command: &mut Command) {
        command.arg("--state-dir").arg(self.path("state")).arg("--run-dir").arg(self.path("run")).arg("--sim");
    }

    /// Starts it, its words into a file, and waits until it listens.
    pub(crate) fn start(&mut self, command: &mut Command) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        self.child = Some(command.stdin(Stdio::null()).stderr(log).spawn().expect("bmid starts"));
        let socket = self.socket();
        eventually("bmid listens", || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().expect("asked"));
            assert!(ended.is_none(), "bmid ended: {}", self.log());
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    /// Runs it to its end: exit code, standard output, standard error.
    pub(crate) fn runs(command: &mut Command) -> (Option<i32>, String, String) {
        let out = command.output().expect("bmid starts");
        let text = |b: Vec<u8>| String::from_utf8(b).expect("text");
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until it said so.
    pub(crate) fn says(&self, text: &str) {
        eventually(&format!("it says {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), signal).expect("sent");
    }

    /// Sends it a signal and waits for its end.
    pub(crate) fn ends(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut child = self.child.take().expect("it runs");
        eventually("bmid ends", || child.try_wait().expect("asked"))
    }

    /// A greeted connection.
    pub(crate) fn client(&self) -> super::client::Client {
        super::client::Client::new(&self.socket())
    }

    /// The answer of a raw call.
    pub(crate) fn call(&self, method: &str) -> Vec<serde_json::Value> {
        let mut client = self.client();
        client.send(&super::client::call(1, method, "{}"));
        let (items, error) = client.called(1);
        assert_eq!(error, None);
        items.iter().map(|i| serde_json::from_str(i).expect("JSON")).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("bmid said:\n{}", self.log());
        }
    }
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it is there").permissions()) & 0o7777
}
