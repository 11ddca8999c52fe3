//! The floor in a pool: one thread that clones through librbd and makes the same requests to a tgtd of its own. No boot files, no
//! journal, no marks, no questions.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::house::guard;
use super::super::target::{self, Tgtd};
use super::{POOL, Pooled};

const IQN: &str = "iqn.2026-11.internal.floor:";

/// A tgtd of its own, started as bmid starts its.
pub(super) struct Floor {
    tgtd: Tgtd,
    options: String,
}

impl Floor {
    /// With as many targets as bmid has nodes.
    pub(super) fn new(pooled: &Pooled, targets: u32) -> Floor {
        let tgtd = Tgtd::start_with(Path::new("/run/floor-pool"), 3_263, Some(&guard()));
        let floor = Floor { tgtd, options: pooled.options() };
        for tid in 1..=targets {
            floor.provision(pooled, tid);
        }
        floor
    }

    fn disk(tid: u32) -> String {
        format!("floor.{tid}")
    }

    /// Clone and target; how long each took.
    pub(super) fn provision(&self, pooled: &Pooled, tid: u32) -> (Duration, Duration) {
        let begun = Instant::now();
        pooled.pool.clone_of(&pooled.golden, &Floor::disk(tid));
        let cloned = begun.elapsed();
        let image = format!("{POOL}/{}", Floor::disk(tid));
        target::make_rbd(&self.tgtd.socket, tid, &format!("{IQN}{tid}"), &image, &self.options);
        (cloned, begun.elapsed() - cloned)
    }

    /// Takes it away again.
    pub(super) fn deprovision(&self, pooled: &Pooled, tid: u32) {
        target::take(&self.tgtd.socket, tid);
        pooled.pool.remove(&Floor::disk(tid));
    }
}
