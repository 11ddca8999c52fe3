//! What is told of workers, and which programs they are. It never acts.

use bmi::step::target::fill_address;
use bmi::step::{Finding, Severity, WorkerKind};

use super::{SILENT, probe};
use crate::drivers::host::Process;

/// What a worker that lives and does not answer is doing, as far as the kernel tells.
pub(super) fn silence(process: &Process) -> String {
    let pid = process.pid;
    match process.state() {
        Some('T') => format!("process {pid} does not answer: it was stopped by a signal"),
        Some('t') => format!("process {pid} does not answer: a debugger holds it"),
        Some('D') => format!("process {pid} does not answer: it waits for a device or a file server"),
        Some('R') => format!("process {pid} does not answer: it is busy with something else"),
        _ => format!("process {pid} does not answer"),
    }
}

/// What to do about it, where bmid itself does nothing or not yet.
pub(super) fn cure(kind: WorkerKind, pid: u32) -> String {
    let what = kind.as_str();
    format!(
        "bmid starts a new {what} when it stays so for {SILENT} s; at once: kill -9 {pid}; if it waits for a device, cure that first"
    )
}

/// How to get a port back.
pub(super) fn free_port(port: u16) -> String {
    format!("see who holds it: ss -ltnp 'sport = :{port}'; Debian's own tgt.service does: systemctl disable --now tgt")
}

/// Whether somebody has the port of iSCSI on all addresses, and so on every network's.
pub(super) fn iscsi_port() -> Finding {
    // An address that no tgtd of ours has.
    let taken = probe::port_is_taken(fill_address(u16::MAX), 3260);
    let (severity, found, fix) = match taken {
        true => (Severity::Error, "taken on all addresses by another program: no tgtd can start", free_port(3260)),
        false => (Severity::Ok, "free", String::new()),
    };
    Finding { check: "TCP port 3260".to_owned(), severity, found: found.to_owned(), fix }
}

/// What brings a program.
pub(super) fn package(program: &str) -> &'static str {
    match program {
        "tgtd" => "Debian's package tgt",
        "dnsmasq" => "Debian's package dnsmasq-base",
        "systemctl" => "Debian's package systemd",
        "bmid" => "make install, as bmid itself",
        _ => "Debian's package util-linux",
    }
}

/// The program of a worker.
pub(super) fn program_of(kind: WorkerKind) -> &'static str {
    match kind {
        WorkerKind::Tgtd => "tgtd",
        WorkerKind::Dnsmasq => "dnsmasq",
        WorkerKind::Http => "bmid",
    }
}
