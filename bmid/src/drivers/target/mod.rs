//! iSCSI targets: what a node logs in to.
//!
//! `tgt` does it with tgtd, `sim` plays it in a folder; both refuse the same (`check`) and pass the same suite
//! (`conformance`). Neither keeps anything between calls.

mod check;
#[cfg(test)]
mod conformance;
pub mod sim;
pub mod tgt;
