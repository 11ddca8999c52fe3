//! Writing to a client: one task a connection, fed by a short queue, so that a slow reader holds only its own answers up.
//!
//! A client that takes nothing for too long loses its connection; nothing is ever dropped from the middle of an answer.

use std::time::Duration;

use bmi::model::Fault;
use bmi::protocol::encode;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Encoder;

use super::frames::codec;
use crate::run::Cancel;

/// Frames that wait for a slow reader.
const WAITING: usize = 8;
/// Small frames are written together up to about so many bytes.
const TOGETHER: usize = 64 << 10;

/// Where frames to the client go.
#[derive(Clone)]
pub(super) struct Sender(mpsc::Sender<Bytes>);

/// The connection is over.
#[derive(Debug)]
pub(super) struct Closed;

impl Sender {
    /// Queues a frame; waits while the client is slow. The inner error: it is too large to be a frame.
    pub(super) async fn send<T: Serialize>(&self, frame: &T) -> Result<Result<(), Fault>, Closed> {
        match encode(frame) {
            Ok(bytes) => self.0.send(bytes.into()).await.map(Ok).map_err(|_| Closed),
            Err(fault) => Ok(Err(fault)),
        }
    }
}

/// A sender, and the future that writes until every clone of it is gone. Turns `gone` when the client can't be written to.
pub(super) fn writer(
    mut half: OwnedWriteHalf,
    patience: Duration,
    gone: Cancel,
) -> (Sender, impl Future<Output = ()> + Send + 'static) {
    let (queue, mut frames) = mpsc::channel::<Bytes>(WAITING);
    let write = async move {
        while let Some(frame) = frames.recv().await {
            let mut codec = codec();
            let mut buf = BytesMut::new();
            let mut next = Some(frame);
            while let Some(frame) = next {
                if codec.encode(frame, &mut buf).is_err() {
                    break; // Cannot be: frames are encoded under the same limit.
                }
                next = if buf.len() < TOGETHER { frames.try_recv().ok() } else { None };
            }
            while buf.has_remaining() {
                match timeout(patience, half.write_buf(&mut buf)).await {
                    Ok(Ok(n)) if n > 0 => {}
                    Ok(_) => return gone.cancel(),
                    Err(_) => {
                        tracing::info!("a client took nothing of its answers for too long: its connection is closed");
                        return gone.cancel();
                    }
                }
            }
        }
    };
    (Sender(queue), write)
}
