//! Bytes on datastores: the drivers, their simulator, and the parser of foreign disk images that they share.
//!
//! Nothing here decides which bytes may be used by whom; a step names them.

pub mod file;
pub mod places;
pub mod probe;
pub mod rbd;
pub mod sim;
mod stream;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) use conformance::store_note;
