//! What help and man pages say beside the table of operations.

/// Exit codes, as help and man pages list them.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed"),
    (2, "usage: the command line or a value in it is wrong, or --yes is missing"),
    (3, "not found"),
    (4, "conflict: the object's state does not allow it, or another operation holds it"),
    (5, "denied"),
    (6, "a quota would be exceeded"),
    (7, "timeout: the operation goes on"),
    (8, "no daemon answers"),
    (10, "--check: something would change"),
    (130, "interrupted by Ctrl-C"),
];

/// One line on each noun.
const NOUNS: &[(&str, &str)] = &[
    ("datastore", "Where bytes live"),
    ("network", "Interfaces and VLANs on which nodes boot"),
    ("vlan", "VLANs of the data centre, which networks take theirs from"),
    ("image", "Golden images, which disks are cloned from"),
    ("node", "Machines and the disks they boot from"),
    ("tag", "Restore points of nodes"),
    ("volume", "Disks: those of nodes, and kept ones"),
    ("target", "What nodes log in to"),
    ("op", "Operations: what runs, what ran, what is stuck"),
    ("event", "Who did what, when, with which outcome"),
    ("state", "The daemon's own records"),
];

/// What a noun is, for help; a noun nobody described is described by its verbs.
pub(super) fn noun(noun: &str, verbs: &[&str]) -> String {
    NOUNS
        .iter()
        .find(|(n, _)| *n == noun)
        .map_or_else(|| format!("{noun}: {}", verbs.join(", ")), |(_, about)| (*about).to_owned())
}

/// The exit codes under `bmictl --help`.
pub(super) fn exit_codes() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for (code, meaning) in EXIT_CODES {
        text.push_str(&format!("{code:>5}  {meaning}\n"));
    }
    text
}

/// The examples under a verb's help.
pub(super) fn examples(examples: &[&str]) -> String {
    let mut text = String::new();
    for (i, example) in examples.iter().enumerate() {
        text.push_str(if i == 0 { "Examples:\n" } else { "" });
        text.push_str(&format!("  bmictl {example}\n"));
    }
    text
}
