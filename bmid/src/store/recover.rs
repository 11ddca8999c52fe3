//! After sled has opened: everything that the log holds and sled has not is read, and brought into sled. Until it is there,
//! durable, nothing is served and the log stays as it is.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bmi::model::{Kind, Meta};
use sled::IVec;

use super::ffi::give_back_memory;
use super::log::{self, BadLog, Changes, Files, NoLog};
use super::open::{OpenError, reading, writing};
use super::{DecodeError, codec, feed, raw, tables};

/// A store that may be served from.
pub(super) struct Recovered {
    pub(super) db: sled::Db,
    pub(super) meta: Meta,
    /// sled's data file.
    pub(super) data: File,
    /// The log, of which nothing is needed any more.
    pub(super) files: Files,
    /// Number of the last commit.
    pub(super) last: u64,
}

/// Why there is none.
pub(super) enum NotRecovered {
    /// It is left as it is.
    Open(OpenError),
    /// It is damaged.
    Broken(String),
}

impl From<OpenError> for NotRecovered {
    fn from(e: OpenError) -> NotRecovered {
        NotRecovered::Open(e)
    }
}

pub(super) fn recover(path: &Path, db: sled::Db, log_bytes: u64) -> Result<Recovered, NotRecovered> {
    let reached = read_row(&db, tables::REACHED)?;
    let known = match &reached {
        None => 0,
        Some(row) => feed::read_reached(row).ok_or_else(|| newer(0, "unknown"))?,
    };
    match log::present(path).map_err(|e| reading(path, &e))? {
        Some(true) => {}
        // Of a release before the log, or made so far and no further.
        _ if reached.is_none() => log::create(path, log_bytes).map_err(|e| writing(path, &e))?,
        _ => return Err(NotRecovered::Broken("its log (log.0 and log.1 in that folder) is missing".to_owned())),
    }
    let nolog = |e| match e {
        NoLog::Io(e) => NotRecovered::Open(reading(path, &e)),
        NoLog::Bad(BadLog::Damaged(why)) => NotRecovered::Broken(format!("the log is damaged: {why}")),
        NoLog::Bad(e @ BadLog::Newer { .. }) => NotRecovered::Open(OpenError::NewerLog { why: e.to_string() }),
    };
    let files = Files::open(path, log_bytes).map_err(nolog)?;
    let (changes, last) = log::replay(path, known).map_err(nolog)?;
    // A store of a newer release is not written to.
    let meta = read_meta(&db, &changes)?;
    let data = File::open(path.join("db")).map_err(|e| reading(path, &e))?;
    if last > known || reached.is_none() {
        bring(path, &db, &data, &changes, last)?;
    }
    if changes.len() > feed::LARGE {
        drop(changes);
        give_back_memory();
    }
    for which in [0, 1] {
        files.shrink(which).map_err(|e| writing(path, &e))?;
    }
    Ok(Recovered { db, meta, data, files, last })
}

fn bring(path: &Path, db: &sled::Db, data: &File, changes: &Changes, last: u64) -> Result<(), NotRecovered> {
    let fed = catch_unwind(AssertUnwindSafe(|| feed::feed(db, data, changes, last, |batch| db.apply_batch(batch))));
    let fault = match fed {
        Ok(Ok(())) => return Ok(()),
        Err(_) => return Err(NotRecovered::Broken("sled panicked while the log was brought into it".to_owned())),
        Ok(Err(fault)) => fault,
    };
    Err(match fault.kind {
        Kind::Full => OpenError::Full { path: path.to_owned() }.into(),
        Kind::Corrupt => NotRecovered::Broken(fault.why),
        _ => OpenError::Unwritable { path: path.to_owned(), why: fault.why, fix: fault.fix }.into(),
    })
}

fn read_row(db: &sled::Db, table: u8) -> Result<Option<IVec>, NotRecovered> {
    db.get([table]).map_err(|e| NotRecovered::Broken(raw::outside("read the store", &e).why))
}

fn newer(found: u32, release: &str) -> OpenError {
    OpenError::NewerSchema { found, known: tables::SCHEMA, release: release.to_owned() }
}

fn read_meta(db: &sled::Db, changes: &Changes) -> Result<Meta, NotRecovered> {
    let row = match changes.get(&[tables::META][..]) {
        Some(row) => row.clone(),
        None => read_row(db, tables::META)?,
    };
    let row = row.ok_or_else(|| NotRecovered::Broken("the record of the store itself is missing".to_owned()))?;
    match codec::decode::<Meta>(&row) {
        Ok(meta) if meta.schema > tables::SCHEMA => Err(newer(meta.schema, &meta.release).into()),
        Ok(meta) => Ok(meta),
        Err(DecodeError::Newer { .. }) => Err(newer(0, "unknown").into()),
        Err(e) => Err(NotRecovered::Broken(e.to_string())),
    }
}
