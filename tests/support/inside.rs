//! What is in a namespace of the tests' Ceph, as Ceph itself says (`pool.py`): in the form of a simulated world's objects, and
//! what of it may never be when nothing runs. Nothing of bmid's takes part in the looking.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::ceph;
use crate::ceph::Ceph;

/// What Ceph says is in a namespace.
#[derive(Debug, Deserialize)]
pub struct Inside {
    pub images: BTreeMap<String, Value>,
    pub trash: Vec<Value>,
    pub register: BTreeMap<String, Value>,
    pub strays: Vec<String>,
    /// Which datastores there are, and where.
    pub stores: BTreeMap<String, String>,
}

impl Inside {
    /// What is in a pool of this cluster.
    pub fn of(cluster: &Ceph, pool: &str) -> Inside {
        let mut command = cluster.command();
        let mut process = command
            .arg(script())
            .arg(cluster.conf())
            .arg(pool)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with python3-rbd");
        process.stdin.take().unwrap().write_all(b"look\n").unwrap();
        let said = process.wait_with_output().unwrap().stdout;
        serde_json::from_slice(&said).unwrap()
    }

    /// As objects of a simulated world: `disk/<datastore>/volumes/<id>.<generation>` and so on. How deep a disk stands and
    /// what waits in the trash is the background's business, and which id Ceph gave it differs from run to run: not here.
    pub fn objects(&self) -> BTreeMap<String, Value> {
        let mut out = BTreeMap::new();
        let stores: BTreeMap<String, &String> =
            self.stores.keys().map(|d| (format!("bmi.{}", d.replace('-', "")), d)).collect();
        for (name, image) in &self.images {
            let read = || {
                let at = name.match_indices('.').nth(1)?.0;
                let (letter, rest) = name[at + 1..].split_once('.')?;
                Some((*stores.get(&name[..at])?, letter, rest))
            };
            let Some((store, letter, rest)) = read() else {
                out.insert(format!("foreign/{name}"), Value::Null);
                continue;
            };
            let name = match letter {
                "n" => format!("staging/{store}/image {rest}"),
                _ if image["mark"].is_null() => format!("half/{store}/{letter}/{rest}"),
                "i" => format!("disk/{store}/images/{rest}"),
                "v" => format!("disk/{store}/volumes/{rest}"),
                _ => format!("disk/{store}/hidden/{rest}"),
            };
            let mut mark = image["mark"].clone();
            for drawn in ["depth", "rbd"] {
                mark.as_object_mut().map(|m| m.remove(drawn));
            }
            out.insert(name, serde_json::json!({"mark": mark, "size": image["size"], "snaps": image["snaps"]}));
        }
        for (key, entry) in &self.register {
            let (kind, rest) = key.split_once('.').unwrap();
            let (store, what) = rest.split_once('.').unwrap_or((rest, ""));
            let (name, object) = match kind {
                "store" => (format!("store/{store}"), entry.clone()),
                "snap" => (
                    format!("disk/{store}/snapshots/{what}"),
                    serde_json::json!({"volume": entry["volume"], "done": entry["done"]}),
                ),
                "stage" => (format!("staging/{store}/{what}"), Value::Null),
                // Work for the background.
                "flat" => continue,
                _ => (format!("foreign/{key}"), entry.clone()),
            };
            out.insert(name, object);
        }
        out
    }

    /// What may not be so when nothing runs and the background is done, whatever there is.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.strays.iter().map(|o| format!("object {o} belongs to no image")).collect();
        let mut tags = Vec::new();
        for (name, image) in &self.images {
            // A lock without a watcher is of a process that was killed at the very end of its work: whoever opens the disk next breaks
            // it, which `Pool::settled` does and looks at.
            let used = image["watchers"].as_u64() != Some(0);
            if image["broken"] == true || used || (image["mark"].is_null() && !name.contains(".n.")) {
                wrong.push(format!("image {name} is half-made or in use: {image}"));
            }
            for snap in image["snaps"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                match snap.strip_prefix("bmi.") {
                    Some(tag) => tags.push((tag.to_owned(), image["id"].clone())),
                    None if snap == "base" && (name.contains(".i.") || name.contains(".n.")) => {}
                    None => wrong.push(format!("image {name} has snapshot {snap}")),
                }
            }
        }
        for (key, entry) in &self.register {
            match key.split('.').collect::<Vec<_>>().as_slice() {
                ["snap", _, id, generation] => {
                    let tag = (format!("{id}.{generation}"), entry["image"].clone());
                    match tags.iter().position(|t| *t == tag) {
                        Some(at) if entry["done"] == true => drop(tags.remove(at)),
                        _ => wrong.push(format!("{key} is in the register and on no image: {entry}")),
                    }
                }
                ["flat", ..] => wrong.push(format!("{key} is still to be done")),
                _ => {}
            }
        }
        wrong.extend(tags.iter().map(|(tag, _)| format!("snapshot {tag} is not in the register")));
        wrong.extend(self.unknown_children());
        let held = |t: &&Value| t["children"].as_array().is_some_and(|c| !c.is_empty());
        wrong
            .extend(self.trash.iter().filter(|t| !held(t)).map(|t| format!("in the trash, and nothing needs it: {t}")));
        wrong
    }

    /// Images whose parent does not know of them: it could be removed under them.
    fn unknown_children(&self) -> Vec<String> {
        let all: Vec<&Value> = self.images.values().chain(&self.trash).collect();
        let knows = |parent: &Value, child: &Value| {
            let found = all.iter().find(|image| image["id"] == *parent);
            found.is_some_and(|image| image["children"].as_array().is_some_and(|c| c.contains(&child["id"])))
        };
        let lost = all.iter().filter(|image| !image["parent"].is_null() && !knows(&image["parent"], image));
        lost.map(|image| format!("its parent does not know of it: {image}")).collect()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/support/pool.py")
}

/// Asks Ceph.
pub fn ask(line: &str) -> Value {
    struct Teller(Child, BufReader<std::process::ChildStdout>);
    static TELLER: Mutex<Option<Teller>> = Mutex::new(None);
    let mut teller = TELLER.lock().unwrap_or_else(PoisonError::into_inner);
    let Teller(process, said) = teller.get_or_insert_with(|| {
        let mut command = ceph().command();
        command.arg(script()).arg(ceph().conf()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 with python3-rbd");
        let said = BufReader::new(process.stdout.take().unwrap());
        Teller(process, said)
    });
    let mut answer = String::new();
    writeln!(process.stdin.as_mut().unwrap(), "{line}").unwrap();
    said.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{line}: {e} in {answer:?}"))
}
