//! The engine with simulated drivers: every operation, its refusals, and what is left after failures.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "tests")]

#[path = "../support/ceph.rs"]
mod ceph;
#[path = "../support/disks.rs"]
mod disks;
mod ends;
mod faults;
mod nodes;
mod rig;
mod secrets;
mod things;
