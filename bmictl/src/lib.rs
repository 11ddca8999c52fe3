//! The client of bmid: parse, send, show. Blocking, one thread, nothing kept between calls.
//!
//! It decides nothing about objects: every command comes out of the table of operations in `bmi`, every answer from the
//! daemon. It must never touch a datastore, a target or the daemon's state folder itself.

mod ask;
mod bell;
mod call;
pub mod cli;
mod link;
mod progress;
mod resolve;
mod shell;
pub mod show;
mod stop;
mod stream;
mod submit;
pub mod value;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

pub use stop::Stop;

use crate::cli::Wanted;
use crate::words::Words;

/// Carries a command line out and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = match cli::parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nothing is left to be told to where not even the usage can be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let words = Words::new(&parsed.globals);
    let done = match parsed.wanted {
        Wanted::Operation(request, entry) => submit::run(&parsed.globals, &words, *request, entry),
        Wanted::Call(call) => call::run(&parsed.globals, &words, call),
        Wanted::Completion(shell) => shell::completion(shell),
        Wanted::Man(folder) => shell::man(folder.as_deref()),
    };
    ExitCode::from(match done {
        Ok(code) => code,
        Err(Stop::Quiet(code)) => code,
        Err(Stop::Fault(fault)) => {
            words.fault(&fault);
            fault.kind.class().exit_code()
        }
    })
}
