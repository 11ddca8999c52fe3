//! Shared decisions: rights, allocation, what should exist outside, wanted against seen. Pure.

pub mod after;
pub mod allocate;
pub mod notes;
pub mod reconcile;
pub mod rights;
pub mod room;
pub mod unnoted;
pub mod usage;
pub mod wanted;

#[cfg(test)]
mod tests;

use crate::model::Bytes;
pub use after::After;
pub use rights::Right;

/// What the configuration says and plans need.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `iqn.2026-11.internal.bmi`: what IQNs begin with.
    pub iqn_prefix: String,
    /// TCP port of the portals.
    pub port: u16,
    /// The largest disk an import may make.
    pub max_image: Bytes,
}
