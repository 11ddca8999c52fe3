//! tgtd asked bare: connect, write, read. For the floor, and to see from outside what bmid has done.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bmid::drivers::target::tgt::show;
use bmid::drivers::target::tgt::wire::{Mode, Op, Payload, Request};

/// A request and its answer: the code, the text. None: nobody answers.
fn ask(socket: &Path, request: &Request) -> Option<(u32, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(&request.encode().expect("a whole request")).ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    let code = u32::from_le_bytes(reply.get(..4)?.try_into().ok()?);
    Some((code, String::from_utf8_lossy(reply.get(8..)?).trim_end_matches('\0').to_owned()))
}

fn must(socket: &Path, request: &Request) {
    let (code, _) = ask(socket, request).expect("tgtd answers");
    assert_eq!(code, 0, "tgtd refused");
}

fn text(key: &'static str, value: &str) -> Payload {
    Payload::of(key, value).expect("a plain value")
}

/// A target with one LUN and one initiator: the four requests that bmid makes, too.
pub(crate) fn make(socket: &Path, tid: u32, iqn: &str, path: &Path) {
    must(socket, &Request::new(Mode::Target, Op::New).tid(tid).with(text("targetname", iqn)));
    let backing = text("path", path.to_str().expect("text")).and("bstype", "rdwr").expect("plain");
    must(socket, &Request::new(Mode::Device, Op::New).tid(tid).lun(1).with(backing));
    let marks = text("scsi_id", &format!("{tid:032x}")).and("scsi_sn", &format!("bmi{tid:017x}")).expect("plain");
    must(socket, &Request::new(Mode::Device, Op::Update).tid(tid).lun(1).with(marks));
    must(socket, &Request::new(Mode::Target, Op::Bind).tid(tid).with(text("initiator-name", &format!("{iqn}:init"))));
}

/// The same with an image of a pool: one request more, for the size of blocks.
pub(crate) fn make_rbd(socket: &Path, tid: u32, iqn: &str, image: &str, options: &str) {
    must(socket, &Request::new(Mode::Target, Op::New).tid(tid).with(text("targetname", iqn)));
    open_rbd(socket, tid, image, options);
    must(socket, &Request::new(Mode::Device, Op::Update).tid(tid).lun(1).with(text("lbppbe", "3")));
    let marks = text("scsi_id", &format!("{tid:032x}")).and("scsi_sn", &format!("bmi{tid:017x}")).expect("plain");
    must(socket, &Request::new(Mode::Device, Op::Update).tid(tid).lun(1).with(marks));
    must(socket, &Request::new(Mode::Target, Op::Bind).tid(tid).with(text("initiator-name", &format!("{iqn}:init"))));
}

/// Has tgtd's rbd module open an image.
fn open_rbd(socket: &Path, tid: u32, image: &str, options: &str) {
    let backing = text("path", image).and("bstype", "rbd").and_then(|p| p.and("bsopts", options)).expect("plain");
    must(socket, &Request::new(Mode::Device, Op::New).tid(tid).lun(1).with(backing));
}

/// Has it listen at an address.
pub(crate) fn open(socket: &Path, portal: &str) {
    must(socket, &Request::new(Mode::Portal, Op::New).with(text("portal", portal)));
}

/// Takes it away.
pub(crate) fn take(socket: &Path, tid: u32) {
    must(socket, &Request::new(Mode::Target, Op::Delete).tid(tid));
}

/// How many targets there are; none while tgtd does not answer.
pub(crate) fn count(socket: &Path) -> Option<usize> {
    Some(show::targets(&ask(socket, &Request::new(Mode::Lld, Op::Show))?.1).len())
}

/// Whether it listens for initiators at this address.
pub(crate) fn listens(socket: &Path, address: Ipv4Addr) -> bool {
    let portals = ask(socket, &Request::new(Mode::Portal, Op::Show)).map(|(_, text)| show::portals(&text));
    portals.unwrap_or_default().iter().any(|(at, _)| *at == address.to_string())
}

/// Whether it listens anywhere but on the loopback interface, where it is filled.
pub(crate) fn is_open(socket: &Path) -> bool {
    let portals = ask(socket, &Request::new(Mode::Portal, Op::Show)).map(|(_, text)| show::portals(&text));
    portals.unwrap_or_default().iter().any(|(at, _)| !at.starts_with("127."))
}

/// A tgtd of the measurement's own.
pub(crate) struct Tgtd {
    process: Child,
    /// `TGT_IPC_SOCKET`.
    pub(crate) ipc: PathBuf,
    /// Its management socket.
    pub(crate) socket: PathBuf,
}

impl Tgtd {
    /// Starts one that listens on the loopback interface and waits until it answers.
    pub(crate) fn start(dir: &Path, port: u16) -> Tgtd {
        Tgtd::start_with(dir, port, None)
    }

    /// The same with something preloaded.
    pub(crate) fn start_with(dir: &Path, port: u16, preload: Option<&Path>) -> Tgtd {
        std::fs::create_dir_all(dir).expect("a folder");
        let ipc = dir.join("sock");
        let process = Command::new("tgtd")
            .args(["-f", "-C", "0", "-t", "1", "--iscsi", &format!("portal=127.0.0.1:{port}")])
            .env("TGT_IPC_SOCKET", &ipc)
            .envs(preload.map(|path| ("LD_PRELOAD", path)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tgtd (package tgt) starts");
        let tgtd = Tgtd { process, socket: dir.join("sock.0"), ipc };
        while count(&tgtd.socket).is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        tgtd
    }
}

impl Drop for Tgtd {
    fn drop(&mut self) {
        // It ends with the namespace anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
