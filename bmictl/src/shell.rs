//! Completion scripts and man pages, from the same commands that are parsed.

use std::io::{self, Write};
use std::path::Path;

use bmi::model::Fault;
use clap::Command;
use clap::builder::Resettable;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli;
use crate::stop::{Stop, kind_of};

/// Prints a shell's completion script.
pub(crate) fn completion(shell: Shell) -> Result<u8, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "bmictl", &mut script);
    print(&script)
}

/// Prints the man page, or writes one for every command into `folder`.
pub(crate) fn man(folder: Option<&Path>) -> Result<u8, Stop> {
    let mut root = cli::command();
    root.build();
    let Some(folder) = folder else {
        return print(&page(&root).map_err(|e| Stop::output(&e))?);
    };
    every(&root, folder).map_err(|e| {
        Stop::Fault(
            Fault::new(kind_of(&e), e.to_string())
                .trying(format!("write man pages into {}", folder.display()))
                .fix("give a folder that exists and that you may write to"),
        )
    })?;
    Ok(0)
}

fn every(command: &Command, folder: &Path) -> io::Result<()> {
    std::fs::write(folder.join(Man::new(command.clone()).get_filename()), page(command)?)?;
    command.get_subcommands().try_for_each(|sub| every(sub, folder))
}

/// A command's page. Examples and exit codes have sections of their own, as readers of man pages expect.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().after_help(Resettable::Reset).after_long_help(Resettable::Reset));
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut more = Roff::new();
    if !examples.is_empty() {
        more.control("SH", [if examples.starts_with("Examples") { "EXAMPLES" } else { "NOTES" }]);
        for line in examples.lines().filter(|l| *l != "Examples:") {
            more.control("PP", []).text([roman(line.trim())]);
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in cli::EXIT_CODES {
        more.control("TP", []).text([bold(code.to_string())]).text([roman(*meaning)]);
    }
    more.to_writer(&mut out)?;
    Ok(out)
}

fn print(bytes: &[u8]) -> Result<u8, Stop> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Stop::output(&e))?;
    Ok(0)
}
