//! The kill test: a child process with an engine over simulated drivers, or with its disks in a real pool, is killed at every step boundary of every operation
//! that changes something, while it runs, while it undoes and while it recovers. Once recovered, and again once reconciled,
//! rows, world and usage are one, no operation is open and nothing is left over.
//!
//! It says on standard error how many cases ran. `BMI_SEED` repeats the random ones, `BMI_KILL_SECONDS` says how long all of
//! it may take (120): the random cases fill what the others leave; `BMI_KILL_STRIKES` how often each kind of step in a pool is struck in its
//! middle (1).

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "tests")]

mod case;
#[path = "../support/ceph.rs"]
mod ceph;
mod child;
#[path = "../support/dice.rs"]
mod dice;
#[path = "../support/disks.rs"]
mod disks;
mod lab;
mod pools;
#[path = "../flow/rig.rs"]
mod rig;
mod scenario;
mod shape;
mod walks;
