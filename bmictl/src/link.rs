//! The connection to the daemon: frames out with their descriptors, frames in, under a deadline.
//!
//! It knows frames, not operations. It must never wait longer than it was told to, nor past a rung bell.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bmi::model::{Fault, Kind};
use bmi::protocol::{self, ClientFrame, Hello, MAGIC, MAX_FRAME, NO_REQUEST, PROTOCOL, ServerFrame};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Gid, Group, Uid, User};
use serde::Deserialize;

use crate::bell::Bell;

/// How long a daemon may take to say hello, or to take a frame.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to look for a reason when the daemon takes nothing more.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often a connection that was closed without a hello is made again, and after what pause.
const CLOSED: u32 = 2;
const PAUSE: Duration = Duration::from_millis(100);

/// A connection on which both have said hello.
pub(crate) struct Link {
    stream: UnixStream,
    socket: PathBuf,
    /// Bytes received and not yet a whole frame.
    buffer: Vec<u8>,
    peer: Hello,
}

/// What waiting for a frame came to.
pub(crate) enum Got {
    /// A frame.
    Frame(Box<ServerFrame>),
    /// The daemon closed the connection.
    Closed,
    /// The bell rang.
    Rung,
    /// The deadline has passed.
    Late,
}

impl Link {
    /// Connects and says hello. Nothing is asked before that, so a daemon that closes instead is tried again: where systemd holds the
    /// socket, one that stops may still take a connection meant for the next.
    pub(crate) fn open(socket: &Path) -> Result<Link, Fault> {
        for _ in 0..CLOSED {
            match Link::greet(socket)? {
                Some(link) => return Ok(link),
                None => std::thread::sleep(PAUSE),
            }
        }
        Link::greet(socket)?.ok_or_else(|| {
            Fault::new(Kind::NoDaemon, "it closed the connection before saying hello")
                .trying(format!("talk to bmid at {}", socket.display()))
                .fix("its log says why: `journalctl -u bmid -n 50`")
        })
    }

    /// One try; none where it was closed without a hello.
    fn greet(socket: &Path) -> Result<Option<Link>, Fault> {
        let stream = UnixStream::connect(socket).map_err(|e| no_daemon(socket, &e))?;
        let failed = |e: io::Error| broken(socket, &e);
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let nobody = Hello { magic: [0; 4], protocol: 0, release: String::new() };
        let mut link = Link { stream, socket: socket.to_owned(), buffer: Vec::new(), peer: nobody };
        if let Err(e) = link.push(&ClientFrame::Hello(Hello::ours()), &[])? {
            return match link.last_words() {
                Some(fault) => Err(fault),
                None if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(None),
                None => Err(failed(e)),
            };
        }
        link.peer = match link.next(Some(Instant::now() + PATIENCE), None)? {
            Got::Frame(frame) => match *frame {
                ServerFrame::Hello(hello) if hello.magic == MAGIC => hello,
                _ => return Err(not_bmid(socket)),
            },
            Got::Closed => return Ok(None),
            Got::Late | Got::Rung => {
                return Err(Fault::new(Kind::NoDaemon, format!("it does not answer within {} s", PATIENCE.as_secs()))
                    .trying(format!("talk to bmid at {}", socket.display()))
                    .fix("see whether it hangs: `systemctl status bmid`, `journalctl -u bmid -n 50`"));
            }
        };
        Ok(Some(link))
    }

    /// Refuses a daemon that speaks another protocol; raw calls need no equal one.
    pub(crate) fn same_protocol(&self) -> Result<(), Fault> {
        let (theirs, ours) = (&self.peer, Hello::ours());
        if theirs.protocol == PROTOCOL {
            return Ok(());
        }
        let fix = if theirs.protocol < PROTOCOL {
            format!(
                "restart bmid in release {} (`systemctl restart bmid`; running nodes keep their disks)",
                ours.release
            )
        } else {
            format!("use the bmictl of release {}, or call raw: `bmictl call`", theirs.release)
        };
        let why = format!(
            "bmid {} speaks protocol {}, this bmictl {} speaks {PROTOCOL}",
            theirs.release, theirs.protocol, ours.release
        );
        Err(Fault::new(Kind::Protocol, why).trying(format!("talk to bmid at {}", self.socket.display())).fix(fix))
    }

    /// Whether the daemon knows exactly the operations that this bmictl knows.
    pub(crate) fn same_release(&self) -> bool {
        self.peer.protocol == PROTOCOL && self.peer.release == Hello::ours().release
    }

    /// Sends a frame; its descriptors go with its first byte.
    pub(crate) fn send(&mut self, frame: &ClientFrame, descriptors: &[OwnedFd]) -> Result<(), Fault> {
        self.push(frame, descriptors)?.map_err(|e| self.last_words().unwrap_or_else(|| broken(&self.socket, &e)))
    }

    /// The same, with the connection's failure as it is.
    fn push(&mut self, frame: &ClientFrame, descriptors: &[OwnedFd]) -> Result<io::Result<()>, Fault> {
        let body = protocol::encode(frame)?;
        let mut bytes = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        let sent = if descriptors.is_empty() { Ok(0) } else { self.send_first(&bytes, descriptors) };
        Ok(sent.and_then(|sent| self.stream.write_all(&bytes[sent..])))
    }

    /// Why the daemon takes nothing more: it says so, if it can, behind what it has sent before.
    fn last_words(&mut self) -> Option<Fault> {
        let until = Instant::now() + LAST_WORDS;
        loop {
            match self.next(Some(until), None) {
                Err(fault) => return Some(fault),
                Ok(Got::Frame(_)) => {}
                Ok(_) => return None,
            }
        }
    }

    /// As many bytes as one message takes, with the descriptors.
    fn send_first(&self, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        loop {
            let sent =
                sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None);
            match sent {
                Err(Errno::EINTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }

    /// The next frame, if it comes before the deadline and before the bell rings.
    pub(crate) fn next(&mut self, until: Option<Instant>, bell: Option<&Bell>) -> Result<Got, Fault> {
        loop {
            match self.whole()? {
                Some(ServerFrame::CallEnd { id: NO_REQUEST, error }) => {
                    return Err(refused(&self.socket, &error.unwrap_or_default()));
                }
                Some(frame) => return Ok(Got::Frame(Box::new(frame))),
                None => {}
            }
            match self.wait(until, bell)? {
                Ready::Bytes => {}
                Ready::Bell => return Ok(Got::Rung),
                Ready::Late => return Ok(Got::Late),
            }
            let mut chunk = [0u8; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Got::Closed),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The daemon went away without reading all that was sent.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Got::Closed),
                Err(e) => return Err(broken(&self.socket, &e)),
            }
        }
    }

    /// Takes the first frame out of the buffer, if all of it is there.
    fn whole(&mut self) -> Result<Option<ServerFrame>, Fault> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(not_bmid(&self.socket));
        }
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let frame = protocol::decode(body).map_err(|f| f.trying("read bmid's answer"))?;
        self.buffer.drain(..4 + length);
        Ok(Some(frame))
    }

    fn wait(&self, until: Option<Instant>, bell: Option<&Bell>) -> Result<Ready, Fault> {
        loop {
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Ready::Late);
            }
            // Rounded up: a wait of less than a millisecond must not become a busy loop.
            let limit = left.map_or(PollTimeout::NONE, |l| {
                PollTimeout::try_from(l + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            fds.extend(bell.map(|b| PollFd::new(b.fd(), PollFlags::POLLIN)));
            match poll(&mut fds, limit) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if fds.get(1).is_some_and(rang) => return Ok(Ready::Bell),
                Ok(_) => return Ok(Ready::Bytes),
                Err(e) => return Err(broken(&self.socket, &e.into())),
            }
        }
    }
}

fn rang(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(false)
}

enum Ready {
    Bytes,
    Bell,
    Late,
}

/// Who may connect, and who asks.
fn let_in(socket: &Path) -> String {
    let uid = Uid::effective();
    let me = User::from_uid(uid).ok().flatten().map(|u| u.name);
    let who = me.clone().map_or(format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
    let user = me.unwrap_or_else(|| "USER".to_owned());
    let group = match std::fs::metadata(socket).map(|m| Gid::from_raw(m.gid())) {
        Ok(gid) if gid.as_raw() == 0 => {
            return format!(
                "you are {who}, and the socket is root's alone: there was no group bmi when it was made; `groupadd --system bmi`, \
                 `usermod -aG bmi {user}`, restart bmid, log in again"
            );
        }
        Ok(gid) => Group::from_gid(gid).ok().flatten().map_or(gid.to_string(), |g| g.name),
        // Its folder is closed to us.
        Err(_) => "bmi".to_owned(),
    };
    format!("you are {who}; root and members of group {group} may: `usermod -aG {group} {user}`, then log in again")
}

fn no_daemon(socket: &Path, error: &io::Error) -> Fault {
    let (kind, fix) = match error.kind() {
        io::ErrorKind::PermissionDenied => (Kind::Forbidden, let_in(socket)),
        io::ErrorKind::NotFound => (
            Kind::NoDaemon,
            "see whether bmid runs: `systemctl status bmid`; --socket or BMI_SOCKET name another socket".to_owned(),
        ),
        io::ErrorKind::InvalidInput => (Kind::Invalid, "a socket's path has at most 107 bytes".to_owned()),
        _ => (Kind::NoDaemon, "see whether bmid runs: `systemctl status bmid`, `journalctl -u bmid -n 50`".to_owned()),
    };
    Fault::new(kind, error.to_string()).trying(format!("talk to bmid at {}", socket.display())).fix(fix)
}

/// The daemon ends the connection and says why.
fn refused(socket: &Path, error: &str) -> Fault {
    #[derive(Deserialize)]
    struct Told {
        data: Fault,
    }
    let tried = format!("talk to bmid at {}", socket.display());
    match serde_json::from_str::<Told>(error) {
        Ok(told) => told.data.trying(tried),
        Err(_) => Fault::new(Kind::Protocol, "bmid ended the connection").trying(tried).because(error.to_owned()),
    }
}

fn broken(socket: &Path, error: &io::Error) -> Fault {
    let kind = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Kind::Timeout,
        _ => Kind::Unavailable,
    };
    Fault::new(kind, error.to_string())
        .trying(format!("talk to bmid at {}", socket.display()))
        .fix("see whether it runs: `systemctl status bmid`, `journalctl -u bmid -n 50`")
}

fn not_bmid(socket: &Path) -> Fault {
    Fault::new(Kind::Protocol, "what answers there is not bmid")
        .trying(format!("talk to bmid at {}", socket.display()))
        .fix("check --socket and BMI_SOCKET")
}
