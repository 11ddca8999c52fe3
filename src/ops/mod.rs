//! The operations: a folder a noun, a file an operation, one table that lists them.
//!
//! Adding one touches its own file and one line of the table below. From the table follow the wire's closed enums, the
//! daemon's dispatch, bmictl's commands, help, completion and man pages, the rights matrix and the kill test.

pub mod args;
mod doing;
pub mod fields;
pub mod op;
pub mod plan;
pub mod table;

pub mod datastore;
pub mod event;
pub mod host;
pub mod image;
pub mod network;
pub mod node;
mod notes;
pub mod operation;
pub mod state;
pub mod tag;
pub mod target;
pub mod vlan;
pub mod volume;

pub use crate::rules::{Defaults, Right};
pub use args::{Resolve, Source};
pub use op::{Answering, Asking, Effect, Gone, Op, Shape, Sheet};
pub use plan::{Cx, Facts, PartPlan, Plan};
pub use table::{Bare, OPS, Reply, Request};
