//! A daemon played by a test: one connection, a script of what is expected and what is answered.

use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use bmi::model::{Fault, Id};
use bmi::ops::{Reply, Request};
use bmi::protocol::{self, ClientFrame, Ended, Envelope, Hello, ServerFrame, Submit};
use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::ffi;

/// Longer than any test needs: a client that hangs fails its test instead of holding it for ever.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const OP: Id = Id([0xab; 16]);

/// The daemon's side of one connection.
pub(crate) struct Peer {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Peer {
    /// The next frame with the descriptors that came with it; none when the client has gone.
    pub(crate) fn next(&mut self) -> Option<(ClientFrame, Vec<OwnedFd>)> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<4>() {
                let end = 4 + u32::from_be_bytes(*head) as usize;
                if self.buffer.len() >= end {
                    let frame = protocol::decode(&self.buffer[4..end]).unwrap();
                    self.buffer.drain(..end);
                    return Some((frame, std::mem::take(&mut self.descriptors)));
                }
            }
            if !self.receive() {
                return None;
            }
        }
    }

    fn receive(&mut self) -> bool {
        let mut chunk = vec![0u8; 1 << 16];
        let mut space = cmsg_space!([i32; 8]);
        let (read, raw) = {
            let mut iov = [IoSliceMut::new(&mut chunk)];
            let got =
                recvmsg::<()>(self.stream.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
            let raw: Vec<i32> = got
                .cmsgs()
                .unwrap()
                .filter_map(|c| if let ControlMessageOwned::ScmRights(fds) = c { Some(fds) } else { None })
                .flatten()
                .collect();
            (got.bytes, raw)
        };
        self.descriptors.extend(raw.into_iter().map(ffi::own));
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }

    pub(crate) fn send(&mut self, frame: &ServerFrame) {
        let bytes = framed(frame);
        self.raw(&bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Whether the client is still there to take them.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Both hellos, as equals.
    pub(crate) fn hello(&mut self) {
        let (frame, _) = self.next().unwrap();
        assert_eq!(frame, ClientFrame::Hello(Hello::ours()));
        self.send(&ServerFrame::Hello(Hello::ours()));
    }

    /// Both hellos and the one request.
    pub(crate) fn submitted(&mut self) -> (Envelope, Request, Vec<OwnedFd>) {
        self.hello();
        match self.next() {
            Some((ClientFrame::Submit(Submit { id: 1, envelope, request }), fds)) => (envelope, request, fds),
            other => panic!("not a request: {other:?}"),
        }
    }

    pub(crate) fn item(&mut self, item: Reply) {
        self.send(&ServerFrame::Item { id: 1, item });
    }

    pub(crate) fn end(&mut self, changed: bool) {
        self.send(&ServerFrame::End { id: 1, end: Ok(Ended { op_id: Some(OP), changed, running: false }) });
    }

    pub(crate) fn fail(&mut self, fault: Fault) {
        self.send(&ServerFrame::End { id: 1, end: Err(fault) });
    }
}

pub(crate) fn framed(frame: &ServerFrame) -> Vec<u8> {
    let body = protocol::encode(frame).unwrap();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// The daemon, waiting for its one connection.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn new(script: impl FnOnce(Peer) + Send + 'static) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, u16::try_from(PATIENCE.as_millis()).unwrap_or(u16::MAX)).unwrap();
            assert_eq!(ready, 1, "nobody connected");
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            script(Peer { stream, buffer: Vec::new(), descriptors: Vec::new() });
        });
        Fake { folder, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// bmictl, told where this daemon is.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bmictl(args);
        command.env("BMI_SOCKET", self.socket());
        command
    }

    /// Runs bmictl to its end and checks that the script came to its end too.
    pub(crate) fn run(self, args: &[&str]) -> Ran {
        let child = self.command(args).spawn().unwrap();
        self.finish(child)
    }

    pub(crate) fn finish(mut self, child: Child) -> Ran {
        let output = child.wait_with_output().unwrap();
        let ran = Ran::of(output);
        if let Err(panic) = self.thread.take().unwrap().join() {
            eprintln!("bmictl said: {ran:?}");
            std::panic::resume_unwind(panic);
        }
        ran
    }
}

/// bmictl in an environment of its own.
pub(crate) fn bmictl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmictl"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Any error's JSON: the last line.
pub(crate) fn last_json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {text}"))
}
