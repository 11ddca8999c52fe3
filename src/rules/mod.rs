//! Shared pure decisions: what the operations, the store and the client must decide alike. No I/O.

pub mod usage;
