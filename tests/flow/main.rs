//! The engine with simulated drivers: every operation, its refusals, and what is left after failures.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod faults;
mod nodes;
mod rig;
mod things;
