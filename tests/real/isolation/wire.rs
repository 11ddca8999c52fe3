//! What a machine puts onto the wire: questions by TFTP and DHCP, made by hand so that they can be such as no firmware sends.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for an answer that must not come, once a later question was answered: the server does one after the other.
const LATE: Duration = Duration::from_millis(100);

/// Does something on a machine.
pub fn at<T: Send>(machine: &str, f: impl FnOnce() -> T + Send) -> T {
    let net = File::open(format!("/run/netns/{machine}")).unwrap();
    let enter = || {
        nix::sched::setns(net.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        f()
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(out) => out,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Where a file was asked for.
pub struct Asked(UdpSocket);

/// Asks a server for a file by TFTP.
pub fn ask_for(server: IpAddr, file: &str) -> Asked {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    let question = [b"\0\x01", file.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&question, (server, 69)).unwrap();
    Asked(socket)
}

impl Asked {
    /// All of the file, or the error that was told instead.
    pub fn file(self) -> Result<Vec<u8>, String> {
        let (mut out, mut room) = (Vec::new(), [0; 2048]);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        loop {
            let (n, from) = self.0.recv_from(&mut room).map_err(|e| format!("no answer: {e}"))?;
            match room[1] {
                3 => {
                    self.0.send_to(&[0, 4, room[2], room[3]], from).unwrap();
                    out.extend_from_slice(&room[4..n]);
                    if n < 516 {
                        return Ok(out);
                    }
                }
                _ => return Err(String::from_utf8_lossy(&room[4..n]).into_owned()),
            }
        }
    }

    /// Whatever has come of a file's contents; to be asked when a later question was answered.
    pub fn leaked(self) -> Option<Vec<u8>> {
        let mut room = [0; 2048];
        self.0.set_read_timeout(Some(LATE)).unwrap();
        while let Ok((n, _)) = self.0.recv_from(&mut room) {
            if room[1] == 3 {
                return Some(room[4..n].to_vec());
            }
        }
        None
    }
}

/// A question by DHCP.
#[derive(Clone)]
pub struct Question {
    pub mac: [u8; 6],
    /// Who says to have handed it on; none says nothing of the kind.
    pub relay: Ipv4Addr,
    pub options: Vec<u8>,
    pub to: Ipv4Addr,
}

/// An answer by DHCP.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    pub address: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub file: String,
}

pub fn mac(text: &str) -> [u8; 6] {
    text.parse::<bmi::model::Mac>().unwrap().bytes()
}

pub const DISCOVER: [u8; 3] = [53, 1, 1];

impl Question {
    /// As a machine asks that has no address.
    pub fn discover(mac: [u8; 6]) -> Question {
        Question { mac, relay: Ipv4Addr::UNSPECIFIED, options: DISCOVER.to_vec(), to: Ipv4Addr::BROADCAST }
    }

    /// As a machine takes what it was offered.
    pub fn request(mac: [u8; 6], address: Ipv4Addr, server: Ipv4Addr) -> Question {
        let options = [&[53, 1, 3, 50, 4][..], &address.octets(), &[54, 4], &server.octets()].concat();
        Question { options, ..Question::discover(mac) }
    }

    fn bytes(&self, xid: [u8; 4]) -> Vec<u8> {
        let mut p = vec![1, 1, 6, 0];
        p.extend(xid);
        p.extend([0, 0, 0x80, 0]);
        p.resize(24, 0);
        p.extend(self.relay.octets());
        p.extend(self.mac);
        p.resize(236, 0);
        p.extend([99, 130, 83, 99]);
        p.extend(&self.options);
        p.push(255);
        p.resize(p.len().max(300), 0);
        p
    }
}

/// An answer to any question: what a server says.
pub fn answer(question: &[u8], offer: &Offer) -> Vec<u8> {
    let mut p = question[..240].to_vec();
    p[0] = 2;
    p[16..20].copy_from_slice(&offer.address.octets());
    p[108..108 + offer.file.len()].copy_from_slice(offer.file.as_bytes());
    p.extend([53, 1, 2]);
    if let Some(server) = offer.server {
        p.extend([54, 4]);
        p.extend(server.octets());
    }
    p.push(255);
    p.resize(300, 0);
    p
}

/// A machine's socket at a port of DHCP.
pub struct Card(UdpSocket);

impl Card {
    /// At 68, as clients are, or 67, as servers and relays are.
    pub fn at(port: u16) -> Card {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&fd, sockopt::BindToDevice, &"card".into()).unwrap();
        setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        setsockopt(&fd, sockopt::Broadcast, &true).unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(0, 0, 0, 0, port)).unwrap();
        Card(UdpSocket::from(fd))
    }

    /// Asks; gives the number by which answers are known.
    pub fn ask(&self, question: &Question) -> [u8; 4] {
        let mut xid = [0; 4];
        getrandom::fill(&mut xid).unwrap();
        self.0.send_to(&question.bytes(xid), (question.to, 67)).unwrap();
        xid
    }

    /// Says something to everybody who listens as a client.
    pub fn tell(&self, packet: &[u8]) {
        self.0.send_to(packet, (Ipv4Addr::BROADCAST, 68)).unwrap();
    }

    /// The next packet, if there is one in that time.
    pub fn next(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut room = [0; 2048];
        self.0.set_read_timeout(Some(limit)).unwrap();
        let (n, _): (usize, SocketAddr) = self.0.recv_from(&mut room).ok()?;
        Some(room[..n].to_vec())
    }

    /// The first answer to a question.
    pub fn offer(&self, xid: [u8; 4]) -> io::Result<Offer> {
        self.offer_within(PATIENCE, xid)
    }

    /// The same within that time.
    pub fn offer_within(&self, limit: Duration, xid: [u8; 4]) -> io::Result<Offer> {
        let end = std::time::Instant::now() + limit;
        while let Some(packet) = self.next(end.saturating_duration_since(std::time::Instant::now()).max(LATE)) {
            if let Some((_, offer)) = read(&packet).filter(|(of, _)| *of == xid) {
                return Ok(offer);
            }
        }
        Err(io::Error::other("nobody offers an address"))
    }

    /// All answers that came, to whatever question; to be asked when a later question was answered.
    pub fn came(&self) -> Vec<Offer> {
        std::iter::from_fn(|| self.next(LATE)).filter_map(|p| Some(read(&p)?.1)).collect()
    }
}

fn read(p: &[u8]) -> Option<([u8; 4], Offer)> {
    if p.first() != Some(&2) || p.len() < 240 {
        return None;
    }
    let four = |at: usize| <[u8; 4]>::try_from(&p[at..at + 4]).unwrap();
    let mut offer = Offer { address: four(16).into(), server: None, file: text(&p[108..236]) };
    let mut rest = &p[240..];
    while let [number, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        match number {
            54 => offer.server = Some(<[u8; 4]>::try_from(value).ok()?.into()),
            67 => offer.file = text(value),
            255 => break,
            _ => {}
        }
        rest = &tail[value.len()..];
    }
    Some((four(4), offer))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
