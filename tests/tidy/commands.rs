//! Every operation explains itself, and `docs/commands.md` says of each what the table says.

use std::fmt::Write as _;

use bmi::ops::table::Entry;
use bmi::ops::{Effect, OPS, Request, Right};
use serde::de::value::Error;
use serde::de::{Error as _, Visitor};

use crate::kept;

const PAGE: &str = "docs/commands.md";

const HEAD: &str = "# Commands

Every operation of bmid, as `bmictl` takes it. This page is written by a test out of the table of operations
(`BMI_REWRITE=1 cargo test --test tidy`). `bmictl NOUN VERB --help` says the same and adds the options of every command.

A name in brackets may be left out; `...` may be repeated. Names of nodes, images and networks are the acting project's own;
`OWNER/NAME` names another's, and an id always works. The names of raw calls are in parentheses: `bmictl call METHOD JSON`
takes what stands behind \"JSON\" as the members of an object.
";

#[test]
fn every_operation_explains_itself() {
    for entry in OPS {
        let (sheet, command) = (entry.sheet, entry.sheet.command());
        assert!(
            !sheet.about.is_empty() && !sheet.about.ends_with('.'),
            "{command}: about is one line without a full stop"
        );
        assert!(!sheet.examples.is_empty(), "{command} has no example; people copy examples before they read");
        for example in sheet.examples {
            assert!(example.starts_with(&command), "the example {example:?} is not one of {command}");
        }
        for argument in arguments(entry).get_arguments() {
            let said = argument.get_help().is_some_and(|h| !h.to_string().is_empty());
            assert!(said, "{command}: argument {} says nothing of itself", argument.get_id());
        }
    }
}

#[test]
fn no_two_operations_have_one_name() {
    let mut methods: Vec<String> = OPS.iter().map(|e| e.sheet.method()).collect();
    methods.sort();
    let all = methods.len();
    methods.dedup();
    assert_eq!(methods.len(), all, "raw calls go by method names");
}

#[test]
fn the_reference_of_commands_is_the_table() {
    let mut page = HEAD.to_owned();
    let mut noun = "";
    let mut sorted: Vec<&Entry> = OPS.iter().collect();
    sorted.sort_by_key(|e| OPS.iter().position(|f| f.sheet.noun == e.sheet.noun));
    for entry in sorted {
        if entry.sheet.noun != noun {
            noun = entry.sheet.noun;
            let _ = writeln!(page, "\n## {noun}");
        }
        section(&mut page, entry);
    }
    kept::must_be(PAGE, &page, "The reference must not tell of commands that are not so.");
}

#[test]
fn the_readme_shows_every_noun_and_leads_to_the_reference() {
    let readme = kept::read("README.md");
    assert!(readme.contains(PAGE), "README.md does not lead to {PAGE}");
    for noun in OPS.iter().map(|e| e.sheet.noun) {
        assert!(readme.contains(&format!("bmictl {noun}")), "README.md never shows `bmictl {noun}`");
    }
}

fn arguments(entry: &Entry) -> clap::Command {
    let mut command = (entry.augment)(clap::Command::new("x"));
    command.build();
    let names: Vec<_> = command.get_arguments().filter(|a| a.get_id() == "help").map(|a| a.get_id().clone()).collect();
    for name in names {
        command = command.mut_arg(name, |a| a.help("This help"));
    }
    command
}

fn section(page: &mut String, entry: &Entry) {
    let sheet = entry.sheet;
    let _ = writeln!(page, "\n### bmictl {} ({})\n", sheet.command(), sheet.method());
    let mut facts = vec![format!("{}.", sheet.about)];
    match sheet.right {
        Right::Everyone => facts.push("Any local caller may.".to_owned()),
        Right::Member => facts.push("Members of the acting project may.".to_owned()),
        Right::Admin => facts.push("Admins may.".to_owned()),
    }
    if sheet.effect == Effect::Read {
        facts.push("It changes nothing.".to_owned());
    }
    if !sheet.destroys.is_empty() {
        facts.push(format!("It destroys {}: it asks before, unless `--yes` stands there.", sheet.destroys));
    }
    let _ = writeln!(page, "{}\n", facts.join(" "));
    let lines: Vec<String> = arguments(entry)
        .get_arguments()
        .filter(|a| a.get_id() != "help" && !a.is_hide_set())
        .map(|a| format!("- {}\n", line(a)))
        .collect();
    let _ = write!(page, "{}{}", lines.concat(), if lines.is_empty() { "" } else { "\n" });
    let _ = writeln!(page, "```");
    for example in sheet.examples {
        let _ = writeln!(page, "bmictl {example}");
    }
    let quoted = |names: &[&str]| names.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ");
    let members = members(&sheet.method());
    let members = if members.is_empty() { "nothing".to_owned() } else { quoted(members) };
    let _ = writeln!(page, "```\n\nJSON: {members}. Answers: {}.", quoted((entry.fields)()));
}

/// The members of a raw call's parameters.
fn members(method: &str) -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // Always an error: decoding ends as soon as the names are known.
    let _ = Request::from_call(method, Asked(&mut found));
    found
}

/// Notes the fields that a type asks for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only the names were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn line(argument: &clap::Arg) -> String {
    let many = matches!(argument.get_action(), clap::ArgAction::Append)
        || argument.get_num_args().is_some_and(|n| n.max_values() > 1);
    let values = argument.get_num_args().is_none_or(|n| n.takes_values()) && argument.get_action().takes_values();
    let value = argument.get_value_names().and_then(|v| v.first()).map(|v| v.to_string()).unwrap_or_default();
    let mut text = match argument.get_long() {
        Some(long) if values => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    };
    if many {
        text.push_str("...");
    }
    if !argument.is_required_set() {
        text = format!("[{text}]");
    }
    let mut out = format!("`{text}` {}", argument.get_help().map(ToString::to_string).unwrap_or_default());
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if values && !defaults.is_empty() {
        let _ = write!(out, " (default: {})", defaults.join(", "));
    }
    out
}
