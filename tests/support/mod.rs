//! What the tests with the real daemon, client and tools share: a host of their own, an engine on it, machines that boot.
//!
//! Everything lives in namespaces of one holder process, which takes all of it along when it ends: a test that panics leaves
//! no process, interface or mount behind. It must never reach outside them, and it skips nothing: without root or without a
//! tool a test fails and says what is missing.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to fail")]

pub mod engine;
pub mod host;
pub mod machine;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A script beside this file.
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/support").join(name)
}

/// The daemon as it was built for this test run.
pub fn bmid() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_bmid"))
}

/// Whether this process runs under User-mode Linux (`uml`).
pub fn own_kernel() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("User Mode Linux"))
}

/// The client, built now if it is not as new as its sources: cargo builds for a test only the programs of its own package.
pub fn bmictl() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder = bmid().parent().unwrap().to_owned();
            // Built by who started it, and not a second time: for this package alone its dependencies have other features.
            if own_kernel() || std::env::var_os("BMI_BUILT").is_some() {
                return folder.join("bmictl");
            }
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--package", "bmictl", "--bins"]).current_dir(repository());
            if folder.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "bmictl does not build");
            folder.join("bmictl")
        })
        .clone()
}

/// Runs a command to its end and gives what it said; fails with all it said otherwise.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}
