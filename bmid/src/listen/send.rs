//! Writing to a client: one task a connection, fed by a short queue, so that a slow reader holds only its own answers up.
//!
//! A client that takes nothing for too long loses its connection; nothing is ever dropped from the middle of an answer.

use std::sync::Arc;
use std::time::Duration;

use bmi::model::Fault;
use bmi::protocol::encode;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Encoder;

use super::frames::codec;
use crate::run::Cancel;

/// Bytes that wait for a slow reader, and about so many are written at once.
const TOGETHER: u32 = 256 << 10;
/// What a frame takes of them beside its own bytes: the smallest are bounded, too.
const EACH: u32 = 64;

/// Where frames to the client go.
#[derive(Clone)]
pub(super) struct Sender {
    room: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Closed;

impl Sender {
    /// Queues a frame; waits while the client is slow. The inner error: it is too large to be a frame.
    pub(super) async fn send<T: Serialize>(&self, frame: &T) -> Result<Result<(), Fault>, Closed> {
        let bytes = match encode(frame) {
            Ok(bytes) => Bytes::from(bytes),
            Err(fault) => return Ok(Err(fault)),
        };
        // One that is larger than all of it waits until it is alone. Room is given back by the writer, also when that ends.
        let takes = u32::try_from(bytes.len()).unwrap_or(TOGETHER).saturating_add(EACH).min(TOGETHER);
        let taken = Arc::clone(&self.room).acquire_many_owned(takes).await.map_err(|_| Closed)?;
        self.queue.send((bytes, taken)).map(Ok).map_err(|_| Closed)
    }
}

/// A sender, and the future that writes until every clone of it is gone. Turns `gone` when the client can't be written to.
pub(super) fn writer(
    mut half: OwnedWriteHalf,
    patience: Duration,
    gone: Cancel,
) -> (Sender, impl Future<Output = ()> + Send + 'static) {
    let (queue, mut frames) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
    let write = async move {
        while let Some(frame) = frames.recv().await {
            let mut codec = codec();
            let mut buf = BytesMut::new();
            let mut next = Some(frame);
            while let Some((frame, _taken)) = next {
                if codec.encode(frame, &mut buf).is_err() {
                    break; // Cannot be: frames are encoded under the same limit.
                }
                next = if buf.len() < TOGETHER as usize { frames.try_recv().ok() } else { None };
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
    (Sender { room: Arc::new(Semaphore::new(TOGETHER as usize)), queue }, write)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream as Plain;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use tokio::net::UnixStream;
    use tokio::task::unconstrained;

    use super::*;

    /// Whether a future is done when it is asked once.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(unconstrained(future)).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_bytes_and_written_at_once() {
        // This kind of socket tells one write from the next.
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
        let stream = UnixStream::from_std(Plain::from(ours)).unwrap();
        let (_read, half) = stream.into_split();
        let (to, write) = writer(half, Duration::from_secs(60), Cancel::default());
        for n in 0..500_u32 {
            assert!(at_once(to.send(&n)).is_some_and(|s| s.is_ok()), "small frames do not wait for one another: {n}");
        }
        // On this runtime it goes on only while this test waits.
        tokio::spawn(write);
        let mut bytes = vec![0; 1 << 20];
        let one = loop {
            match recv(theirs.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => tokio::task::yield_now().await,
                done => break done.unwrap(),
            }
        };
        assert!(one >= 500 * 5, "all of them in one write: {one}");
        let large = "x".repeat(10_000);
        let fit = (0..1_000).take_while(|_| at_once(to.send(&large)).is_some()).count();
        assert!((20..=26).contains(&fit), "and 256 KiB of others: {fit}");
        let huge = "x".repeat(1 << 19);
        let mut waits = pin!(to.send(&huge));
        assert!(at_once(waits.as_mut()).is_none());
    }
}
