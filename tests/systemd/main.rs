//! The units under a real systemd, PID 1 of its own namespaces: each test boots one, with bmid installed in it as
//! `make install` does, and runs one script of this folder inside. It must never touch the host's systemd.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

/// Builds what is preloaded into workers: cargo builds no other package's library for a test.
fn guard(release: bool) {
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        if std::env::var_os("BMI_BUILT").is_some() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "bmid-rbdguard"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(release.then_some("--release"));
        assert!(cargo.status().unwrap().success(), "the guard does not build");
    });
}

/// Runs `tests/systemd/<name>.sh` inside; what it says is shown if it fails.
fn inside(name: &str) {
    inside_with(name, &[]);
}

/// The same; `more` are files of the repository, or folders of it, which are laid out inside under `/src`.
fn inside_with(name: &str, more: &[&str]) {
    let folder = support::bmictl().parent().unwrap().to_owned();
    guard(folder.ends_with("release"));
    let mut command = Command::new(support::script("systemd-ns"));
    command.arg("--install").arg(folder);
    for file in ["lib.sh", &format!("{name}.sh")] {
        command
            .arg("--copy")
            .arg(format!("{}:/test/{file}", support::repository().join("tests/systemd").join(file).display()));
    }
    for path in more {
        let path = support::repository().join(path);
        let files = match std::fs::read_dir(&path) {
            Ok(entries) => entries.map(|e| e.unwrap().path()).collect(),
            Err(_) => vec![path],
        };
        for file in files {
            let to = file.strip_prefix(support::repository()).unwrap().display().to_string();
            command.arg("--copy").arg(format!("{}:/src/{to}", file.display()));
        }
    }
    support::run(command.arg(format!("/test/{name}.sh")));
}

#[test]
fn units_are_valid_and_allow_little() {
    inside("units");
}

#[test]
fn the_daemon_says_when_it_is_ready_and_reloads_and_stops_on_request() {
    inside("service");
}

#[test]
fn a_worker_sees_of_the_host_what_it_serves_and_nothing_that_trusts_root() {
    inside("sandbox");
}

#[test]
fn a_client_at_the_socket_starts_the_daemon() {
    inside("activation");
}

#[test]
fn a_daemon_that_hangs_is_killed_by_the_watchdog_and_started_again() {
    inside("watchdog");
}

#[test]
fn workers_keep_running_while_the_daemon_is_restarted_and_killed() {
    inside("restart");
}

#[test]
fn installing_over_a_running_release_and_removing_it_leave_nodes_and_disks_alone() {
    inside_with("upgrade", &["scripts/install", "systemd"]);
}

#[test]
fn log_lines_reach_the_journal_with_their_fields() {
    inside("journal");
}

#[test]
fn a_foreign_image_is_converted_by_a_unit_that_sees_nothing_else() {
    inside("convert");
}

#[test]
fn an_order_for_the_kernels_rbd_client_is_carried_out_by_a_unit_that_writes_nothing_else() {
    inside("rbd");
}
