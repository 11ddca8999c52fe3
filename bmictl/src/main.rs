//! bmictl: everything is in the library; this only starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bmictl::main(std::env::args_os())
}
