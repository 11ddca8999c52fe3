//! Whether a tgtd has room for its disks: what is told before a limit is reached, and what is refused. Pure.

use crate::model::record::under;
use crate::model::{Fault, Index, Kind, Network, Server, View};
use crate::rules::wanted;
use crate::step::{Fact, Limit, Look, Room};

/// Percent of a limit from which it is told.
const TIGHT: u64 = 80;

/// What is to be said of limits that are nearly reached.
#[must_use]
pub fn warnings(room: &Room) -> Vec<(String, String)> {
    let tight = |l: &&Limit| l.used.saturating_mul(100) >= l.most.saturating_mul(TIGHT);
    let told = |l: &Limit| {
        let percent = l.used.saturating_mul(100) / l.most.max(1);
        let what = l.of.as_str();
        (format!("{percent} % of {} is used: {} of {} {what}", l.name, l.used, l.most), l.raise.clone())
    };
    room.limits.iter().filter(tight).map(told).collect()
}

/// The question whether a network has room.
#[must_use]
pub fn look(network: &Network) -> Look {
    Look::Room(network.id)
}

/// Refuses `more` disks of a datastore that the network's tgtd has no room for, with the limit's name. Its disks that it has not opened yet
/// (others are being provisioned, or it has just been started) are counted, too. What is not known refuses nothing.
pub fn must_fit(
    view: &dyn View,
    known: Option<&Fact>,
    network: &Network,
    store: &Server,
    more: usize,
) -> Result<(), Fault> {
    let (Some(Fact::Room(Some(room))), 1..) = (known, more) else { return Ok(()) };
    let cost = if wanted::disk_by(store) == "librbd" { &room.pool } else { &room.file };
    let there = view.ids(Index::NodesOf, &under(network.id, &[]))?.len() as u64;
    for limit in &room.limits {
        let each = cost.of(limit.of);
        let to_come = (there * each).saturating_sub(room.used.of(limit.of)) + more as u64 * each;
        if limit.used + to_come > limit.most {
            let what = limit.of.as_str();
            let disks = if more == 1 { "its disk".to_owned() } else { format!("{more} disks") };
            return Err(Fault::new(
                Kind::Limit,
                format!(
                    "{disks} would not fit on network {}: {} ends at {} {what}, {} are used, and {to_come} more would be",
                    network.name, limit.name, limit.most, limit.used
                ),
            )
            .fix(format!("{}; or use another network, whose tgtd has limits of its own", limit.raise)));
        }
    }
    Ok(())
}
