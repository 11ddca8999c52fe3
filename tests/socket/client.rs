//! A client by hand: every byte it sends is chosen by the test.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bmi::model::Fault;
use bmi::ops::datastore::remove::DatastoreRm;
use bmi::ops::{Gone, Reply, Request};
use bmi::protocol::{Call, ClientFrame, Ended, Envelope, Hello, ServerFrame, Submit, decode, encode};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// An answer's item: anything with a text in it.
pub(crate) fn item(text: impl Into<String>) -> Reply {
    Reply::DatastoreRm(Gone { id: None, name: text.into() })
}

/// The text of an item made by [`item`].
pub(crate) fn text(reply: &Reply) -> &str {
    match reply {
        Reply::DatastoreRm(gone) => &gone.name,
        other => panic!("not of the fake service: {other:?}"),
    }
}

/// A connection.
pub(crate) struct Client {
    /// The socket itself.
    pub(crate) stream: UnixStream,
}

/// A frame with its length in front.
pub(crate) fn framed(frame: &ClientFrame) -> Vec<u8> {
    let body = encode(frame).expect("fits");
    let mut bytes = u32::try_from(body.len()).expect("fits").to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// A request whose name says what the fake service does.
pub(crate) fn ask(id: u64, what: &str) -> ClientFrame {
    ask_with(id, what, Envelope::default())
}

/// The same with an envelope.
pub(crate) fn ask_with(id: u64, what: &str, envelope: Envelope) -> ClientFrame {
    let request = Request::DatastoreRm(DatastoreRm { datastore: what.parse().expect("a name") });
    ClientFrame::Submit(Submit { id, envelope, request })
}

/// A raw call.
pub(crate) fn call(id: u64, method: &str, params: &str) -> ClientFrame {
    ClientFrame::Call(Call { id, method: method.into(), params: params.into(), op_id: None })
}

impl Client {
    /// Connected, nothing said.
    pub(crate) fn silent(path: &Path) -> Client {
        let stream = UnixStream::connect(path).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        Client { stream }
    }

    /// Connected and greeted.
    pub(crate) fn new(path: &Path) -> Client {
        let mut client = Client::silent(path);
        client.send(&ClientFrame::Hello(Hello::ours()));
        assert_eq!(client.next(), Some(ServerFrame::Hello(Hello::ours())));
        client
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &ClientFrame) {
        self.stream.write_all(&framed(frame)).expect("sent");
    }

    /// Sends bytes; a connection closed meanwhile is no failure of the test.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a frame with descriptors, by one sendmsg.
    pub(crate) fn send_with(&self, frame: &ClientFrame, fds: &[RawFd]) {
        let bytes = framed(frame);
        let rights = [ControlMessage::ScmRights(fds)];
        let n = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None);
        assert_eq!(n, Ok(bytes.len()));
    }

    /// The next frame; none if the connection was closed.
    pub(crate) fn next(&mut self) -> Option<ServerFrame> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in 30 s"),
            Err(_) => return None,
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("a whole frame");
        Some(decode(&body).expect("a frame of this protocol"))
    }

    /// The answer of request `id`: the texts of its items, and its end. No other frames may come.
    pub(crate) fn answer(&mut self, id: u64) -> (Vec<String>, Result<Ended, Fault>) {
        let mut items = Vec::new();
        loop {
            match self.next() {
                Some(ServerFrame::Item { id: of, item }) if of == id => items.push(text(&item).to_owned()),
                Some(ServerFrame::End { id: of, end }) if of == id => return (items, end),
                other => panic!("not of request {id}: {other:?}"),
            }
        }
    }

    /// Asks and reads the answer.
    pub(crate) fn get(&mut self, id: u64, what: &str) -> (Vec<String>, Result<Ended, Fault>) {
        self.send(&ask(id, what));
        self.answer(id)
    }

    /// The answer of raw call `id`: its items and its error.
    pub(crate) fn called(&mut self, id: u64) -> (Vec<String>, Option<Fault>) {
        let mut items = Vec::new();
        loop {
            match self.next() {
                Some(ServerFrame::Json { id: of, text }) if of == id => items.push(text),
                Some(ServerFrame::CallEnd { id: of, error }) if of == id => {
                    return (items, error.as_deref().map(fault));
                }
                other => panic!("not of call {id}: {other:?}"),
            }
        }
    }

    /// The daemon says why it closes the connection, and closes it. Answers that came before are skipped.
    pub(crate) fn closed(&mut self) -> Fault {
        let mut why = None;
        while let Some(frame) = self.next() {
            assert!(why.is_none(), "a frame behind the last word: {frame:?}");
            if let ServerFrame::CallEnd { id: 0, error } = frame {
                why = error.as_deref().map(fault);
            }
        }
        why.expect("it says why")
    }
}

/// A call's error as the fault it was.
pub(crate) fn fault(error: &str) -> Fault {
    let json: serde_json::Value = serde_json::from_str(error).expect("JSON");
    serde_json::from_value(json["data"].clone()).expect("a fault")
}

/// A file with `text` in it.
pub(crate) fn file(text: &str) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}
