//! One request over tgtd's socket: connect, send, read, all under one deadline.
//!
//! Must never wait without a limit, read without a limit or put a payload into an error.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use super::wire::{self, BadReply, Code};

/// Pauses between tries while tgtd's queue of connections is full.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nobody listens: the socket is missing, or its owner is dead.
    #[error("nothing listens at {path}")]
    Absent {
        /// The socket.
        path: String,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// Closed without a word, by a process of another user or group.
    #[error(
        "it runs as uid {theirs} and gid {their_group}, bmid as uid {ours} and gid {our_group}: it answers its own alone"
    )]
    Stranger {
        /// tgtd's user.
        theirs: u32,
        /// tgtd's group.
        their_group: u32,
        /// Ours.
        ours: u32,
        /// Ours.
        our_group: u32,
    },
    /// Closed without a word: it died over it.
    #[error("it closed the connection without an answer")]
    Closed,
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    Slow(Duration),
    /// What came is not a reply.
    #[error("what came is not a reply of tgtd")]
    Garbage(#[source] BadReply),
    /// Something else.
    #[error("its socket failed")]
    Io(#[source] io::Error),
}

/// Sends a request and waits for its answer, for at most `limit` in all.
pub(super) fn ask(path: &Path, request: &[u8], limit: Duration) -> Result<(Code, String), NoAnswer> {
    let by = Deadline { end: Instant::now() + limit, limit };
    let mut stream = dial(path, &by)?;
    if let Err(e) = send(&mut stream, request, &by) {
        // tgtd answers some refusals before it has read everything: what it says counts more than the failed write.
        return match e {
            NoAnswer::Closed => receive(&mut stream, &by),
            other => Err(other),
        };
    }
    receive(&mut stream, &by)
}

struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    fn left(&self) -> Result<Duration, NoAnswer> {
        let left = self.end.saturating_duration_since(Instant::now());
        // A timeout of zero would mean none at all.
        if left.is_zero() { Err(NoAnswer::Slow(self.limit)) } else { Ok(left) }
    }
}

fn dial(path: &Path, by: &Deadline) -> Result<UnixStream, NoAnswer> {
    let absent = |e: Errno| NoAnswer::Absent {
        path: path.display().to_string(),
        source: io::Error::from_raw_os_error(e as i32),
    };
    let address = UnixAddr::new(path).map_err(absent)?;
    let mut pause = PAUSE.0;
    loop {
        // A connect that blocks has no time limit of its own, so this one does not block.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|e| NoAnswer::Io(e.into()))?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => {
                let stream = UnixStream::from(fd);
                stream.set_nonblocking(false).map_err(NoAnswer::Io)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN) => {
                std::thread::sleep(pause.min(by.left()?));
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(Errno::EINTR) => {}
            Err(e @ (Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR)) => return Err(absent(e)),
            Err(e) => return Err(NoAnswer::Io(e.into())),
        }
    }
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], by: &Deadline) -> Result<(), NoAnswer> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(by.left()?)).map_err(NoAnswer::Io)?;
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) => failed(e, by)?,
        }
    }
    Ok(())
}

fn receive(stream: &mut UnixStream, by: &Deadline) -> Result<(Code, String), NoAnswer> {
    let mut reply = Vec::new();
    let mut want = wire::REPLY_HEADER;
    let mut chunk = [0; 16 << 10];
    while reply.len() < want {
        stream.set_read_timeout(Some(by.left()?)).map_err(NoAnswer::Io)?;
        let room = chunk.len().min(want - reply.len());
        match stream.read(&mut chunk[..room]) {
            Ok(0) if reply.is_empty() => return Err(silence(stream)),
            Ok(0) => return Err(NoAnswer::Garbage(BadReply::Short(reply.len()))),
            // Grows with what comes, not with what the header promises.
            Ok(n) => reply.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::ConnectionReset && reply.is_empty() => return Err(silence(stream)),
            Err(e) => failed(e, by)?,
        }
        if reply.len() == wire::REPLY_HEADER {
            want += wire::decode_header(&reply).map_err(NoAnswer::Garbage)?.1;
        }
    }
    wire::decode(&reply).map_err(NoAnswer::Garbage)
}

fn failed(e: io::Error, by: &Deadline) -> Result<(), NoAnswer> {
    match e.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(NoAnswer::Slow(by.limit)),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(NoAnswer::Closed),
        _ => Err(NoAnswer::Io(e)),
    }
}

/// Closed without a word. Who listened tells why.
fn silence(stream: &UnixStream) -> NoAnswer {
    let (ours, our_group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    match getsockopt(stream, sockopt::PeerCredentials) {
        Ok(them) if (them.uid(), them.gid()) != (ours, our_group) => {
            NoAnswer::Stranger { theirs: them.uid(), their_group: them.gid(), ours, our_group }
        }
        _ => NoAnswer::Closed,
    }
}
