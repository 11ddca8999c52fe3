//! A shared object that bmid has preloaded into the tgtd it starts. It stands between tgtd's rbd module and Ceph's libraries and puts
//! right what the module gets wrong; everything else goes through as it is.
//!
//! - librbd ends the process on a read or a write of no bytes, which any machine may ask for. They are answered here.
//! - The module takes librbd's word for a discard that was done (how many bytes) for an error. Here that word is 0.
//! - The module makes a connection for every LUN: 15 threads, 12 files and 10 ms in tgtd's loop. Here LUNs of one user and one
//!   configuration share one.
//! - The module opens a disk in tgtd's loop, where all its I/O waits. Here it is opened by the thread that serves it, when it is first asked.
//! - A process that Ceph has shut out ends, instead of failing every disk for good.
//! - Of a disk that the kernel has mapped tgtd reads past the page cache, for which some of its memory lies wrong. Such a call is made again by
//!   way of memory that lies right.
//! - A block that a machine has written many times (WRITE SAME) is written with all of them at once, not in as many questions to Ceph ([`asked`]).
//! - A command over whose answer tgtd falls is made one that it stands.
//! - A connection that does not come from the network itself is closed at the door.
//! - A machine that leaves iSCSI's protocol where tgtd takes its word for where data goes is cut off ([`talk`]).
//! - What a machine does not take in time is kept, where tgtd would wait for it and do nothing else ([`out`]).
//!
//! Into dnsmasq it is preloaded, too: news of other networks' addresses is kept from that ([`news`]).
//!
//! It must never do more: it runs in tgtd's loop and in its I/O threads. Unsafe code stands in files named `ffi` alone.

pub mod asked;
pub mod ceph;
pub mod door;
pub mod ffi;
pub mod news;
pub mod out;
pub mod talk;
