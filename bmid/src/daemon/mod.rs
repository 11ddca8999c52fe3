//! The daemon around the rooms: command line, configuration, log, key, signals, and the one order in which all is started.
//!
//! Decides nothing about requests. Stopping it, in order or not, leaves every node's disk as it is.

pub mod args;
pub mod config;
pub mod keyring;
pub mod log;
mod manager;
mod start;

use std::process::ExitCode;

use bmi::model::Fault;
use clap::Parser;

/// Why bmid ends other than asked to, and with which exit code.
struct Failure {
    fault: Fault,
    code: u8,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure { fault, code: 1 }
    }
}

/// bmid, from command line to exit code: 0 stopped in order, 1 failed, 2 command line or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    if let Some(folder) = &args.rbd_order {
        return if crate::drivers::krbd::carry_out(folder) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(conf) = &args.boot_files {
        return if crate::http::serve(conf) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match start::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { fault, code }) => {
            eprintln!("bmid: {fault}");
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests;
