//! Submit, drive, recover, reconcile: the only place that knows both the store and the drivers.
//!
//! The way of an operation: right, look, plan, intent durable, steps, rows and end of intent durable, answer. Nothing
//! outside changes before its intent is durable; nothing is answered before its rows are.

pub mod call;

pub use call::{Cancel, Out, Submission};

use bmi::ops::{Defaults, Request};
use std::sync::Arc;

/// The running engine.
pub struct Engine {
    defaults: Defaults,
}

impl Engine {
    /// Takes a request in. The answer goes to its `out`; the switch ends it.
    pub fn submit(self: &Arc<Engine>, call: Submission) -> Cancel {
        let _ = (&self.defaults, Request::sheet(&call.request));
        Cancel::default()
    }
}
