//! Reading from a client: the one place that reads its socket, always by recvmsg (a plain read silently drops descriptors).
//!
//! Keeps at most [`MAX_DESCRIPTORS`] descriptors of a connection and closes the rest at once. Decides nothing about frames:
//! it only says which descriptors came up to which byte.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bmi::protocol::MAX_DESCRIPTORS;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::unix::OwnedReadHalf;

use super::ffi;

/// The reading half of a client's connection.
pub(super) struct Receiver {
    half: OwnedReadHalf,
    received: u64,
    batches: Vec<Batch>,
    /// Descriptors of this connection in open requests.
    lent: Arc<AtomicUsize>,
}

/// Descriptors that came with one recvmsg. The kernel ends a recvmsg within the sendmsg that carried descriptors, and a
/// client sends a frame with descriptors by one sendmsg of its own; so they belong to the first frame that ends at or behind
/// `end`.
struct Batch {
    end: u64,
    kept: Vec<File>,
    closed: usize,
}

/// What came with a frame.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Its descriptors, in order.
    pub(super) files: Vec<File>,
    /// So many more were closed, because the connection has too many.
    pub(super) closed: usize,
}

impl Receiver {
    /// Reads from `half`; `lent` counts the descriptors that open requests of this connection hold.
    pub(super) fn new(half: OwnedReadHalf, lent: Arc<AtomicUsize>) -> Receiver {
        Receiver { half, received: 0, batches: Vec::new(), lent }
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the client is gone, asked without reading: for a client that is held up.
    pub(super) fn hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.half.as_ref().as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }

    /// The descriptors of the frame whose last byte is the `end`th of the connection.
    pub(super) fn passed(&mut self, end: u64) -> Passed {
        let mut passed = Passed::default();
        while self.batches.first().is_some_and(|b| b.end <= end) {
            let batch = self.batches.remove(0);
            passed.files.extend(batch.kept);
            passed.closed += batch.closed;
        }
        passed
    }

    fn keep(&mut self, fds: Vec<OwnedFd>) {
        if fds.is_empty() {
            return;
        }
        let held = self.lent.load(Ordering::SeqCst) + self.batches.iter().map(|b| b.kept.len()).sum::<usize>();
        let room = MAX_DESCRIPTORS.saturating_sub(held);
        let closed = fds.len().saturating_sub(room);
        // What goes beyond `room` is dropped here, and so closed.
        let kept: Vec<File> = fds.into_iter().take(room).map(File::from).collect();
        match self.batches.last_mut() {
            // Descriptors byte by byte must not grow this list.
            Some(last) if kept.is_empty() && last.kept.is_empty() => {
                last.end = self.received;
                last.closed += closed;
            }
            _ => self.batches.push(Batch { end: self.received, kept, closed }),
        }
    }
}

impl AsyncRead for Receiver {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let mut fds = Vec::new();
        loop {
            let stream = me.half.as_ref();
            ready!(stream.poll_read_ready(cx))?;
            let before = buf.filled().len();
            let got = stream.try_io(Interest::READABLE, || ffi::receive(stream.as_fd(), buf, &mut fds));
            match got {
                Ok(lost) => {
                    me.received += (buf.filled().len() - before) as u64;
                    if lost {
                        return Poll::Ready(Err(io::Error::other(
                            "descriptors were lost on the way: bmid has too many files open",
                        )));
                    }
                    me.keep(fds);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}
