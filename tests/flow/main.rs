//! The engine with simulated drivers: every operation, its refusals, and what is left after failures. What makes or takes
//! disks runs a second time with the real driver of pools, on the tests' Ceph.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "tests")]

/// A test that is played on simulated folders and on a real pool.
macro_rules! on_both {
    ($test:ident) => {
        mod $test {
            use crate::disks::Disks;

            #[test]
            fn in_simulated_folders() {
                Disks::Simulated.play(super::$test);
            }

            #[test]
            fn in_a_pool() {
                Disks::Pool.play(super::$test);
            }
        }
    };
}

#[path = "../support/ceph.rs"]
mod ceph;
#[path = "../support/disks.rs"]
mod disks;
mod ends;
mod faults;
mod network_moves;
mod networks;
mod nodes;
mod rebuild;
mod rig;
mod secrets;
mod things;
mod vlan_pool;
mod vlans;
mod ways;
