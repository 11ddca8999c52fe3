//! The real daemon on a host of its own, and the real client talking to it. It must never be told anything that a user could
//! not type.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::host::Host;

/// bmid, running.
pub struct Engine<'a> {
    host: &'a Host,
    daemon: Option<Child>,
}

impl<'a> Engine<'a> {
    /// Starts bmid on the host's own state folder and waits until it answers.
    pub fn start(host: &'a Host) -> Engine<'a> {
        let mut engine = Engine { host, daemon: None };
        engine.up();
        engine
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.host.path("state")
    }

    fn socket(&self) -> PathBuf {
        self.host.path("bmid.sock")
    }

    fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.host.path("bmid.log")).unwrap();
        let daemon = self
            .host
            .command("bash")
            .args(["-c", "echo $$ >\"$0\"; exec \"$@\""])
            .arg(self.host.path("bmid.pid"))
            .arg(super::bmid())
            .args(["--state-dir".as_ref(), self.state().as_os_str()])
            .args(["--socket".as_ref(), self.socket().as_os_str()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let end = Instant::now() + Duration::from_secs(60);
        while !self.answers() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "bmid does not answer ({ended:?}):\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It answers, and the datastore that it makes at its first start is in use.
    fn answers(&self) -> bool {
        let output = self.client(&["datastore", "show", "default", "-f", "json"]).output().unwrap();
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"state\": \"active\"")
    }

    /// Kills bmid without a chance to say goodbye.
    pub fn kill(&mut self) {
        self.host.sh(&format!("kill -KILL $(cat {})", self.host.path("bmid.pid").display()));
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// Starts it again on what it left.
    pub fn restart(&mut self) {
        self.up();
    }

    /// What bmid logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.host.path("bmid.log")).unwrap_or_default()
    }

    fn client(&self, args: &[&str]) -> std::process::Command {
        let mut client = self.host.command(super::bmictl());
        client.arg("--socket").arg(self.socket()).args(args).env("NO_COLOR", "1");
        client
    }

    /// Runs bmictl; fails with what it and the daemon said if it does.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.client(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bmictl {args:?}: {}\n{text}{said}\nbmid:\n{}", output.status, self.log());
        text
    }

    /// The same, as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ctl(&[args, &["-f", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("bmictl {args:?} is not JSON: {e}\n{text}"))
    }

    /// The file behind a node's boot disk, found by the volume's id alone.
    pub fn disk_of(&self, node: &str) -> PathBuf {
        let volume = self.json(&["node", "show", node])["volume"].as_str().unwrap().to_owned();
        let found =
            super::run(std::process::Command::new("find").arg(self.state()).args(["-name", &format!("{volume}.*")]));
        let mut files = found.lines().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(files.len(), 1, "the disk of {node}: {found}");
        files.pop().unwrap()
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("bmid said:\n{}", self.log());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
