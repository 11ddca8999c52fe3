//! The real socket against everything a client may do to it, with a made-up service behind it. Nothing here touches the host.

mod client;
mod descriptors;
mod fake;
mod garbage;
mod many;
mod place;
mod requests;
mod versions;
