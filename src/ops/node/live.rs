//! Live sessions: what must not happen to a disk while its machine uses it, unless forced.

use crate::model::{Fault, Kind, NodeState};
use crate::ops::Facts;
use crate::rules::wanted::NodeRecords;
use crate::step::{Fact, Look, Session};

/// The question for a node's sessions.
#[must_use]
pub fn look(records: &NodeRecords) -> Look {
    Look::Sessions { network: records.target.network, tid: records.target.tid, iqn: records.target.iqn.clone() }
}

/// A node's sessions, as far as they are known; where they were asked for in vain, why they are not.
#[must_use]
pub fn sessions(records: &NodeRecords, facts: &Facts) -> (Option<Vec<Session>>, Option<String>) {
    match facts.get(&look(records)) {
        Some(Fact::Sessions(live)) => (Some(live.clone()), None),
        Some(Fact::Unknown(why)) => (None, Some(why.clone())),
        _ => (None, None),
    }
}

/// Refuses when the node has a live session, or when that cannot be found out.
pub fn refuse(records: &NodeRecords, facts: &Facts, force: bool, what: &str) -> Result<(), Fault> {
    // A node that is detached has no target to have a session at.
    if force || records.node.state == NodeState::Detached {
        return Ok(());
    }
    let name = &records.node.name;
    match facts.get(&look(records)) {
        Some(Fact::Sessions(none)) if none.is_empty() => Ok(()),
        Some(Fact::Sessions(live)) => {
            let from: Vec<_> = live.iter().map(|s| s.address.as_str()).collect();
            Err(Fault::conflict(format!(
                "node {name} is running (session from {}) and cannot be {what}",
                from.join(", ")
            ))
            .fix("power it off first, or use --force if losing what it has not written yet is fine"))
        }
        Some(Fact::Unknown(why)) => {
            Err(Fault::new(Kind::Unavailable, format!("whether node {name} is running could not be found out: {why}"))
                .fix("`bmictl doctor` and `bmictl reconcile` help; --force goes on without knowing"))
        }
        _ => Err(Fault::internal("sessions were not asked for")),
    }
}
