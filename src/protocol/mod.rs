//! What crosses the socket: length-delimited frames (4 bytes big-endian length, at most 1 MiB), bincode inside.
//!
//! Hello and [`Call`] have frozen bytes for ever, so that any release can tell any other what is wrong; all other frames
//! need equal protocol numbers. Only plain structs and externally tagged enums may be sent (bincode misreads the rest).
//!
//! Rules of a connection, for writers of clients:
//! - The client sends its hello first. The daemon's comes first from the other side, whatever the client sent.
//! - Requests are numbered by the client from 1 on; a number is free again once its end was read. Number 0 in
//!   [`ServerFrame::CallEnd`] means the connection itself: it says why the daemon closes it.
//! - A frame with descriptors is sent by one sendmsg of its own that begins at the first byte of its length.
//! - A raw call's answer is one [`ServerFrame::Json`] an item, then its end. Whether the items are to be shown as an array or
//!   as the one object they are follows from the request: [`Request::many`].
//! - The error text of a call is `{"code", "message", "data": {"kind", "class", "tried", "why", "fix", "causes"}}`: `code` is
//!   the exit code of the class, and `data` reads as a [`Fault`].

use bincode::Options;
use serde::{Deserialize, Serialize};

use crate::model::{Fault, Id, Kind, Owner};
use crate::ops::{Reply, Request};

/// Largest frame, without its length.
pub const MAX_FRAME: usize = 1 << 20;
/// Raised with every change of a frame other than hello and call.
pub const PROTOCOL: u32 = 1;
/// The first bytes of every hello.
pub const MAGIC: [u8; 4] = *b"bmi\n";
/// Most descriptors in the open requests of one connection.
pub const MAX_DESCRIPTORS: usize = 4;
/// No request has this number: an end with it is the connection's.
pub const NO_REQUEST: u64 = 0;

/// The first frame each way. Frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Release of the sender, for people.
    pub release: String,
}

impl Hello {
    /// This side's hello.
    #[must_use]
    pub fn ours() -> Hello {
        Hello { magic: MAGIC, protocol: PROTOCOL, release: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// A raw call: JSON in, JSON out. Frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The client's number for it, unique on its connection while open.
    pub id: u64,
    /// As in `Sheet::method`.
    pub method: String,
    /// JSON text: an object.
    pub params: String,
    /// The client's operation id.
    pub op_id: Option<Id>,
}

/// What goes with a request whatever it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The client's operation id: a repeat gets the same answer.
    pub op_id: Option<Id>,
    /// For which project (admins only, unless the caller's own).
    pub project: Option<Owner>,
    /// Only say what would change.
    pub check: bool,
    /// Answer as soon as the intent is durable.
    pub no_wait: bool,
    /// Wait at most this long, in milliseconds; the operation goes on.
    pub timeout_ms: Option<u64>,
    /// Send progress frames.
    pub progress: bool,
    /// End the operation if this connection ends.
    pub cancel_on_close: bool,
}

/// A typed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// The client's number for it, unique on its connection while open.
    pub id: u64,
    /// What goes with it.
    pub envelope: Envelope,
    /// What is asked.
    pub request: Request,
}

/// Client to daemon. The first two positions are frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// First frame.
    Hello(Hello),
    /// A raw call.
    Call(Call),
    /// A typed request.
    Submit(Submit),
    /// End the operation behind this request of the same connection.
    Cancel(u64),
}

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The operation.
    pub op_id: Id,
    /// What is being done, for people.
    pub what: String,
    /// Bytes or steps done.
    pub done: u64,
    /// Bytes or steps in all, if known.
    pub total: Option<u64>,
    /// The numbers are bytes, not steps.
    pub bytes: bool,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The operation, if there was one.
    pub op_id: Option<Id>,
    /// Something was changed; with `check`: would be.
    pub changed: bool,
    /// It still runs (`no_wait`).
    pub running: bool,
}

/// Daemon to client: any number of items and progress, one end. The first three positions are frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// First frame.
    Hello(Hello),
    /// An item of a raw call's answer, as JSON.
    Json {
        /// Of which call.
        id: u64,
        /// JSON text.
        text: String,
    },
    /// A raw call has ended.
    CallEnd {
        /// Which call.
        id: u64,
        /// None: done. Else JSON text of `{"code", "message", "data": {…}}`.
        error: Option<String>,
    },
    /// An item of a typed request's answer.
    Item {
        /// Of which request.
        id: u64,
        /// The item.
        item: Reply,
    },
    /// Progress of a typed request.
    Progress {
        /// Of which request.
        id: u64,
        /// How far.
        progress: Progress,
    },
    /// A watch was too slow; so many items are missing.
    Gap {
        /// Of which request.
        id: u64,
        /// How many.
        missed: u64,
    },
    /// A typed request has ended.
    End {
        /// Which request.
        id: u64,
        /// How.
        end: Result<Ended, Fault>,
    },
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_FRAME as u64).reject_trailing_bytes()
}

/// A frame's bytes, without the length. Fails only when it is larger than [`MAX_FRAME`].
pub fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, Fault> {
    options()
        .serialize(frame)
        .map_err(|e| Fault::new(Kind::Limit, format!("a frame does not fit {MAX_FRAME} bytes")).because(e.to_string()))
}

/// A frame out of its bytes: nothing left over, nothing larger than allowed.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    if bytes.len() > MAX_FRAME {
        return Err(Fault::new(Kind::Protocol, format!("a frame of {} bytes is larger than {MAX_FRAME}", bytes.len())));
    }
    options().deserialize(bytes).map_err(|e| {
        Fault::new(Kind::Protocol, "these bytes are no frame of this protocol")
            .because(e.to_string())
            .fix("restart bmid and bmictl in the same release")
    })
}

#[cfg(test)]
mod tests;
