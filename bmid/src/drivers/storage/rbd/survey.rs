//! What is looked at and tried before a pool becomes a datastore, so that what is wrong with it is told then and not by the
//! first node: the kind of pool, its room, and every right that disks need later.
//!
//! What rights allow is Ceph's to say: they are tried, not read. It leaves nothing in the pool, and decides nothing for
//! datastores that stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use bmi::model::{Kind, RbdPlace};
use nix::errno::Errno;
use serde::Deserialize;

use super::image::ffi::Which;
use super::names::BASE;
use super::pool::{Pool, failed};
use super::trash;
use crate::drivers::DriverError;

/// Of `type` in a pool's description.
const ERASURE_CODED: u8 = 3;
/// An address of the documentation's, which no client has.
const NOBODY: &str = "192.0.2.1:0/1";
const CLONING: &str = "a clone (format 2) cannot be made in it";

/// What `ceph osd dump` says, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Survey {
    #[serde(default)]
    flags: String,
    #[serde(default)]
    require_osd_release: String,
    #[serde(default)]
    require_min_compat_client: String,
    pools: Vec<Described>,
    /// The pool that the configuration names for the data of new images; empty: their own.
    #[serde(skip)]
    data_pool: String,
}

#[derive(Debug, Deserialize)]
struct Described {
    pool_name: String,
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    flags_names: String,
    #[serde(default)]
    application_metadata: BTreeMap<String, serde_json::Value>,
}

/// The command that gives a user the rights that a datastore needs, and those for another pool.
pub(super) fn caps(place: &RbdPlace, other: Option<(&str, Option<&str>)>) -> String {
    let profile = |pool: &str, namespace: Option<&str>| {
        let namespace = namespace.map(|n| format!(" namespace={n}")).unwrap_or_default();
        format!("profile rbd pool={pool}{namespace}")
    };
    let own = (place.pool.as_str(), place.namespace.as_deref());
    let mut osd = profile(own.0, own.1);
    if let Some((pool, namespace)) = other.filter(|other| *other != own) {
        osd.push_str(&format!(", {}", profile(pool, namespace)));
    }
    format!(
        "`ceph auth caps client.{0} mon 'profile rbd' osd '{osd}'`; it replaces what `ceph auth get client.{0}` shows",
        place.user
    )
}

/// Asks for it.
pub(super) fn ask(pool: &Pool, tried: &str) -> Result<Survey, DriverError> {
    let answer =
        pool.cluster.ask(r#"{"prefix":"osd dump","format":"json"}"#).map_err(|e| denied(pool, tried, e, ""))?;
    let survey: Survey = serde_json::from_slice(&answer).map_err(|e| {
        DriverError::new(Kind::Outside, tried, format!("the answer to `ceph osd dump` is not understood: {e}"))
    })?;
    let data_pool = pool.cluster.setting("rbd_default_data_pool").map(|p| p.to_string()).unwrap_or_default();
    Ok(Survey { data_pool, ..survey })
}

/// A refusal of Ceph's with the command that gives the right.
fn denied(pool: &Pool, tried: &str, e: Errno, data_pool: &str) -> DriverError {
    let told = failed(tried, e);
    if matches!(e, Errno::EACCES | Errno::EPERM) {
        told.fix(caps(&pool.place, (!data_pool.is_empty()).then_some((data_pool, None))))
    } else {
        told
    }
}

impl Survey {
    fn pool(&self, name: &str) -> Option<&Described> {
        self.pools.iter().find(|p| p.pool_name == name)
    }

    /// Whether it is a pool for RBD images.
    pub(super) fn fits(&self, place: &RbdPlace, tried: &str) -> Result<(), DriverError> {
        let name = &place.pool;
        let no = |why: String, fix: String| Err(DriverError::new(Kind::Invalid, tried, why).fix(fix));
        let Some(pool) = self.pool(name) else { return Ok(()) };
        if pool.kind == ERASURE_CODED {
            return no(
                format!("pool {name} is erasure coded, and RBD cannot keep an image's header in such a pool"),
                format!(
                    "make a replicated pool for the headers, give that as --pool, and let the cluster's configuration \
                     say `rbd_default_data_pool = {name}` for client.{}; then `ceph osd pool set {name} \
                     allow_ec_overwrites true`",
                    place.user
                ),
            );
        }
        let uses: Vec<&str> = pool.application_metadata.keys().map(String::as_str).collect();
        match uses.as_slice() {
            [] => {
                return no(format!("pool {name} is not initialised for RBD"), format!("`rbd pool init {name}`"));
            }
            others if !others.contains(&"rbd") => {
                let whose = others.join(", ");
                return no(
                    format!("pool {name} is used by {whose} and not by RBD"),
                    "choose another pool: `ceph osd pool ls detail` shows what each is for".to_owned(),
                );
            }
            _ => {}
        }
        self.data_fits(tried)?;
        if older_than_mimic(&self.require_osd_release) {
            return no(
                format!(
                    "the cluster's OSDs are of release {}, and clones of format 2 need mimic",
                    self.require_osd_release
                ),
                "upgrade the cluster; bmid is made for Pacific (16) and later".to_owned(),
            );
        }
        Ok(())
    }

    fn data_fits(&self, tried: &str) -> Result<(), DriverError> {
        let name = &self.data_pool;
        let no = |why: String, fix: String| Err(DriverError::new(Kind::Invalid, tried, why).fix(fix));
        if name.is_empty() {
            return Ok(());
        }
        match self.pool(name) {
            None => no(
                format!("rbd_default_data_pool in the cluster's configuration names pool {name}, which is not there"),
                "make that pool, or take the line out of the configuration".to_owned(),
            ),
            Some(p) if p.kind == ERASURE_CODED && !p.has("ec_overwrites") => no(
                format!("the data of new images goes to pool {name}, whose erasure code admits no overwriting"),
                format!("`ceph osd pool set {name} allow_ec_overwrites true`"),
            ),
            Some(_) => Ok(()),
        }
    }

    /// Whether something can be written: a client that writes into a full pool waits without an end.
    pub(super) fn has_room(&self, place: &RbdPlace, tried: &str) -> Result<(), DriverError> {
        let full = |why: String, fix: String| Err(DriverError::new(Kind::Full, tried, why).fix(fix));
        for name in [&place.pool, &self.data_pool] {
            let Some(pool) = self.pool(name) else { continue };
            if pool.has("full_quota") {
                return full(
                    format!("pool {name} has reached its quota"),
                    format!(
                        "`ceph osd pool get-quota {name}` shows it, `ceph osd pool set-quota {name} max_bytes N` and max_objects raise it, 0 takes it away"
                    ),
                );
            }
            if pool.has("full") {
                return full(
                    format!("pool {name} is full"),
                    "add OSDs or remove what is not needed; `ceph df` and `ceph osd df` show where room is".to_owned(),
                );
            }
        }
        if self.flags.split(',').any(|f| f == "full") {
            return full("the cluster is full".to_owned(), "add OSDs or remove what is not needed".to_owned());
        }
        Ok(())
    }

    /// What is in the way of writing, or soon will be: of kind `Full`, or of another.
    pub(super) fn tight(&self, place: &RbdPlace, tried: &str) -> Option<DriverError> {
        if let Err(full) = self.has_room(place, tried) {
            return Some(full);
        }
        let near = [&place.pool, &self.data_pool].into_iter().find(|name| {
            self.pool(name).is_some_and(|p| ["nearfull", "backfillfull"].iter().any(|flag| p.has(flag)))
        })?;
        let why = format!("pool {near} is nearly full, and a full one stops the writes of running machines");
        let fix = "add OSDs or remove what is not needed; `ceph df` and `ceph osd df` show where room is";
        Some(DriverError::new(Kind::Unavailable, tried, why).fix(fix))
    }

    /// Does once what every node needs, so that a missing right is told now: an image, a snapshot, a clone, their end, and
    /// the right to shut out a client that died.
    pub(super) fn try_out(&self, pool: &Arc<Pool>, tried: &str) -> Result<(), DriverError> {
        if let Err((what, e)) = makes(pool, &pool.strict()?) {
            let told = denied(pool, tried, e, &self.data_pool);
            let mut why = format!("{what}: {}", told.why);
            if what == CLONING && older_than_mimic(&self.require_min_compat_client) {
                why.push_str(&format!("; the cluster admits clients of {}", self.require_min_compat_client));
                return Err(DriverError { why, ..told }.fix("`ceph osd set-require-min-compat-client mimic`"));
            }
            return Err(DriverError { why, ..told });
        }
        let shut_out = |word: &str| {
            let ask = format!(r#"{{"prefix":"osd {word}","{word}op":"add","addr":"{NOBODY}","expire":1.0}}"#);
            pool.cluster.ask(&ask)
        };
        // Before Pacific the word was another.
        let tries = shut_out("blocklist").or_else(|e| if e == Errno::EINVAL { shut_out("blacklist") } else { Err(e) });
        tries.map(drop).map_err(|e| {
            let told = denied(pool, tried, e, &self.data_pool);
            let why = format!(
                "a client that died cannot be shut out (`osd blocklist`), so its disks stay locked: {}",
                told.why
            );
            DriverError { why, ..told }
        })
    }
}

impl Described {
    fn has(&self, flag: &str) -> bool {
        self.flags_names.split(',').any(|f| f == flag)
    }
}

/// Releases are named along the alphabet; mimic is the thirteenth. What is not told is not old.
fn older_than_mimic(release: &str) -> bool {
    release.bytes().next().is_some_and(|first| (b'a'..b'm').contains(&first))
}

/// The names of what is tried out.
fn tried_names(pool: &Pool) -> [String; 2] {
    ["tried", "try"].map(|name| format!("{}.n.{name}", pool.place.prefix()))
}

/// Takes away what a try left, of this bmid or of one that died in it. What must wait for the dead one's watch waits in the
/// trash; what cannot go for want of a right shows when it is tried anew.
pub(super) fn clear(pool: &Arc<Pool>) {
    let names = tried_names(pool);
    for name in &names {
        let _ = pool.discard(name);
    }
    // The child before its parent.
    for name in &names {
        trash::purge(pool, |trashed| trashed == name);
    }
}

fn makes(pool: &Arc<Pool>, strict: &Pool) -> Result<(), (&'static str, Errno)> {
    let [child, image] = tried_names(pool);
    clear(pool);
    let step = |what: &'static str| move |e| (what, e);
    let tries = || {
        strict.io.create(&image, 4 << 20).map_err(step("an image cannot be made in it"))?;
        let open = pool.open(Which::Name(&image)).map_err(step("an image cannot be opened in it"))?;
        open.write(0, &[1; 4_096]).map_err(step("an image cannot be written in it"))?;
        open.snap(BASE).map_err(step("a snapshot cannot be made in it"))?;
        drop(open);
        pool.io.make_clone(&pool.io, &image, BASE, &child).map_err(step(CLONING))?;
        pool.trash(&child).map_err(step("an image cannot be moved to its trash"))
    };
    let tries: Result<(), (&'static str, Errno)> = tries();
    clear(pool);
    tries
}

#[cfg(test)]
mod tests;
