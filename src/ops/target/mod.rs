//! Targets: what nodes log in to, and who is logged in.

pub mod list;
