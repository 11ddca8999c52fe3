//! A host of the test's own: network, mounts and processes in namespaces that end with one holder process.
//! It must never be shared by two tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The namespaces and a folder; dropping it ends everything that runs inside.
pub struct Host {
    holder: Child,
    init: String,
    folder: TempDir,
}

impl Host {
    /// A host with loopback and nothing else, and an empty `/run`.
    pub fn new(name: &str) -> Host {
        // A short path: socket addresses beneath it must fit 107 bytes. Under a kernel of its own /tmp is another kernel's.
        let at = if super::own_kernel() { "/dev/shm" } else { "/tmp" };
        let folder = tempfile::Builder::new().prefix(&format!("bmid-{name}.")).tempdir_in(at).unwrap();
        let ready = folder.path().join("ready");
        // The shell is process 1 of the host, so it also takes in the orphans of others, which detached workers are.
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c"])
            .arg("mount -t tmpfs tmpfs /run && ip link set lo up && : >\"$0\" && sleep infinity & wait; wait")
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare (package util-linux) does not start");
        let mut host = Host { holder, init: String::new(), folder };
        for _ in 0..500 {
            if ready.exists() {
                break;
            }
            assert!(host.holder.try_wait().unwrap().is_none(), "no namespaces: these tests need root");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let outer = host.holder.id();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
        host.init = children.split_whitespace().next().expect("the holder has no child").to_owned();
        host
    }

    /// Its process 1, as seen from here.
    pub fn init(&self) -> &str {
        &self.init
    }

    /// A folder that goes with the host.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in that folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--net", "--mount", "--pid", "--"]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a shell line inside; fails if it fails.
    pub fn sh(&self, line: &str) -> String {
        super::run(self.command("bash").args(["-euc", line]))
    }

    /// A network card that a machine can be plugged into: with an address nobody has to wait for.
    pub fn add_tap(&self, name: &str) {
        self.sh(&format!("ip tuntap add {name} mode tap && ip link set {name} up"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KEEP").is_some() {
            let kept = std::mem::replace(&mut self.folder, TempDir::new().unwrap()).keep();
            eprintln!("kept: {}", kept.display());
        }
        // Killing the holder kills process 1 inside, and the kernel then everything else there.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
