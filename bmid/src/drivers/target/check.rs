//! What no target driver takes, real or simulated. Pure.
//!
//! Everything here would otherwise be cut off, misread or silently dropped by tgtd.

use std::collections::BTreeSet;

use bmi::model::Kind;
use bmi::step::{Lun, MakeTarget, SwapLun, TargetStep};

use crate::drivers::DriverError;

/// tgtd keeps no more of a serial and of a SCSI id.
const MARK: usize = 36;
/// The longest iSCSI name.
const NAME: usize = 223;

/// Refuses a step that tgtd would not carry out as it stands.
pub(super) fn check(step: &TargetStep) -> Result<(), DriverError> {
    let bad = |why: String| Err(DriverError::new(Kind::Invalid, step.describe(), why));
    let why = match step {
        TargetStep::MakeTarget(s) => make(s),
        TargetStep::SwapLun(s) => swap(s),
        TargetStep::DropTarget(s) => s.account.as_deref().and_then(|user| text("the account", user)),
        TargetStep::SwapAccount(s) => {
            text("the account", &s.to.user).or_else(|| text("the initiator's name", &s.initiator))
        }
        TargetStep::OpenPortal(_) | TargetStep::ClosePortal(_) => None,
    };
    why.map_or(Ok(()), bad)
}

fn make(s: &MakeTarget) -> Option<String> {
    if s.tid == 0 || i32::try_from(s.tid).is_err() {
        return Some(format!("{} is not a target number; they go from 1 to {}", s.tid, i32::MAX));
    }
    let numbers: BTreeSet<u8> = s.luns.iter().map(|l| l.number).collect();
    if numbers.len() < s.luns.len() {
        return Some("a LUN is named twice".to_owned());
    }
    iqn(&s.iqn)
        .or_else(|| text("the initiator's name", &s.initiator))
        .or_else(|| s.account.as_ref().and_then(|a| text("the account", &a.user)))
        .or_else(|| s.luns.iter().find_map(lun))
}

fn swap(s: &SwapLun) -> Option<String> {
    lun(&s.to)
}

fn lun(l: &Lun) -> Option<String> {
    if l.number == 0 {
        return Some("LUN 0 is the controller; disks start at 1".to_owned());
    }
    if !l.path.starts_with(if l.pool.is_some() { "rbd:" } else { "/" }) {
        return Some(format!("the backing {:?} is not an absolute path, or none of its pool", l.path));
    }
    text("the backing's path", &l.path)
        .or_else(|| mark("the serial", &l.serial))
        .or_else(|| mark("the SCSI id", &l.scsi_id))
}

fn iqn(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":.-".contains(c);
    (name.is_empty() || name.len() > NAME || !name.chars().all(plain))
        .then(|| format!("{name:?} is not a target name; they hold at most {NAME} of A-Z a-z 0-9 : . -"))
}

fn mark(what: &str, value: &str) -> Option<String> {
    if value.len() > MARK {
        return Some(format!("{what} {value:?} has more than the {MARK} characters that tgtd keeps"));
    }
    text(what, value)
}

fn text(what: &str, value: &str) -> Option<String> {
    (value.is_empty() || value.contains(',') || value.chars().any(char::is_control)).then(|| {
        format!("{what} {value:?} is empty or holds a comma or a control character, which tgtd cannot be told")
    })
}
