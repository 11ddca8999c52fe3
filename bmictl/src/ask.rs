//! Nothing is destroyed unless somebody said so: on a terminal they are asked, elsewhere `--yes` must stand there.

use std::io::{self, BufRead, IsTerminal, Write};

use bmi::model::Fault;

use crate::stop::Stop;

/// Returns when it may go on. `command` as typed, `destroys` what is lost by it.
pub(crate) fn may_go_on(command: &str, destroys: &str) -> Result<(), Stop> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let refused = Fault::invalid(format!("it destroys {destroys}, and nobody can be asked here"))
            .trying(format!("go on with `{command}`"))
            .fix("add --yes if that is meant");
        return Err(refused.into());
    }
    let mut stderr = io::stderr().lock();
    // A terminal that cannot be written to is noticed by the missing answer.
    let _ = write!(stderr, "This destroys {destroys}; go on? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    let _ = writeln!(stderr, "bmictl: nothing was done");
    Err(Stop::Quiet(1))
}
