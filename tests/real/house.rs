//! Network, mount and process namespaces with a veth pair for one test: the test runs again inside it, as a child, and everything in it ends
//! with the child.

use std::path::Path;
use std::process::{Command, Stdio};

const INSIDE: &str = "BMI_TEST_INSIDE";

/// Whether this is the child. The parent runs the child and judges by its exit.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up; ip link add eth1 type veth peer name node0; ip link set eth1 up; ip link set node0 up");
        return true;
    }
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{test} failed inside its namespace");
    false
}

/// A shell line that must succeed.
pub fn sh(line: &str) -> String {
    let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Whether a shell line succeeds, and what it says.
pub fn tries(line: &str) -> (bool, String) {
    let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// The pid in the only tgtd of this namespace.
pub fn pid_of(program: &str) -> Option<i32> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let zombie = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default().contains(") Z ");
        if comm.trim() == program && !zombie {
            return entry.file_name().to_str()?.parse().ok();
        }
    }
    None
}

/// A disk of `mib` MiB with a pattern at its start and holes after it.
pub fn disk(path: &Path, mib: u64) -> String {
    use std::io::Write;
    let mut f = std::fs::File::create(path).unwrap();
    f.write_all(&[0xa5; 65_536]).unwrap();
    f.set_len(mib << 20).unwrap();
    path.to_str().unwrap().to_owned()
}
