//! What bmid and bmictl share: the records, the outside effects as data, the rules, the operations and the protocol.
//!
//! This crate decides; it never acts. It must not open a file, a socket or a clock: everything it needs to know comes in as
//! an argument, so that every decision can be tested without a machine.
//!
//! Rooms, each of which may use only those before it: `model`, `step`, `rules`, `ops`, `protocol`.

pub mod model;
pub mod ops;
pub mod protocol;
pub mod rules;
pub mod step;
