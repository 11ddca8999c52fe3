//! What the kernel has to be told to reach a disk of a pool; and that it lets go of one that goes.
//!
//! Where a key stands is found out here, as librados finds it; the key itself is never read here.

use std::path::Path;

use bmi::model::Kind;
use bmi::step::{Backing, BackingKind};
use nix::errno::Errno;
use serde::Deserialize;

use super::disks::Site;
use super::pool::{Pool, failed};
use crate::drivers::DriverError;
use crate::drivers::krbd::{Disk, KeyFile, Krbd, Reach};

/// What is read of `ceph mon dump`.
#[derive(Debug, Deserialize)]
struct Monmap {
    fsid: String,
    mons: Vec<Mon>,
}

#[derive(Debug, Deserialize)]
struct Mon {
    public_addrs: Addresses,
}

#[derive(Debug, Deserialize)]
struct Addresses {
    addrvec: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    protocol: String,
    addr: String,
}

impl Monmap {
    fn ask(pool: &Pool, tried: &str) -> Result<Monmap, DriverError> {
        let answer = pool.cluster.ask(r#"{"prefix":"mon dump","format":"json"}"#).map_err(|e| failed(tried, e))?;
        Monmap::read(&answer, tried)
    }

    fn read(answer: &[u8], tried: &str) -> Result<Monmap, DriverError> {
        serde_json::from_slice(answer).map_err(|e| {
            DriverError::new(Kind::Outside, tried, format!("the answer to `ceph mon dump` is not understood: {e}"))
        })
    }

    /// Where they speak messenger v1, which every kernel knows.
    fn monitors(self) -> Vec<String> {
        let all = self.mons.into_iter().flat_map(|m| m.public_addrs.addrvec);
        all.filter(|a| a.protocol == "v1").map(|a| a.addr).collect()
    }
}

/// The disk as the kernel names it.
pub(super) fn disk(pool: &Pool, image: &str, tried: &str) -> Result<Disk, DriverError> {
    Ok(named(pool, image, Monmap::ask(pool, tried)?.fsid))
}

fn named(pool: &Pool, image: &str, fsid: String) -> Disk {
    let namespace = pool.place.namespace.clone().unwrap_or_default();
    Disk { fsid, pool: pool.place.pool.clone(), namespace, image: image.to_owned() }
}

/// Everything it needs to reach the disk, which must be there.
pub(super) fn reach(pool: &Pool, image: &str, tried: &str) -> Result<Reach, DriverError> {
    let Some(id) = pool.id_of(image).map_err(|e| failed(tried, e))? else {
        return Err(DriverError::new(Kind::Unavailable, tried, "the image is not there")
            .fix("`bmictl datastore show` says whether its datastore is there"));
    };
    let map = Monmap::ask(pool, tried)?;
    let (user, key) = (pool.place.user.clone(), key(pool, tried)?);
    Ok(Reach { disk: named(pool, image, map.fsid.clone()), id, monitors: map.monitors(), user, key })
}

/// Where the user's key stands: as librados looks for it.
fn key(pool: &Pool, tried: &str) -> Result<KeyFile, DriverError> {
    let option = |name| pool.cluster.setting(name).map_err(|e| failed(tried, e));
    let (user, place) = (Some(pool.place.user.clone()), &pool.place);
    if place.keyring.is_none() {
        // librados tells whether there is one; it is read from the file when the kernel gets it.
        if !option("key")?.is_empty() {
            return Ok(KeyFile { path: place.conf.clone(), user });
        }
        let alone = option("keyfile")?;
        if !alone.is_empty() {
            return Ok(KeyFile { path: alone.to_string(), user: None });
        }
    }
    let listed = option("keyring")?;
    let found = listed.split([',', ';', ' ']).map(str::trim).find(|p| !p.is_empty() && Path::new(p).exists());
    let path = found.ok_or_else(|| {
        let why = format!("none of the keyrings {} is there", *listed);
        DriverError::new(Kind::Unavailable, tried, why).fix("`datastore create --keyring FILE` names another")
    })?;
    Ok(KeyFile { path: path.to_owned(), user })
}

/// Has the kernel let go of a volume that goes: what holds an image keeps it from being purged. Whoever serves it
/// has been told to stop before.
pub(super) fn let_go(site: &Site<'_>, what: &Backing, kernel: &Krbd) -> Result<(), DriverError> {
    if what.kind != BackingKind::Volume || !site.pool.place.by_kernel() {
        return Ok(());
    }
    let tried = format!("remove {} {}", what.folder(), what.name());
    let disk = disk(site.pool, &site.name(what), &tried)?;
    kernel.unmap(&tried, &disk, |_| false).map(drop)
}

/// Maps an image of a datastore that is being made, and lets go of it: what the kernel lacks is told now.
pub(super) fn try_out(pool: &Pool, kernel: &Krbd, tried: &str) -> Result<(), DriverError> {
    let image = tried_name(pool);
    let fail = |e| failed(tried, e);
    match pool.io.create(&image, 4 << 20) {
        // An earlier try's, which may be mapped still, or was never whole.
        Err(Errno::EEXIST) => {
            clear(pool, kernel);
            pool.discard(&image).map_err(fail)?;
            pool.io.create(&image, 4 << 20).map_err(fail)?;
        }
        made => made.map_err(fail)?,
    }
    let reach = reach(pool, &image, tried)?;
    let mapped = kernel.map(tried, &reach);
    let gone = kernel.unmap(tried, &reach.disk, |_| false);
    mapped.and(gone)?;
    pool.io.remove(&image).map_err(fail)
}

fn tried_name(pool: &Pool) -> String {
    format!("{}.n.map", pool.place.prefix())
}

/// Takes away what a try left that died in it. It may be that nothing of it is there.
pub(super) fn clear(pool: &Pool, kernel: &Krbd) {
    let (image, tried) = (tried_name(pool), "take away what a pool was tried with");
    if !pool.place.by_kernel() || !matches!(pool.id_of(&image), Ok(Some(_))) {
        return;
    }
    let gone = disk(pool, &image, tried).and_then(|disk| kernel.unmap(tried, &disk, |_| false));
    if let Err(e) = gone.and_then(|_| pool.discard(&image).map_err(|e| failed(tried, e))) {
        tracing::warn!(image, error = %e, "an image that a pool was tried with stays");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn the_kernel_is_told_the_monitors_first_protocol() {
        let dump = br#"{"epoch":1,"fsid":"f-1","mons":[
            {"name":"a","public_addrs":{"addrvec":[{"type":"v2","addr":"10.8.0.1:3300","nonce":0},{"type":"v1","addr":"10.8.0.1:6789","nonce":0}]}},
            {"name":"b","public_addrs":{"addrvec":[{"type":"v2","addr":"[fd00::2]:3300","nonce":0},{"type":"v1","addr":"[fd00::2]:6789","nonce":0}]}}]}"#;
        let map = Monmap::read(dump, "try").unwrap();
        assert_eq!(map.fsid, "f-1");
        assert_eq!(map.monitors(), ["10.8.0.1:6789", "[fd00::2]:6789"]);
        let e = Monmap::read(b"{}", "try").unwrap_err();
        assert!(e.why.contains("mon dump"), "{e:?}");
    }
}
