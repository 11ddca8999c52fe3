//! A shared object that bmid has preloaded into the tgtd it starts.
//!
//! librbd ends the process on a read or a write of no bytes, which any machine may ask for; tgtd hands them on. Here they are
//! answered, and everything else goes to librbd. It must never do more: it runs in tgtd's I/O threads.

pub mod ffi;
