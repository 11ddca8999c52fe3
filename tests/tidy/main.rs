//! The house kept in order: what a reviewer would say again and again is said by these tests, each with its reason.
//!
//! They read source text and change nothing (but `docs/commands.md`, when `BMI_REWRITE=1` asks for it).

#[path = "../support/kept.rs"]
mod kept;

mod arrows;
mod attributes;
mod commands;
mod panics;
mod sizes;
mod source;
mod unsafety;
