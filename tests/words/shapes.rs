//! The shapes of all that crosses the wire or stands in the store. A field that moves is misread in silence by the other side,
//! so a move must be seen here, and told to the other side by `PROTOCOL` or by a record's version.

use std::fmt::Write as _;

use bmi::model::{Answer, Event, Intent, Meta, Part, Row, Usage};
use bmi::protocol::{ClientFrame, PROTOCOL, ServerFrame};
use bmi::step::{Script, Step};
use serde::Deserialize;

use crate::kept;
use crate::trace::Shapes;

/// What crosses the wire.
const WIRE: &str = "tests/words/wire.txt";
/// What stands in the store.
const STORE: &str = "tests/words/store.txt";

fn shapes_of(add: impl FnOnce(&mut Shapes)) -> Shapes {
    let mut shapes = Shapes::default();
    add(&mut shapes);
    shapes
}

fn wire() -> Shapes {
    shapes_of(|s| {
        s.add::<ClientFrame>();
        s.add::<ServerFrame>();
    })
}

fn store() -> Shapes {
    shapes_of(|s| {
        s.add::<Row>();
        s.add::<Step>();
        s.add::<Script>();
        s.add::<Intent>();
        s.add::<Part>();
        s.add::<Answer>();
        s.add::<Event>();
        s.add::<Meta>();
        s.add::<Usage>();
    })
}

fn text(head: &str, shapes: &Shapes) -> String {
    let mut out = head.to_owned();
    for (name, variants) in &shapes.enums {
        let _ = writeln!(out, "\nenum {name}");
        for (number, (variant, shape)) in variants.iter().enumerate() {
            let shape = shape.as_ref().unwrap_or_else(|| panic!("{name}::{variant} was never seen"));
            let _ = writeln!(out, "{number:3} {variant} {shape}").map(|()| {
                while out.ends_with(" \n") {
                    out.truncate(out.len() - 2);
                    out.push('\n');
                }
            });
        }
    }
    out.push('\n');
    for (name, shape) in &shapes.structs {
        let _ = writeln!(out, "struct {name} {{ {shape} }}");
    }
    out
}

/// Lines of `old` that `new` has no more.
fn lost(old: &str, new: &str) -> Vec<String> {
    let lines: std::collections::BTreeSet<&str> = new.lines().collect();
    old.lines().filter(|l| !l.starts_with('#') && !lines.contains(l)).map(str::to_owned).collect()
}

fn protocol_in(text: &str) -> Option<u32> {
    text.lines().find_map(|l| l.strip_prefix("# protocol ")).and_then(|n| n.parse().ok())
}

#[test]
fn what_crosses_the_wire_changes_its_shape_only_with_the_protocol() {
    let head = format!(
        "# What crosses the wire, as bincode writes it. Written by a test (see main.rs).\n# protocol {PROTOCOL}\n"
    );
    let new = text(&head, &wire());
    let old = kept::read(WIRE);
    let lost = lost(&old, &new);
    let raised = protocol_in(&old).is_none_or(|before| PROTOCOL > before);
    assert!(
        raised || lost.is_empty() || kept::unreleased(),
        "the wire's shapes have changed and PROTOCOL is still {PROTOCOL}:\n{}\nPeers of the same number would misread each other: raise PROTOCOL in src/protocol/mod.rs.",
        lost.join("\n")
    );
    kept::must_be(WIRE, &new, "What crosses the wire is told here.");
}

#[test]
fn what_stands_in_the_store_keeps_its_shape() {
    let new = text("# What stands in the store, as bincode writes it. Written by a test (see main.rs).\n", &store());
    kept::must_be(
        STORE,
        &new,
        "A changed record needs a new Record::VERSION and a migration; a changed step needs a new variant, old ones stay.",
    );
}

#[test]
fn numbers_of_variants_never_move() {
    for (path, shapes) in [(WIRE, wire()), (STORE, store())] {
        let old = kept::read(path);
        let mut name = "";
        for line in old.lines() {
            if let Some(next) = line.strip_prefix("enum ") {
                name = next;
            } else if let Some((number, rest)) = line.trim_start().split_once(' ')
                && let Ok(number) = number.parse::<usize>()
            {
                let before = rest.split(' ').next().unwrap_or_default();
                let now = shapes.enums.get(name).and_then(|v| v.get(number)).map(|(variant, _)| variant.as_str());
                assert!(
                    now == Some(before) || kept::unreleased(),
                    "{name} number {number} was {before} and is {}: append only, its number crosses wires and stands in stores",
                    now.unwrap_or("gone")
                );
            }
        }
    }
}

#[test]
fn requests_and_replies_stand_in_the_order_of_the_table() {
    let wire = wire();
    let names = |of: &str| wire.enums[of].iter().map(|(v, _)| v.clone()).collect::<Vec<_>>();
    assert_eq!(names("Request"), names("Reply"), "one line of the table is one number");
    assert_eq!(names("Request").len(), bmi::ops::OPS.len());
}

#[test]
fn the_shape_of_a_type_is_found_out_whole() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape counts")]
    struct Outer {
        a: Option<u8>,
        b: Vec<Inner>,
        c: (u16, Inner),
        d: [u8; 4],
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape counts")]
    enum Inner {
        One,
        Two { m: bmi::model::Mac },
        Three(u64, bool),
    }
    let shapes = shapes_of(|s| s.add::<Outer>());
    assert_eq!(shapes.structs["Outer"], "a:?u8 b:[*] Inner c:(u16 Inner) d:[u8 4]");
    let inner: Vec<_> =
        shapes.enums["Inner"].iter().map(|(v, s)| format!("{v} {}", s.as_deref().unwrap_or("?"))).collect();
    assert_eq!(inner, ["One ", "Two m:text", "Three u64 bool"]);
}
