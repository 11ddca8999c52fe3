//! The command line: what people type is what the daemon is asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;

use super::*;

fn parse_line(line: &str) -> Result<Parsed, clap::Error> {
    let words: Vec<OsString> = std::iter::once("bmictl".to_owned()).chain(split(line)).map(OsString::from).collect();
    parse(&words)
}

/// Words as a shell makes them, as far as examples need it: single quotes hold together, redirections end the command.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let end = words.iter().position(|w| matches!(w.as_str(), "<" | ">" | "|" | "<<<")).unwrap_or(words.len());
    words.truncate(end);
    words
}

fn request(line: &str) -> Request {
    match parse_line(line) {
        Ok(Parsed { wanted: Wanted::Operation(request, _), .. }) => *request,
        Ok(_) => panic!("{line} is no operation"),
        Err(e) => panic!("{line}: {e}"),
    }
}

fn meant(method: &str, json: &str) -> Request {
    Request::from_call(method, &mut serde_json::Deserializer::from_str(json)).unwrap().unwrap()
}

#[test]
fn no_argument_of_an_operation_collides_with_another_or_with_an_option_of_every_command() {
    command().debug_assert();
    // clap looks at what is built; the ids of globals must also never be taken for an operation's.
    let mut root = command();
    root.build();
    for noun in root.get_subcommands() {
        for leaf in std::iter::once(noun).chain(noun.get_subcommands()) {
            let mut longs: HashMap<&str, usize> = HashMap::new();
            leaf.get_arguments().filter_map(Arg::get_long).for_each(|l| *longs.entry(l).or_default() += 1);
            assert!(longs.values().all(|n| *n == 1), "{}: {longs:?}", leaf.get_name());
        }
    }
}

#[test]
fn every_example_of_every_operation_parses_into_that_operation() {
    let mut seen = 0;
    for entry in OPS {
        assert!(!entry.sheet.examples.is_empty(), "{} has no example", entry.sheet.command());
        for example in entry.sheet.examples {
            let asked = request(example);
            assert_eq!(asked.sheet().command(), entry.sheet.command(), "{example}");
            seen += 1;
        }
    }
    assert!(seen >= OPS.len());
    for example in CALL_EXAMPLES {
        assert!(matches!(parse_line(example), Ok(Parsed { wanted: Wanted::Call(_), .. })), "{example}");
    }
}

#[test]
fn the_forms_people_type_first_mean_what_they_say() {
    let forms = [
        (
            "datastore create fast --kind file --path /srv/bmi --loop 10G",
            "datastore.create",
            r#"{"name":"fast","kind":"file","path":"/srv/bmi","loop":10737418240,"thin":false}"#,
        ),
        (
            "network create rack1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150 --dhcp serve",
            "network.create",
            r#"{"name":"rack1","interface":"eth1","address":"10.9.0.1/24","range":"10.9.0.100-10.9.0.150","dhcp":"serve"}"#,
        ),
        (
            "network create rack1 --interface eth1 --address 10.9.0.1/24",
            "network.create",
            r#"{"name":"rack1","interface":"eth1","address":"10.9.0.1/24","range":null,"dhcp":"serve"}"#,
        ),
        (
            "image import disk.raw --name golden",
            "image.import",
            r#"{"source":{"name":"disk.raw","descriptor":null},"name":"golden","format":null,"size":null,"sha256":null,"datastore":"default"}"#,
        ),
        (
            "image import - --name golden --format raw",
            "image.import",
            r#"{"source":{"name":"-","descriptor":null},"name":"golden","format":"raw","size":null,"sha256":null,"datastore":"default"}"#,
        ),
        (
            "node provision web1 --image debian --mac 52:54:00:12:34:56 --network rack1 --nic eno1 --chap",
            "node.provision",
            r#"{"name":"web1","image":"debian","mac":"52:54:00:12:34:56","network":"rack1","nic":"eno1","chap":"in-script"}"#,
        ),
        (
            "node provision web1 --image debian --mac 52:54:00:12:34:56 --network rack1",
            "node.provision",
            r#"{"name":"web1","image":"debian","mac":"52:54:00:12:34:56","network":"rack1"}"#,
        ),
        ("node show web1 -f json", "node.show", r#"{"node":"web1"}"#),
        ("tag create web1 installed", "tag.create", r#"{"node":"web1","tag":"installed"}"#),
        ("tag rollback web1 installed", "tag.rollback", r#"{"node":"web1","tag":"installed"}"#),
    ];
    for (line, method, json) in forms {
        assert_eq!(request(line), meant(method, json), "{line}");
    }
}

#[test]
fn options_of_every_command_stand_before_or_after_the_verb() {
    for line in [
        "-f json --project p --timeout 5 -y --check node show web1",
        "node -f json --project p show --timeout 5 web1 -y --check",
        "node show web1 -f json --project p --timeout 5 -y --check",
    ] {
        let globals = parse_line(line).unwrap().globals;
        assert_eq!(globals.format, Some(Format::Json), "{line}");
        assert_eq!(globals.project.as_ref().unwrap().as_str(), "p", "{line}");
        assert_eq!(globals.timeout, Some(std::time::Duration::from_secs(5)), "{line}");
        assert!(globals.yes && globals.check, "{line}");
    }
}

#[test]
fn a_verb_with_a_format_of_its_own_keeps_it_and_the_answer_has_its_short_form() {
    let parsed = parse_line("image export golden out.qcow2 --format qcow2 -f json").unwrap();
    assert_eq!(parsed.globals.format, Some(Format::Json));
    let Wanted::Operation(request, _) = parsed.wanted else { panic!("no operation") };
    assert_eq!(
        *request,
        meant("image.export", r#"{"image":"golden","target":{"name":"out.qcow2","descriptor":null},"format":"qcow2"}"#)
    );
    assert_eq!(
        parse_line("--format yaml image export golden x --format raw").unwrap().globals.format,
        Some(Format::Yaml)
    );
    for verb in ["image ls", "image export golden x"] {
        assert_eq!(parse_line(&format!("{verb} --output-format csv")).unwrap().globals.format, Some(Format::Csv));
    }
}

#[test]
fn wait_is_the_default_and_the_last_word_counts() {
    let waits = |line: &str| {
        let g = parse_line(line).unwrap().globals;
        !g.no_wait || g.wait
    };
    assert!(waits("node show web1"));
    assert!(!waits("node show web1 --no-wait"));
    assert!(waits("node show web1 --no-wait --wait"));
    assert!(!waits("node show web1 --wait --no-wait"));
}

#[test]
fn wrong_usage_ends_with_exit_code_2_and_help_with_0() {
    for line in [
        "",
        "nonsense",
        "node",
        "node nonsense",
        "node provision",
        "node provision web1 --image debian --mac 01:00:5e:00:00:01 --network rack1",
        "node provision ../etc --image debian --mac 52:54:00:12:34:56 --network rack1",
        "node show web1 --timeout soon",
        "status -f xml",
        "call",
        "completion tcsh",
    ] {
        assert_eq!(parse_line(line).err().map(|e| e.exit_code()), Some(2), "{line:?}");
    }
    for line in ["--help", "node --help", "node provision -h", "--version"] {
        assert_eq!(parse_line(line).err().map(|e| e.exit_code()), Some(0), "{line:?}");
    }
}

#[test]
fn help_shows_examples_what_is_destroyed_and_exit_codes() {
    let help = |line: &str| parse_line(line).err().unwrap().to_string();
    let root = help("--help");
    for (code, meaning) in EXIT_CODES {
        assert!(root.contains(&format!("{code:>5}  {meaning}")), "{code}");
    }
    let verb = help("node deprovision -h");
    assert!(verb.contains("bmictl node deprovision web1 --yes"), "{verb}");
    assert!(verb.contains("It destroys the node's disk"), "{verb}");
    for entry in OPS {
        let verb = help(&format!("{} --help", entry.sheet.command()));
        assert!(verb.contains(entry.sheet.about.split_whitespace().next().unwrap()), "{}", entry.sheet.command());
        assert!(verb.contains(&format!("bmictl {}", entry.sheet.examples[0])), "{}", entry.sheet.command());
    }
}
