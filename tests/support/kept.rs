//! Files that follow from the code and are checked in, so that a change of them is seen: compared by tests, written anew
//! with `BMI_REWRITE=1`. Never writes without being asked.

use std::path::{Path, PathBuf};

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether checked-in files may be written.
pub(crate) fn rewriting() -> bool {
    std::env::var_os("BMI_REWRITE").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Whether they may be written although that breaks peers: before a first release.
#[allow(dead_code, reason = "only some tests keep what peers rely on")]
pub(crate) fn unreleased() -> bool {
    std::env::var_os("BMI_REWRITE").is_some_and(|v| v == "unreleased")
}

/// The checked-in text at `path`, a path from the root; empty if there is none.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Fails unless the file at `path` says `text`; writes it if asked to.
pub(crate) fn must_be(path: &str, text: &str, why: &str) {
    let old = read(path);
    if old == text {
        return;
    }
    if rewriting() {
        write(&root().join(path), text);
        return;
    }
    let line = old.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| old.lines().count().min(text.lines().count()));
    panic!(
        "{path} is stale from line {} on:\n  it says   {}\n  should be {}\n{why}\nRun the test with BMI_REWRITE=1 and look at the difference.",
        line + 1,
        old.lines().nth(line).unwrap_or("(nothing)"),
        text.lines().nth(line).unwrap_or("(nothing)"),
    );
}

/// Writes a checked-in file.
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{} cannot be written: {e}", path.display()));
}
