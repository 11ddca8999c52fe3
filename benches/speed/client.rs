//! A bare client of bmid's socket: connect, hello, requests. Does as little as a client can.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bmi::model::Fault;
use bmi::ops::{OPS, Reply, Request};
use bmi::protocol::{ClientFrame, Ended, Envelope, Hello, ServerFrame, Submit, decode, encode};

/// A connection that was greeted.
pub(crate) struct Client {
    stream: UnixStream,
    last: u64,
}

/// The request behind a command line.
pub(crate) fn request(line: &str) -> Request {
    let words: Vec<&str> = line.split_whitespace().collect();
    let verb = words.get(1).copied().unwrap_or_default();
    let entry = OPS.iter().find(|e| e.sheet.noun == words[0] && (e.sheet.verb.is_empty() || e.sheet.verb == verb));
    let entry = entry.unwrap_or_else(|| panic!("no such command: {line}"));
    let skip = if entry.sheet.verb.is_empty() { 1 } else { 2 };
    let command = (entry.augment)(clap::Command::new("x").no_binary_name(true));
    let matches = command.try_get_matches_from(&words[skip..]).unwrap_or_else(|e| panic!("{line}: {e}"));
    (entry.parse)(&matches).unwrap_or_else(|e| panic!("{line}: {e}"))
}

impl Client {
    /// Connects and exchanges hellos; none while nobody listens.
    pub(crate) fn connect(socket: &Path) -> Option<Client> {
        let stream = UnixStream::connect(socket).ok()?;
        let mut client = Client { stream, last: 0 };
        client.send(&ClientFrame::Hello(Hello::ours()))?;
        matches!(client.next()?, ServerFrame::Hello(_)).then_some(client)
    }

    fn send(&mut self, frame: &ClientFrame) -> Option<()> {
        let body = encode(frame).expect("a request fits a frame");
        let mut bytes = u32::try_from(body.len()).expect("a frame is small").to_be_bytes().to_vec();
        bytes.extend(body);
        self.stream.write_all(&bytes).ok()
    }

    fn next(&mut self) -> Option<ServerFrame> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some(decode(&body).expect("a frame of this protocol"))
    }

    /// Asks and reads the whole answer. None: the connection ended.
    pub(crate) fn ask(&mut self, request: Request) -> Option<(Vec<Reply>, Result<Ended, Fault>)> {
        self.last += 1;
        self.send(&ClientFrame::Submit(Submit { id: self.last, envelope: Envelope::default(), request }))?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                ServerFrame::Item { item, .. } => items.push(item),
                ServerFrame::End { end, .. } => return Some((items, end)),
                other => panic!("not an answer: {other:?}"),
            }
        }
    }

    /// Asks; it must succeed.
    pub(crate) fn must(&mut self, request: Request) -> Vec<Reply> {
        let (items, end) = self.ask(request).expect("bmid answers");
        end.unwrap_or_else(|f| panic!("{f}"));
        items
    }
}
