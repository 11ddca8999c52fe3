//! iSCSI as a hostile machine speaks it: packets by hand, many connections, from any address of its subnet.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A packet: 48 bytes and data.
pub fn packet(op: u8, flags: u8, rest: &[(usize, &[u8])], data: &[u8]) -> Vec<u8> {
    let mut p = vec![0; 48];
    (p[0], p[1]) = (op, flags);
    p[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    for (at, bytes) in rest {
        p[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    p.extend(data);
    p.resize(48 + data.len().next_multiple_of(4), 0);
    p
}

/// A SCSI command to LUN 1, the `n`th of a session.
pub fn command(flags: u8, expected: u32, n: u32, cdb: &[u8]) -> Vec<u8> {
    let number = n.to_be_bytes();
    packet(1, flags, &[(9, &[1]), (16, &number), (20, &expected.to_be_bytes()), (24, &number), (32, cdb)], &[])
}

/// A connection, from that address if one is given.
pub fn dial(portal: SocketAddr, from: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let SocketAddr::V4(portal) = portal else { panic!("IPv4") };
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Nothing is taken that it does not read: what it asks for stays with who sends it.
    setsockopt(&fd, sockopt::RcvBuf, &4_096)?;
    if let Some(from) = from {
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    }
    connect(fd.as_raw_fd(), &SockaddrIn::from(portal))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether the other end has closed it. What it has not, it keeps waiting on: so that is to be asked of those that are last.
pub fn is_closed(stream: &TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    match (&*stream).read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// Logs in on a connection: the status told, 0 is in.
pub fn log_in(stream: &mut TcpStream, iqn: &str, initiator: &str, session: u32) -> std::io::Result<u16> {
    log_in_for(8_192, stream, iqn, initiator, session)
}

/// The same, to get so many bytes in a packet.
pub fn log_in_for(
    length: u32,
    stream: &mut TcpStream,
    iqn: &str,
    initiator: &str,
    session: u32,
) -> std::io::Result<u16> {
    let keys = format!(
        "InitiatorName={initiator}\0TargetName={iqn}\0SessionType=Normal\0AuthMethod=None\0HeaderDigest=None\0DataDigest=None\0\
         MaxRecvDataSegmentLength={length}\0"
    );
    let isid = [&[0x80, 0x12][..], &session.to_be_bytes()].concat();
    stream.write_all(&packet(0x43, 0x87, &[(8, &isid), (19, &[1]), (27, &[1])], keys.as_bytes()))?;
    let mut head = [0; 48];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    stream.read_exact(&mut vec![0; length.next_multiple_of(4)])?;
    Ok(u16::from_be_bytes([head[36], head[37]]))
}
