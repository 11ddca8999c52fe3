//! The daemon as a library that tests can start.
//!
//! Rooms and who may use whom: `store` and `drivers` know only the crate `bmi`; `run` is the only place that knows both;
//! `listen` knows `run`; `http` is a process of its own that reads what a driver laid out; `daemon` starts everything in order.

pub mod daemon;
pub mod drivers;
pub mod http;
pub mod listen;
pub mod run;
pub mod store;
