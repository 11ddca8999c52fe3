//! The daemon's program: everything is in the library, where tests can start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bmid::daemon::main()
}
