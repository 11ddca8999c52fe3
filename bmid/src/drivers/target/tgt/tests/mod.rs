//! The driver against the real tgtd, with libiscsi's programs and a few bytes of our own as initiators.
//! Must never leave a tgtd behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod bad_socket;
mod cuts;
#[path = "../../../../../../tests/support/initiator.rs"]
mod initiator;
mod pools;
mod pure;
mod real;
mod same;
mod suite;

use std::any::Any;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bmi::step::target::fill_address;

use super::*;
use crate::drivers::target::conformance::{Plain, Stage};

/// A tgtd of its own, killed when dropped; it ignores SIGTERM.
pub(super) struct Tgtd {
    child: Child,
    pub(super) dir: tempfile::TempDir,
    pub(super) driver: Tgt,
    pub(super) network: Id,
    pub(super) slot: u16,
    pub(super) port: u16,
}

static SLOT: AtomicU16 = AtomicU16::new(0);

impl Tgtd {
    pub(super) fn start() -> Tgtd {
        Tgtd::start_as(&[])
    }

    /// With more arguments for `setpriv`.
    pub(super) fn start_as(rights: &[&str]) -> Tgtd {
        // Test processes side by side get slots of their own, as far as their ids differ in the low byte; the port settles the rest.
        let slot = (std::process::id() as u16) << 8 | (SLOT.fetch_add(1, Ordering::Relaxed) & 0xff);
        let port = TcpListener::bind((fill_address(slot), 0)).unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().to_owned() };
        let network = Id::from_random([slot as u8; 16]);
        let socket = paths.tgtd_socket(network);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        for disk in ["a", "b"] {
            File::create(dir.path().join(disk)).unwrap().set_len(8 << 20).unwrap();
        }
        let log = File::create(dir.path().join("log")).unwrap();
        // setpriv: should this process be killed, tgtd goes with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(rights)
            .args(["tgtd", "-f", "-C", "0", "-t", "1", "--iscsi"])
            .arg(format!("portal={}:{port}", fill_address(slot)))
            .env("TGT_IPC_SOCKET", paths.tgtd_ipc(network))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let driver = Tgt::new(paths, Arc::new(Plain));
        let tgtd = Tgtd { child, dir, driver, network, slot, port };
        tgtd.wait();
        tgtd
    }

    fn wait(&self) {
        for _ in 0..500 {
            match self.client().portals() {
                Ok(_) | Err(client::Failure::NoAnswer(socket::NoAnswer::Stranger { .. })) => return,
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("tgtd did not start (is the package tgt installed?): {}", self.log());
    }

    pub(super) fn client(&self) -> Client {
        self.driver.client(self.network)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn disk(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn on_stage(&self, test: impl FnOnce(&Stage<'_>)) {
        let portal = SocketAddr::from((fill_address(self.slot), self.port));
        let login =
            |iqn: &str, initiator: &str| -> Box<dyn Any> { Box::new(login(portal, iqn, initiator, "test").unwrap()) };
        test(&Stage {
            driver: &self.driver,
            network: self.network,
            a: self.disk("a"),
            b: self.disk("b"),
            address: real_address(self.slot).into(),
            port: self.port,
            slot: self.slot,
            login: &login,
        });
    }

    /// Runs one of libiscsi's programs on a LUN; `user` is `name%secret`.
    pub(super) fn iscsi(&self, program: &str, initiator: &str, user: Option<&str>, iqn: &str, more: &[&str]) -> Output {
        let user = user.map(|u| format!("{u}@")).unwrap_or_default();
        let url = format!("iscsi://{user}{}:{}/{iqn}/1", fill_address(self.slot), self.port);
        Command::new(program).args(["-i", initiator]).args(more).arg(url).output().unwrap()
    }
}

impl Drop for Tgtd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that stands for a network's: on the loopback interface as all of 127/8.
pub(super) fn real_address(slot: u16) -> Ipv4Addr {
    let [hi, lo] = slot.to_be_bytes();
    Ipv4Addr::new(127, 98, hi, lo)
}

/// Logs in with one request, without CHAP, and holds the session until the stream is dropped. The error is the status.
pub(super) fn login(portal: SocketAddr, iqn: &str, initiator: &str, alias: &str) -> Result<TcpStream, u16> {
    let keys = [
        format!("InitiatorName={initiator}"),
        format!("InitiatorAlias={alias}"),
        format!("TargetName={iqn}"),
        "SessionType=Normal".to_owned(),
        "AuthMethod=None".to_owned(),
        "HeaderDigest=None".to_owned(),
        "DataDigest=None".to_owned(),
    ];
    let mut data: Vec<u8> = keys.iter().flat_map(|k| k.bytes().chain([0])).collect();
    let len = u32::try_from(data.len()).unwrap();
    // Login request, from operational negotiation straight to full feature.
    let mut pdu = vec![0x43, 0x80 | 1 << 2 | 3, 0, 0];
    pdu.extend(len.to_be_bytes());
    // A session id of the initiator's own, so that two sessions do not replace one another.
    let isid = SLOT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    pdu.extend([0x80, 0x12, 0x34, 0x56, isid[0], isid[1], 0, 0]);
    pdu.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    pdu.resize(48, 0);
    data.resize(data.len().next_multiple_of(4), 0);
    pdu.extend(data);
    let mut stream = TcpStream::connect(portal).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&pdu).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    match u16::from_be_bytes([answer[36], answer[37]]) {
        0 => Ok(stream),
        status => Err(status),
    }
}

pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A folder that looks like a network's, with nothing in it but what a test puts at the socket's place.
pub(super) fn empty_network() -> (tempfile::TempDir, Tgt, Id, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths { state: dir.path().join("state"), run: dir.path().to_owned() };
    let network = Id::from_random([1; 16]);
    let socket = paths.tgtd_socket(network);
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    (dir, Tgt { limit: Duration::from_millis(300), ..Tgt::new(paths, Arc::new(Plain)) }, network, socket)
}

/// Whether a file may be opened here at all: keeps a wrong path in a test from passing for a refusal.
pub(super) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
