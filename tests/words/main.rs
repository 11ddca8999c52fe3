//! Words that others rely on: the shapes that cross the wire and stand in the store, the rights matrix, exit codes.
//!
//! Each stands in a checked-in file. `BMI_REWRITE=1` writes them anew where that breaks nobody: what was only added, and,
//! once `PROTOCOL` is raised, what was changed. `BMI_REWRITE=unreleased` writes whatever is so: only before a first release.

#[path = "../support/kept.rs"]
mod kept;

mod kinds;
mod requests;
mod rights;
mod shapes;
mod trace;
