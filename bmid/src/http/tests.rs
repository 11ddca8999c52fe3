//! The server, asked as machines ask, well and badly. Each test has a server of its own on a loopback address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::socket::SockaddrIn;

use super::server::{Limits, OF_ONE, run};
use super::*;

/// A server; it ends with the test's process.
struct Served {
    at: SocketAddr,
    folder: tempfile::TempDir,
}

const MACHINE: &str = "/mac/52-54-00-00-00-01.ipxe";
/// Longer than any test takes.
const PATIENT: Limits = Limits { head: Duration::from_secs(600), all: Duration::from_secs(600) };

fn served(limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tftp");
    std::fs::create_dir_all(root.join("mac")).unwrap();
    std::fs::write(root.join("boot.ipxe"), "#!ipxe first\n").unwrap();
    std::fs::write(root.join("snponly.efi"), vec![7; 300_000]).unwrap();
    std::fs::write(root.join(&MACHINE[1..]), "#!ipxe secret\n").unwrap();
    std::fs::write(folder.path().join("dnsmasq.conf"), "not for machines").unwrap();
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    door.set_nonblocking(true).unwrap();
    let at = door.local_addr().unwrap();
    let text = format!("listen={at}\nfrom=127.0.0.0/30\nroot={}\npid=/nowhere\n", root.display());
    let conf = Conf::read(&text).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(conf, limits, vec![door]))
    });
    Served { at, folder }
}

impl Served {
    /// A connection from that address.
    fn connect_from(&self, from: &str) -> TcpStream {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let own: std::net::SocketAddrV4 = format!("{from}:0").parse().unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::from(own)).unwrap();
        nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(self.at)).unwrap();
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn connect(&self) -> TcpStream {
        self.connect_from("127.0.0.1")
    }

    /// All that comes back on these bytes until the server closes.
    fn say(&self, bytes: &[u8]) -> Vec<u8> {
        all(self.connect(), bytes)
    }

    fn ask(&self, line: &str) -> String {
        let bytes = self.say(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// It still serves.
    fn serves(&self) {
        let got = self.ask(&format!("GET {MACHINE}"));
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("\r\n\r\n#!ipxe secret\n"), "{got}");
    }
}

fn all(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    // Closed before all was said or heard: what came until then counts.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut got);
    got
}

#[test]
fn machines_get_scripts_and_loaders_and_firmware_learns_their_size_first() {
    let s = served(PATIENT);
    s.serves();
    let head = s.ask("HEAD /snponly.efi");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    for line in ["content-length: 300000\r\n", "content-type: application/efi\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    for _ in 0..2 {
        let got = s.say(b"GET /snponly.efi HTTP/1.0\r\n\r\n");
        assert!(got.ends_with(&[7; 300_000]), "{} bytes", got.len());
    }
    // A loader that is renewed is not the old one any more.
    std::fs::write(s.folder.path().join("tftp/snponly.efi"), "new").unwrap();
    assert!(s.ask("GET /snponly.efi").ends_with("\r\n\r\nnew"));
    // Two requests on one connection, as firmware does.
    let both = s.say(
        b"HEAD /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\nGET /boot.ipxe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let both = String::from_utf8_lossy(&both).into_owned();
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
}

#[test]
fn nothing_else_is_handed_out_whatever_the_path() {
    let s = served(PATIENT);
    std::os::unix::fs::symlink("/etc/passwd", s.folder.path().join("tftp/autoexec.ipxe")).unwrap();
    for path in [
        "/",
        "/dnsmasq.conf",
        "/../dnsmasq.conf",
        "/mac/../../dnsmasq.conf",
        "/%2e%2e/dnsmasq.conf",
        "/mac/",
        "/mac",
        "//boot.ipxe",
        "/mac/52-54-00-00-00-02.ipxe",
        "/mac/..%2f..%2fdnsmasq.conf",
        "/autoexec.ipxe",
        "*",
        "http://other/../dnsmasq.conf",
        "/..%5c..%5cdnsmasq.conf",
    ] {
        let got = s.ask(&format!("GET {path}"));
        assert!(got.starts_with("HTTP/1.1 4") || got.starts_with("HTTP/1.1 500"), "{path}: {got}");
        assert!(got.ends_with("\r\n\r\n"), "{path}: {got}");
    }
    for method in ["POST", "PUT", "DELETE", "CONNECT", "TRACE", "OPTIONS"] {
        assert!(s.ask(&format!("{method} /boot.ipxe")).starts_with("HTTP/1.1 405"), "{method}");
    }
    s.serves();
}

#[test]
fn what_is_no_request_ends_its_connection_and_nothing_else() {
    let s = served(PATIENT);
    let long = [b"GET /", &vec![b'a'; 1 << 20][..], b" HTTP/1.1\r\n\r\n"].concat();
    let lines = format!("GET /boot.ipxe HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    let many = format!("GET /boot.ipxe HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    for bad in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        &long,
        lines.as_bytes(),
        many.as_bytes(),
        &[0xff; 70_000],
    ] {
        let got = s.say(bad);
        assert!(!got.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&got[..got.len().min(80)]));
    }
    // A body that never comes, and one nobody asked for.
    let got = s.say(b"GET /boot.ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\nabc");
    assert!(got.starts_with(b"HTTP/1.1 200"));
    s.serves();
}

#[test]
fn a_machine_that_holds_many_connections_keeps_out_only_itself() {
    let s = served(PATIENT);
    let mut held: Vec<TcpStream> = (0..OF_ONE).map(|_| s.connect()).collect();
    for stream in &mut held {
        // Half a request: all of them are inside before the next one comes.
        stream.write_all(b"HEAD /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\nGET /b").unwrap();
        let mut some = [0; 16];
        stream.read_exact(&mut some).unwrap();
    }
    assert_eq!(s.say(b"GET /boot.ipxe HTTP/1.0\r\n\r\n"), b"", "it has {OF_ONE} already");
    let other = all(s.connect_from("127.0.0.2"), b"GET /boot.ipxe HTTP/1.0\r\n\r\n");
    assert!(other.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&other));
    drop(held);
    // It may come again once the server has seen them go.
    while s.say(b"GET /boot.ipxe HTTP/1.0\r\n\r\n").is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn a_machine_that_is_not_of_the_network_gets_no_answer() {
    let s = served(PATIENT);
    assert_eq!(all(s.connect_from("127.0.0.4"), b"GET /boot.ipxe HTTP/1.0\r\n\r\n"), b"");
    s.serves();
}

#[test]
fn who_says_nothing_or_reads_nothing_is_let_go_of() {
    let s = served(Limits { head: Duration::from_millis(100), all: Duration::from_secs(600) });
    for words in [&b""[..], b"GET /boot.ipxe HTTP/1.1\r\nHost"] {
        // Ends only if the server closes.
        let got = s.say(words);
        assert!(!got.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&got));
    }
    let s = served(Limits { head: Duration::from_secs(600), all: Duration::from_secs(2) });
    std::fs::write(s.folder.path().join("tftp/snponly.efi"), vec![7; 15 << 20]).unwrap();
    let mut slow = s.connect();
    slow.write_all(b"GET /snponly.efi HTTP/1.0\r\n\r\n").unwrap();
    let mut first = [0; 100];
    slow.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let mut got = Vec::new();
    let _ = slow.read_to_end(&mut got);
    assert!(got.len() < 15 << 20, "it was served to its end");
}

#[test]
fn a_door_opens_before_its_address_is_there() {
    // 192.0.2.1 is an address of nobody (RFC 5737).
    let listening = door("192.0.2.1:0".parse().unwrap()).unwrap();
    assert_eq!(listening.local_addr().unwrap().ip().to_string(), "192.0.2.1");
    let listening = door("[2001:db8::1]:0".parse().unwrap()).unwrap();
    assert_eq!(listening.local_addr().unwrap().ip().to_string(), "2001:db8::1");
}
