//! The command line, built from the table of operations.
//!
//! Nothing about a single operation stands here: its arguments, help and examples are its own.

mod globals;
mod texts;

use std::ffi::OsString;
use std::path::PathBuf;

use bmi::ops::table::Entry;
use bmi::ops::{OPS, Request};
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, ColorChoice, Command, FromArgMatches, value_parser};
use clap_complete::Shell;

pub use globals::{Color, Format, Globals, Progress};
pub use texts::EXIT_CODES;

/// A command line, understood.
pub struct Parsed {
    /// What stands with every verb.
    pub globals: Globals,
    /// What is to be done.
    pub wanted: Wanted,
}

/// What a command line asks for.
pub enum Wanted {
    /// An operation of the table.
    Operation(Box<Request>, &'static Entry),
    /// A raw call.
    Call(Call),
    /// Completion for a shell.
    Completion(Shell),
    /// Man pages, into a folder or one to standard output.
    Man(Option<PathBuf>),
}

/// `bmictl call`.
#[derive(Clone, Debug, Args)]
pub struct Call {
    /// The operation: noun.verb, or a source document's own name for it
    #[arg(required_unless_present = "stream")]
    pub method: Option<String>,
    /// Its parameters, a JSON object; - reads them from standard input
    #[arg(value_name = "JSON|-")]
    pub params: Option<String>,
    /// Answer JSON-RPC 2.0 requests, one a line of standard input, in order, over one connection
    #[arg(long, conflicts_with_all = ["method", "params"])]
    pub stream: bool,
}

const CALL_EXAMPLES: &[&str] = &[
    r#"call node.show '{"node": "web1"}'"#,
    r#"call image.import '{"source": "debian-12.qcow2", "name": "debian-12"}'"#,
    "call node.provision - < request.json",
    r#"call --stream <<< '{"jsonrpc": "2.0", "id": 1, "method": "status"}'"#,
];

/// Every command with its arguments, examples and help.
#[must_use]
pub fn command() -> Command {
    let mut root = Globals::augment_args(Command::new("bmictl"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Give bare-metal machines their disks: the client of bmid")
        .after_help("`bmictl NOUN --help` lists a noun's verbs, `bmictl NOUN VERB --help` explains one.")
        .after_long_help(texts::exit_codes())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true);
    let mut nouns: Vec<&str> = Vec::new();
    for entry in OPS {
        if !nouns.contains(&entry.sheet.noun) {
            nouns.push(entry.sheet.noun);
        }
    }
    for noun in nouns {
        root = root.subcommand(of_noun(noun));
    }
    root.subcommand(
        Call::augment_args(Command::new("call"))
            .about("Call any operation with JSON in and JSON out; or many, as a stream of JSON-RPC")
            .after_help(texts::examples(CALL_EXAMPLES)),
    )
    .subcommand(
        Command::new("completion")
            .about("Print a shell's completion script")
            .arg(Arg::new("shell").required(true).value_parser(["bash", "zsh", "fish"]))
            .after_help(texts::examples(&["completion bash > /etc/bash_completion.d/bmictl"])),
    )
    .subcommand(
        Command::new("man")
            .about("Print the man page, or write all of them into a folder")
            .arg(Arg::new("folder").value_name("DIR").value_parser(value_parser!(PathBuf)))
            .after_help(texts::examples(&["man | man -l -", "man /usr/local/share/man/man1"])),
    )
}

fn of_noun(noun: &'static str) -> Command {
    let of: Vec<&Entry> = OPS.iter().filter(|e| e.sheet.noun == noun).collect();
    if let [only] = of[..]
        && only.sheet.verb.is_empty()
    {
        return leaf(Command::new(noun), only);
    }
    let verbs: Vec<&str> = of.iter().map(|e| e.sheet.verb).collect();
    Command::new(noun)
        .about(texts::noun(noun, &verbs))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(of.iter().map(|e| leaf(Command::new(e.sheet.verb), e)))
}

fn leaf(command: Command, entry: &Entry) -> Command {
    let mut leaf = (entry.augment)(command).about(entry.sheet.about).long_about(Resettable::Reset);
    if leaf.get_arguments().any(|a| a.get_long() == Some("format")) {
        leaf = leaf.arg(output_format());
    }
    let mut after = texts::examples(entry.sheet.examples);
    if !entry.sheet.destroys.is_empty() {
        after
            .push_str(&format!("\nIt destroys {}; it asks before, unless --yes stands there.\n", entry.sheet.destroys));
    }
    leaf.after_help(after)
}

/// Where a verb has a `--format` of its own, the answer's format is `-f` or `--output-format`.
fn output_format() -> Arg {
    Arg::new("global-format")
        .short('f')
        .long("output-format")
        .value_name("FORMAT")
        .env("BMI_FORMAT")
        .value_parser(value_parser!(Format))
        .action(ArgAction::Set)
        .help("How to print the answer [default: table]")
        .help_heading("Options of every command")
}

/// Understands a command line; the first argument is the program's name.
pub fn parse(args: &[OsString]) -> Result<Parsed, clap::Error> {
    let mut command = command();
    if plain(args) {
        command = command.color(ColorChoice::Never);
    }
    let matches = command.try_get_matches_from_mut(args)?;
    let (noun, of) = matches.subcommand().ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
    let (verb, leaf) = of.subcommand().unwrap_or(("", of));
    let globals = Globals::from_arg_matches(leaf)?;
    Ok(Parsed { globals, wanted: wanted(noun, verb, leaf)? })
}

fn wanted(noun: &str, verb: &str, leaf: &ArgMatches) -> Result<Wanted, clap::Error> {
    if let Some(entry) = OPS.iter().find(|e| e.sheet.noun == noun && e.sheet.verb == verb) {
        return Ok(Wanted::Operation(Box::new((entry.parse)(leaf)?), entry));
    }
    match noun {
        "call" => Ok(Wanted::Call(Call::from_arg_matches(leaf)?)),
        "completion" => match leaf.get_one::<String>("shell").map(String::as_str) {
            Some("zsh") => Ok(Wanted::Completion(Shell::Zsh)),
            Some("fish") => Ok(Wanted::Completion(Shell::Fish)),
            _ => Ok(Wanted::Completion(Shell::Bash)),
        },
        _ => Ok(Wanted::Man(leaf.get_one::<PathBuf>("folder").cloned())),
    }
}

/// Usage errors are printed before the options are known, so `--color never` is looked for by hand.
fn plain(args: &[OsString]) -> bool {
    args.iter().any(|a| a == "--color=never") || args.windows(2).any(|w| w[0] == "--color" && w[1] == "never")
}

#[cfg(test)]
mod tests;
