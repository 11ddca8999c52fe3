//! Frames out of a client's bytes: length first, 1 MiB at most, never half a frame for long.
//!
//! Knows bytes and deadlines, nothing of what is in a frame.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bmi::model::{Fault, Kind};
use bmi::protocol::MAX_FRAME;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use super::recv::{Passed, Receiver};

/// What a quiet connection holds ready for its next frame.
const READY: usize = 1 << 10;

/// A frame from so many bytes on takes its room from what all connections share.
const LARGE: usize = 16 << 10;

/// 4 bytes big-endian length, at most [`MAX_FRAME`] behind it.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(4).big_endian().max_frame_length(MAX_FRAME).new_codec()
}

/// Reads frames.
pub(super) struct Frames {
    from: Receiver,
    codec: LengthDelimitedCodec,
    buf: BytesMut,
    /// Bytes of the connection that went into whole frames.
    taken: u64,
    /// How long a frame may take from its first byte to its last.
    patience: Duration,
    /// Memory that all connections share, in KiB.
    shared: Arc<Semaphore>,
    /// The part of it for the large frame that is on its way in.
    held: Option<OwnedSemaphorePermit>,
}

impl Frames {
    /// Reads frames from `from`.
    pub(super) fn new(from: Receiver, patience: Duration, shared: Arc<Semaphore>) -> Frames {
        Frames { from, codec: codec(), buf: BytesMut::new(), taken: 0, patience, shared, held: None }
    }

    /// Whether the client is gone, asked without reading.
    pub(super) fn hung_up(&self) -> bool {
        self.from.hung_up()
    }

    /// The next frame with its descriptors; none when the client has closed. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<(BytesMut, Passed)>, Fault> {
        let mut deadline = None;
        loop {
            self.make_room().await;
            if let Some(frame) = self.codec.decode(&mut self.buf).map_err(not_a_frame)? {
                self.taken += 4 + frame.len() as u64;
                self.held = None;
                let passed = self.from.passed(self.taken);
                return Ok(Some((frame, passed)));
            }
            let half = self.from.received() > self.taken;
            self.buf.reserve(READY);
            let read = self.from.read_buf(&mut self.buf);
            let n = if half {
                let until = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
                timeout_at(until, read).await.map_err(|_| self.silent())?
            } else {
                read.await
            };
            match n {
                Ok(0) if half => {
                    return Err(Fault::new(Kind::Protocol, "the connection ended in the middle of a frame"));
                }
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(Fault::new(Kind::Outside, e.to_string()).trying("read from the client")),
            }
        }
    }

    /// Waits for memory if a large frame begins. Those who have some give it back within their patience.
    async fn make_room(&mut self) {
        // The length is still there only as long as all that was received is.
        let head = self.buf.first_chunk::<4>().filter(|_| self.from.received() - self.taken == self.buf.len() as u64);
        let Some(length) = head.map(|h| u32::from_be_bytes(*h) as usize) else { return };
        if self.held.is_none() && (LARGE..=MAX_FRAME).contains(&length) {
            let kib = u32::try_from(length.div_ceil(1 << 10)).unwrap_or(u32::MAX);
            self.held = Arc::clone(&self.shared).acquire_many_owned(kib).await.ok();
        }
    }

    fn silent(&self) -> Fault {
        Fault::new(Kind::Timeout, format!("half a frame, and no more within {} seconds", self.patience.as_secs()))
            .trying("read from the client")
            .fix("send frames whole; connect again")
    }
}

fn not_a_frame(e: io::Error) -> Fault {
    Fault::new(Kind::Protocol, format!("these bytes begin no frame of at most {MAX_FRAME} bytes"))
        .because(e.to_string())
        .fix("talk to this socket with bmictl")
}
