//! LUNs: opening and closing them, and putting another backing behind one.
//!
//! Must never take a LUN away while somebody is logged in, or let anybody log in while it is away.

use std::fs;

use bmi::model::Kind;
use bmi::step::{Lun, SwapLun};

use super::client::{Failure, On, unless};
use super::show::Listed;
use super::wire::Code;
use super::{At, Patience, kernel, pool};
use crate::drivers::DriverError;

/// Brings the LUN to what the step says; whether anything changed.
pub(super) fn swap(at: &At<'_>, s: &SwapLun) -> Result<bool, DriverError> {
    let there = find(at, s)?;
    let lun = there.luns.iter().find(|l| l.number == s.to.number);
    let same = lun.is_some_and(|l| l.path == s.to.path && l.online);
    let marked = lun.is_some_and(|l| l.serial == s.to.serial && l.scsi_id == s.to.scsi_id);
    let old = Lun { path: s.from.clone(), ..s.to.clone() };
    if same && marked && there.ready {
        return Ok(kernel::leave(at, &old));
    }
    if !same {
        // Before anybody is cut off for nothing.
        ready(at, &s.to)?;
        at.quiet(s.tid, &s.iqn, s.force)?;
        close(at, s.tid, s.to.number)?;
        if let Err(e) = put(at, s.tid, &s.to) {
            return Err(back(at, s, lun.map_or(&s.from, |l| &l.path), e));
        }
    } else if !marked {
        mark(at, s.tid, &s.to)?;
    }
    at.client.target_ready(s.tid, true).map_err(|e| at.failed(e))?;
    kernel::leave(at, &old);
    Ok(true)
}

fn find(at: &At<'_>, s: &SwapLun) -> Result<Listed, DriverError> {
    let all = match at.listing() {
        Err(Failure::Disbelieved(_)) => blind(at)?,
        listed => listed.map_err(|e| at.failed(e))?,
    };
    all.into_iter().find(|t| t.tid == s.tid && t.iqn == s.iqn).ok_or_else(|| {
        let why = format!("tgtd has no target {} of number {}", s.iqn, s.tid);
        at.error(Kind::NotFound, why).fix("`bmictl reconcile` makes targets that are missing")
    })
}

/// An initiator forges the listing, which must not keep others from their disks: targets as if they had no LUN. The swap
/// then opens the backing again even if it was so already.
fn blind(at: &At<'_>) -> Result<Vec<Listed>, DriverError> {
    let names = at.client.targets().map_err(|e| at.failed(e))?;
    Ok(names.into_iter().map(|(tid, iqn)| Listed { tid, iqn, ..Listed::default() }).collect())
}

/// The new backing did not open: the one from before comes back, and the failure is told. If that fails too, the target
/// stays offline until the step or its inverse is applied again.
fn back(at: &At<'_>, s: &SwapLun, path: &str, e: DriverError) -> DriverError {
    if e.kind == Kind::Timeout {
        return e;
    }
    let old = Lun { path: path.to_owned(), ..s.to.clone() };
    // What was opened of the new one, if anything.
    let restored = close(at, s.tid, old.number)
        .and_then(|()| put(at, s.tid, &old))
        .and_then(|()| at.client.target_ready(s.tid, true).map_err(|e| at.failed(e)));
    match restored {
        Ok(()) => e,
        Err(too) => {
            let fix = format!("{path} did not come back either ({}); the target is offline; {}", too.why, e.fix);
            e.fix(fix)
        }
    }
}

/// Opens a backing as a LUN and marks it.
pub(super) fn put(at: &At<'_>, tid: u32, lun: &Lun) -> Result<(), DriverError> {
    match &lun.pool {
        None => open(at, tid, lun),
        Some(place) if place.by_kernel() => kernel::open(at, tid, lun),
        Some(_) => pool::open(at, tid, lun),
    }?;
    mark(at, tid, lun)
}

/// Opens a file.
fn open(at: &At<'_>, tid: u32, lun: &Lun) -> Result<(), DriverError> {
    match at.client.lun_new(tid, lun.number, &lun.path) {
        Ok(()) => Ok(()),
        Err(e) if e.code() == Some(Code::INVALID) => {
            readable(at, &lun.path)?;
            Err(at.error(Kind::Outside, format!("tgtd cannot open {}; its log says why", lun.path)))
        }
        Err(e) => Err(at.failed(e)),
    }
}

/// Says what initiators see of a LUN.
pub(super) fn mark(at: &At<'_>, tid: u32, lun: &Lun) -> Result<(), DriverError> {
    let on = match &lun.pool {
        None => On::File,
        Some(place) if place.by_kernel() => On::Device,
        Some(_) => On::Module,
    };
    at.client.lun_mark(tid, lun.number, &lun.serial, &lun.scsi_id, on).map_err(|e| at.failed(e))
}

/// Closes a LUN nobody is logged in to; commands still on their way get a moment.
pub(super) fn close(at: &At<'_>, tid: u32, lun: u8) -> Result<(), DriverError> {
    let mut wait = Patience::new();
    loop {
        match unless(at.client.lun_delete(tid, lun), &[Code::NO_LUN]) {
            Ok(_) => return Ok(()),
            Err(e) if e.code() == Some(Code::LUN_ACTIVE) && wait.more() => {}
            Err(e) => return Err(at.failed(e)),
        }
    }
}

/// Whether a backing could be opened.
fn ready(at: &At<'_>, lun: &Lun) -> Result<(), DriverError> {
    match &lun.pool {
        None => readable(at, &lun.path),
        Some(place) if place.by_kernel() => kernel::exists(at, lun),
        Some(_) => pool::exists(at, lun).map(drop),
    }
}

/// tgtd's one word for a backing that it cannot open says nothing: look ourselves.
fn readable(at: &At<'_>, path: &str) -> Result<(), DriverError> {
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => Err(at.error(Kind::Invalid, format!("{path} is a folder"))),
        Ok(_) => Ok(()),
        Err(e) => {
            let mut error = at.error(Kind::Unavailable, format!("there is no backing at {path}: {e}"));
            error.source = Some(Box::new(e));
            Err(error.fix("`bmictl datastore show` says whether its datastore is there"))
        }
    }
}
