//! What the store promises, proven against the machine: processes killed, power lost, disks full to the brim.
//!
//! Needs root, loop devices, xfsprogs. Each test has a file system of its own and runs beside the others. They fail, rather
//! than skip, where the tools are missing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod child;
mod disk;
mod full;
mod kill;
mod loss;
