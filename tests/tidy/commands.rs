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
takes what stands behind \"JSON\" as the members of an object. Who has
which right: [rights.md](rights.md).
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

/// The command lines in a page: lines of code that begin with `bmictl`, and what stands in table cells and in the text.
fn command_lines(page: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in page.lines() {
        let typed = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
        if line.starts_with("    ")
            && let Some(rest) = typed.strip_prefix("bmictl ")
        {
            out.push(rest.to_owned());
        }
        out.extend(
            line.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("bmictl ")).map(str::to_owned),
        );
    }
    out
}

/// The words of a command line up to where the shell takes over, without the options of every command.
fn words(line: &str) -> Vec<String> {
    const WITH_VALUE: [&str; 6] = ["-f", "-o", "--op-id", "--timeout", "--project", "--socket"];
    const ALONE: [&str; 8] = ["--yes", "-y", "--check", "--no-wait", "--wait", "-q", "-H", "--bytes"];
    let mut out: Vec<String> = Vec::new();
    let mut words = line.split_whitespace().take_while(|w| !matches!(*w, "|" | "||" | "<" | ">" | "#"));
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !ALONE.contains(&word) {
            // An id that the reader fills in.
            let id = matches!(word, "ID" | "SUM") || word.starts_with("\"$");
            out.push(if id { "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".to_owned() } else { word.to_owned() });
        }
    }
    out
}

#[test]
fn every_command_in_the_pages_is_understood() {
    let mut seen = 0;
    let mut problems = Vec::new();
    for page in ["README.md", "docs/operator.md", "docs/troubleshooting.md", "docs/client.md", "docs/testing.md"] {
        for line in command_lines(&kept::read(page)) {
            let words = words(&line);
            let noun = words.first().map_or("", String::as_str);
            // bmictl's own, and lines that only say how a command looks.
            if matches!(noun, "call" | "completion" | "man")
                || line.contains(['[', '{'])
                || noun.starts_with(['-', 'N'])
            {
                continue;
            }
            let entry = OPS.iter().find(|e| {
                e.sheet.noun == noun && (e.sheet.verb.is_empty() || words.get(1).is_some_and(|v| v == e.sheet.verb))
            });
            let Some(entry) = entry else {
                // A noun alone, or with its verb left to the reader, is fine.
                if !(words.len() == 1 && OPS.iter().any(|e| e.sheet.noun == noun)) {
                    problems.push(format!("{page}: there is no command `bmictl {line}`"));
                }
                continue;
            };
            seen += 1;
            let given = entry.sheet.command().split(' ').count() - 1;
            let parsed = (entry.augment)(clap::Command::new("bmictl")).try_get_matches_from(&words[given..]);
            let named_only = words.len() == given + 1;
            if let Err(e) = parsed.and_then(|m| (entry.parse)(&m))
                && !named_only
            {
                let why = e.to_string();
                problems.push(format!("{page}: `bmictl {line}`: {}", why.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(seen > 60, "the pages have commands, and the test found {seen}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_configuration_key_is_explained_to_operators() {
    let source = kept::read("bmid/src/daemon/config.rs");
    let (_, table) = source.split_once("pub const KEYS").expect("the table of keys");
    let (table, _) = table.split_once("];").expect("its end");
    let keys: Vec<&str> = table.lines().filter_map(|l| l.trim().strip_prefix("(\"")?.split('"').next()).collect();
    assert!(keys.len() > 5, "the table is read: {keys:?}");
    let page = kept::read("docs/operator.md");
    for key in keys {
        assert!(page.contains(&format!("| `{key}` |")), "docs/operator.md does not explain the key {key}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut problems = Vec::new();
    for page in [
        "README.md",
        "docs/operator.md",
        "docs/troubleshooting.md",
        "docs/client.md",
        "docs/testing.md",
        "docs/architecture.md",
        "docs/adding-an-operation.md",
        "docs/protocol.md",
        "docs/commands.md",
    ] {
        let folder = if page.starts_with("docs/") { "docs/" } else { "" };
        // A link may be broken over two lines.
        let text = kept::read(page).replace('\n', " ");
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let path =
                if file.is_empty() { page.to_owned() } else { format!("{folder}{file}").replace("docs/../", "") };
            if !kept::root().join(&path).exists() {
                problems.push(format!("{page}: {target} leads nowhere"));
            } else if !part.is_empty() && !anchors(&kept::read(&path)).contains(&part.to_owned()) {
                problems.push(format!("{page}: {target}: {path} has no such heading"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The headings of a page, as links name them.
fn anchors(page: &str) -> Vec<String> {
    let heading = |l: &str| l.starts_with('#').then(|| l.trim_start_matches('#').trim().to_lowercase());
    let plain = |h: String| h.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    page.lines().filter_map(heading).map(|h| plain(h).replace(' ', "-")).collect()
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
        Right::Everyone => facts.push("Right: everyone.".to_owned()),
        Right::Member => facts.push("Right: member.".to_owned()),
        Right::Admin => facts.push("Right: admin.".to_owned()),
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
    let may_stand_alone = argument.get_num_args().is_some_and(|n| n.min_values() == 0);
    let mut text = match argument.get_long() {
        Some(long) if values && may_stand_alone => format!("--{long}[={value}]"),
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
