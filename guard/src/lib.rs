//! A shared object that bmid has preloaded into the tgtd it starts.
//!
//! librbd ends the process on a read or a write of no bytes, which any machine may ask for; tgtd hands them on. Here they are
//! answered, and everything else goes to librbd. And of a disk that the kernel has mapped tgtd reads past the page cache, for which
//! some of its memory lies wrong: such a call is made again by way of memory that lies right. A connection that does not come from the
//! network itself is closed at the door. It must never do more: it runs in tgtd's threads.

pub mod door;
pub mod ffi;
