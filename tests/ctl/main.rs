//! bmictl as a program, against a daemon that these tests play: real sockets, real descriptors, real exit codes.
//!
//! What the real daemon answers is proven by the flow tests; here each answer is made up to show what the client does with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod calls;
mod fake;
mod ffi;
mod files;
mod links;
mod shell;
mod terminal;
