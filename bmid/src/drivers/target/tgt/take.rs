//! Takes a target away and verifies that it is gone.
//!
//! Must never end a session without force, and never touch a target of another name.

use bmi::model::Kind;
use bmi::step::DropTarget;

use super::client::{Failure, unless};
use super::wire::Code;
use super::{At, Patience, kernel};
use crate::drivers::DriverError;

/// Takes it away; whether anything changed.
pub(super) fn take(at: &At<'_>, s: &DropTarget) -> Result<bool, DriverError> {
    let mut changed = false;
    if there(at, s)? {
        if s.force { by_force(at, s) } else { gently(at, s) }?;
        changed = true;
    }
    if let Some(user) = &s.account {
        changed |= unless(at.client.account_delete(user), &[Code::NO_USER]).map_err(|e| at.failed(e))?;
    }
    for lun in &s.luns {
        changed |= kernel::release(at, lun)?;
    }
    Ok(changed)
}

fn there(at: &At<'_>, s: &DropTarget) -> Result<bool, DriverError> {
    let all = at.client.targets().map_err(|e| at.failed(e))?;
    Ok(all.iter().any(|(tid, iqn)| *tid == s.tid && *iqn == s.iqn))
}

/// tgtd itself refuses under a session, in the same moment in which it would delete.
fn gently(at: &At<'_>, s: &DropTarget) -> Result<(), DriverError> {
    let mut wait = Patience::new();
    loop {
        let failure = match unless(at.client.target_delete(s.tid, false), &[Code::NO_TARGET]) {
            Ok(_) => return gone(at, s),
            Err(e) => e,
        };
        if !active(&failure) {
            return Err(at.failed(failure));
        }
        let live = at.client.connections(s.tid).map_err(|e| at.failed(e))?;
        if !live.is_empty() {
            return Err(at.in_use(&s.iqn, &live));
        }
        // A session is just ending.
        if !wait.more() {
            return Err(at.failed(failure));
        }
    }
}

fn by_force(at: &At<'_>, s: &DropTarget) -> Result<(), DriverError> {
    // Offline first: an initiator that is cut off logs in again at once.
    match unless(at.client.target_ready(s.tid, false), &[Code::NO_TARGET]) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(e) => return Err(at.failed(e)),
    }
    let mut wait = Patience::new();
    loop {
        let live = match at.client.connections(s.tid) {
            Ok(live) => live,
            Err(e) if e.code() == Some(Code::NO_TARGET) => return gone(at, s),
            Err(e) => return Err(at.failed(e)),
        };
        at.cut(s.tid, &live)?;
        match unless(at.client.target_delete(s.tid, true), &[Code::NO_TARGET]) {
            Ok(_) => return gone(at, s),
            Err(e) if active(&e) && wait.more() => {}
            Err(e) => return Err(at.failed(e)),
        }
    }
}

fn active(e: &Failure) -> bool {
    matches!(e.code(), Some(Code::TARGET_ACTIVE | Code::LUN_ACTIVE))
}

/// tgtd's yes is not enough: whoever reads "gone" deletes the disk next.
fn gone(at: &At<'_>, s: &DropTarget) -> Result<(), DriverError> {
    if there(at, s)? {
        let why = format!("tgtd agreed, but target {} is still there", s.iqn);
        return Err(at.error(Kind::Outside, why).fix("restart that network's tgtd"));
    }
    Ok(())
}
