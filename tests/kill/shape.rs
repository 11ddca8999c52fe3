//! What there is, so that two runs can be compared: rows and simulated outside objects, without what differs from run to run
//! (ids made after the template, times, numbers drawn at random). And what must be so at every moment, also in the middle of
//! an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bmid::store::Store;
use serde_json::Value;

use crate::disks::Pool;

/// Rows and world, in a form that can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    rows: Vec<String>,
    world: Vec<String>,
}

/// Fields that differ from run to run. Times are told apart only by being there.
const DRAWN: &[&str] = &["address", "tid", "pid", "slot", "secret", "digest", "changed", "serial", "scsi_id"];

impl Shape {
    /// Of a store and of the world beside it. Ids in `known` stay as they are.
    pub fn of(store: &Store, dir: &Path, known: &BTreeSet<String>) -> Shape {
        let mut rows: Vec<String> = rows(store).into_iter().map(|r| plain(r, known).to_string()).collect();
        let named = |(name, object): (String, Value)| {
            let name =
                name.split_once("targets/").map_or(name.clone(), |_| name[..name.rfind(':').unwrap_or(0)].into());
            format!("{} = {}", mask(&name, known), plain(object, known))
        };
        let mut world: Vec<String> = objects(dir).into_iter().map(named).collect();
        rows.sort();
        world.sort();
        Shape { rows, world }
    }

    /// Without unfinished imports.
    pub fn without_staging(&self) -> Shape {
        let mut shape = self.clone();
        shape.world.retain(|o| !o.starts_with("staging/"));
        shape
    }

    /// How this one differs from the one wanted, for people.
    pub fn differs(&self, wanted: &Shape) -> String {
        let mut out = String::new();
        for (is, want) in [(&self.rows, &wanted.rows), (&self.world, &wanted.world)] {
            let mut missing = want.clone();
            for one in is {
                match missing.iter().position(|m| m == one) {
                    Some(at) => drop(missing.remove(at)),
                    None => out += &format!("    too much: {one}\n"),
                }
            }
            missing.iter().for_each(|m| out += &format!("    missing:  {m}\n"));
        }
        out
    }
}

/// All rows of all tables but the journal's and the trail.
fn rows(store: &Store) -> Vec<Value> {
    let mut text = Vec::new();
    store.dump(&mut text).expect("a dump");
    let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let rows = lines.map(|l| serde_json::from_slice::<Value>(l).expect("JSON"));
    let journal = ["intent", "part", "answer", "event", "end"];
    rows.filter(|r| !journal.iter().any(|j| r["table"].as_str().is_some_and(|t| t.contains(j)))).collect()
}

/// All objects of the world: `kind/name` and content. What is in a real pool stands beside them in the same form.
fn objects(dir: &Path) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for kind in fs::read_dir(dir.join("world/objects")).into_iter().flatten().flatten() {
        for object in fs::read_dir(kind.path()).expect("a kind").flatten() {
            let (kind, name) = (kind.file_name(), object.file_name());
            let name = name.to_string_lossy().replace("%2F", "/");
            if name.starts_with('.') {
                // Being written when the process died; simulators do not see it either.
                continue;
            }
            let content = fs::read(object.path()).expect("an object");
            let content = serde_json::from_slice(&content).expect("JSON");
            out.insert(format!("{}/{name}", kind.to_string_lossy()), content);
        }
    }
    out.extend(Pool::of(dir).map(|pool| pool.look().objects()).unwrap_or_default());
    out
}

fn plain(value: Value, known: &BTreeSet<String>) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| {
                let value = match key.as_str() {
                    k if k.ends_with("_at") && !value.is_null() => Value::from("then"),
                    // A secret is handed out behind the end of its operation: killed in between, it is not handed out yet.
                    "shown" => Value::from("perhaps"),
                    k if DRAWN.contains(&k) && !value.is_null() => Value::from("drawn"),
                    _ => plain(value, known),
                };
                (key, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(|v| plain(v, known)).collect()),
        Value::String(s) => Value::String(mask(&s, known)),
        other => other,
    }
}

/// A text with new ids, and with what tells the nodes of a bulk scenario apart, masked.
fn mask(text: &str, known: &BTreeSet<String>) -> String {
    if ["n1", "n2", "n3"].contains(&text) {
        return "n*".to_owned();
    }
    let mut out = text.to_owned();
    for id in ids(text) {
        if !known.contains(&id) {
            out = out.replace(&id, "*");
        }
    }
    for n in 1..=3 {
        out = out.replace(&format!("52:54:00:00:01:0{n}"), "52:54:00:00:01:*");
    }
    out
}

/// All ids in a text.
fn ids(text: &str) -> Vec<String> {
    let is_id = |w: &[u8]| {
        w.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
    };
    text.as_bytes().windows(36).filter(|w| is_id(w)).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// All ids that a template knows.
pub fn known(store: &Store, dir: &Path) -> BTreeSet<String> {
    let rows = rows(store).into_iter().map(|r| r.to_string());
    let world = objects(dir).into_iter().map(|(name, object)| format!("{name} {object}"));
    rows.chain(world).chain([store.meta().engine.to_string()]).flat_map(|text| ids(&text)).collect()
}

/// What must be so at any moment, whatever runs and wherever it was killed: all that is outside stands in the rows or in
/// the journal, and nothing lacks what it stands on.
pub fn torn(store: &Store, dir: &Path) -> Vec<String> {
    let mut wrong = store.check().expect("the store is looked at");
    let mut told: BTreeSet<String> = rows(store).iter().flat_map(|r| ids(&r.to_string())).collect();
    told.insert(store.meta().engine.to_string());
    told.extend(crate::scenario::STRANGE.map(str::to_owned));
    let intents = store.intents().expect("intents");
    let parts: Vec<_> = intents.iter().flat_map(|i| store.parts(i.id).expect("parts")).collect();
    let world = objects(dir);
    for name in world.keys() {
        for id in ids(name).into_iter().filter(|id| !told.contains(id)) {
            let bytes = id.parse::<bmi::model::Id>().expect("an id").0;
            if !parts.iter().any(|p| p.script.windows(16).any(|w| w == bytes)) {
                wrong.push(format!("{name} is outside and neither rows nor journal know of it"));
            }
        }
    }
    for (name, object) in &world {
        let (kind, rest) = name.split_once('/').expect("a kind");
        let owner = rest.split([':', '@', '/']).next().unwrap_or_default();
        let needs = match kind {
            "disk" | "staging" => vec![format!("store/{owner}")],
            "targets" | "portals" | "accounts" => vec![format!("worker/{owner}@tgtd")],
            "boot.entry" => vec![format!("boot.service/{owner}")],
            "worker" if rest.ends_with("@dnsmasq") => vec![format!("boot.service/{owner}")],
            _ => vec![],
        };
        wrong.extend(needs.iter().filter(|n| !world.contains_key(*n)).map(|n| format!("{name} stands without {n}")));
        for lun in object["luns"].as_array().into_iter().flatten() {
            let path = lun["path"].as_str().unwrap_or_default().trim_end_matches(".raw");
            let behind = |n: &String| {
                n.strip_prefix("disk/").and_then(|n| n.rsplit_once('/')).is_some_and(|(_, n)| path.ends_with(n))
            };
            if !world.keys().any(behind) {
                wrong.push(format!("{name} gives out {path}, which is not there"));
            }
        }
    }
    wrong
}
