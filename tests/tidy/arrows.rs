//! Who may know whom (docs/architecture.md). Rooms that know each other both ways become one room that nobody can take apart.

use crate::kept;
use crate::source::{self, File, Named};

/// Rooms of crate bmi; each may use those before it.
const BMI: [&str; 5] = ["model", "step", "rules", "ops", "protocol"];
/// Rooms of bmid with those that each may use.
const BMID: [(&str, &[&str]); 6] = [
    ("store", &[]),
    ("drivers", &[]),
    ("run", &["store", "drivers"]),
    ("listen", &["run"]),
    ("http", &["drivers"]),
    ("daemon", &["store", "drivers", "run", "listen", "http"]),
];
/// Families of drivers.
const FAMILIES: [&str; 5] = ["storage", "target", "network", "boot", "worker"];
/// What crate bmi may depend on: neither I/O nor threads nor clocks come with these.
const BMI_CRATES: [&str; 3] = ["serde", "bincode", "clap"];
/// What of std touches the world: crate bmi decides and must not act, so that every decision can be tested without a machine.
const WORLD: [&str; 6] = ["fs", "process", "thread", "env", "os", "io"];

fn told(problems: Vec<String>, why: &str) {
    assert!(problems.is_empty(), "{}\n{why}", problems.join("\n"));
}

fn at(file: &File, named: &Named) -> String {
    format!("{}:{} names {}", file.path, named.line, named.path.join("::"))
}

#[test]
fn the_rooms_of_bmi_know_only_those_before_them() {
    let place = |room: &str| BMI.iter().position(|r| *r == room);
    let mut problems = Vec::new();
    for file in source::under("src/") {
        let Some(own) = source::module_of(&file.path).first().and_then(|r| place(r)) else { continue };
        for named in source::paths(file).iter().filter(|n| n.own) {
            if named.path.first().and_then(|r| place(r)).is_some_and(|other| other > own) {
                problems.push(at(file, named));
            }
        }
    }
    told(problems, "The arrows are model <- step <- rules <- ops <- protocol: what is decided must not know who asks.");
}

#[test]
fn the_rooms_of_bmid_know_only_what_they_stand_on() {
    let mut problems = Vec::new();
    for file in source::under("bmid/src/") {
        let module = source::module_of(&file.path);
        let Some((own, allowed)) = BMID.iter().find(|(r, _)| Some(*r) == module.first().map(String::as_str)) else {
            continue;
        };
        for named in source::paths(file).iter().filter(|n| n.own) {
            let other = named.path.first().map_or("", String::as_str);
            if BMID.iter().any(|(r, _)| *r == other) && other != *own && !allowed.contains(&other) {
                problems.push(at(file, named));
            }
        }
    }
    told(
        problems,
        "The arrows are {store, drivers} <- run <- listen <- daemon: only run may know both promises and the world.",
    );
}

#[test]
fn families_of_drivers_do_not_know_each_other() {
    let mut problems = Vec::new();
    for file in source::under("bmid/src/drivers/").filter(|f| !f.test && f.path != "bmid/src/drivers/set.rs") {
        let module = source::module_of(&file.path);
        let own = module.get(1).map_or("", String::as_str);
        for named in source::paths(file).iter().filter(|n| n.own && n.path.first().is_some_and(|r| r == "drivers")) {
            let other = named.path.get(1).map_or("", String::as_str);
            if FAMILIES.contains(&other) && other != own {
                problems.push(at(file, named));
            }
        }
    }
    told(
        problems,
        "A driver that knows another decides something, and deciding is the plan's. What they share stands beside them; only set.rs names all.",
    );
}

#[test]
fn crate_bmi_has_three_dependencies() {
    let text = kept::read("Cargo.toml");
    let found = dependencies(&text, "[dependencies]");
    assert_eq!(found, BMI_CRATES, "crate bmi stays free of I/O: with these three that needs no review.");
}

#[test]
fn bmictl_uses_of_this_workspace_only_bmi() {
    let found = dependencies(&kept::read("bmictl/Cargo.toml"), "[dependencies]");
    assert!(found.contains(&"bmi".to_owned()), "the check reads the manifest: {found:?}");
    for other in ["bmid", "sled", "tokio"] {
        assert!(
            !found.contains(&other.to_owned()),
            "bmictl depends on {other}; a client only parses, sends and shows."
        );
    }
    let problems = source::under("bmictl/src/").flat_map(|f| {
        let named = source::paths(f);
        named.iter().filter(|n| !n.own && n.path[0] == "bmid").map(|n| at(f, n)).collect::<Vec<_>>()
    });
    told(problems.collect(), "bmictl knows the daemon by its socket alone.");
}

#[test]
fn crate_bmi_never_touches_the_world() {
    let mut problems = Vec::new();
    for file in source::under("src/").filter(|f| !f.test) {
        for named in source::paths(file).iter().filter(|n| !n.own && matches!(n.path[0].as_str(), "std" | "core")) {
            let second = named.path.get(1).map_or("", String::as_str);
            let third = named.path.get(2).map_or("", String::as_str);
            let bad = match second {
                "net" => third.starts_with("Tcp") || third.starts_with("Udp") || third.is_empty(),
                "time" => third != "Duration",
                second => WORLD.contains(&second),
            };
            if bad {
                problems.push(at(file, named));
            }
        }
    }
    told(problems, "Crate bmi opens no file, socket or clock: what it needs to know comes in as an argument.");
}

#[test]
fn the_checks_know_every_room() {
    let rooms = |lib: &str| -> Vec<String> {
        let file = source::all().iter().find(|f| f.path == lib).expect("the crate's root");
        let items = file.ast().items;
        let mods =
            items.iter().filter_map(|i| if let syn::Item::Mod(m) = i { Some(m.ident.to_string()) } else { None });
        mods.collect()
    };
    for room in rooms("src/lib.rs") {
        assert!(
            BMI.contains(&room.as_str()),
            "src/{room} is a room without an arrow: add it to the architecture first."
        );
    }
    for room in rooms("bmid/src/lib.rs") {
        assert!(
            BMID.iter().any(|(r, _)| *r == room),
            "bmid/src/{room} is a room without an arrow: add it to the architecture first."
        );
    }
}

/// The names in a manifest's section, in order.
fn dependencies(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|l| *l != section).skip(1).take_while(|l| !l.starts_with('['));
    lines
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split(['=', '.', ' ']).next())
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect()
}
