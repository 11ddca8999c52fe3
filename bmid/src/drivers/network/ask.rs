//! Asks the kernel for links and addresses, for one interface's where one is meant: a host may have hundreds, and a list of their links is
//! megabytes. No effect.
//!
//! Only the attributes that are needed are read, all others are stepped over: what this program does not know hides nothing (a whole link, as
//! netlink-packet-route reads it, fails on one attribute that it does not know). Each question has a socket of its own, so it belongs to the
//! network namespace of the thread that asks.

use std::io;
use std::net::IpAddr;

use bmi::model::Tagging;
use rtnetlink::packet_core::{DefaultNla, Emitable, NLA_HEADER_SIZE, NetlinkBuffer, NetlinkHeader, NlasIterator};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::vlan::Link;

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct On {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

/// Which addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    /// All.
    Everywhere,
    /// All of the family that this one is of.
    Like(IpAddr),
    /// Those of one interface.
    Interface(u32),
}

/// Length of the header of a link's message, of an address's.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// The kernel fills no more than that at once.
const ROOM: usize = 32 << 10;
/// Lists that changed while they were made are made again, at most so often.
const TRIES: usize = 4;
/// Names are that long at most.
const NAME: usize = 15;
/// Counters are half of what the kernel would list (RTEXT_FILTER_SKIP_STATS).
const NO_COUNTERS: u32 = 8;
/// Of a VLAN: its number and its protocol (IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL).
const VLAN_ID: u16 = 1;
const VLAN_PROTOCOL: u16 = 5;

/// Every link.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut body = vec![0; LINK];
    attribute(&mut body, libc::IFLA_EXT_MASK, &NO_COUNTERS.to_ne_bytes());
    ask(libc::RTM_GETLINK, true, &body, link_of)
}

/// The link of that name, if there is one.
pub(super) fn link(name: &str) -> io::Result<Option<Link>> {
    if name.len() > NAME {
        return Ok(None);
    }
    let mut body = vec![0; LINK];
    attribute(&mut body, libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    attribute(&mut body, libc::IFLA_EXT_MASK, &NO_COUNTERS.to_ne_bytes());
    match ask(libc::RTM_GETLINK, false, &body, link_of) {
        // It may have another name besides, by which it is found, too.
        Ok(found) => Ok(found.into_iter().find(|l| l.name == name)),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The name of the link of that number; the number itself if it went meanwhile.
pub(super) fn name(index: u32) -> String {
    let name = nix::net::if_::if_indextoname(index).ok().and_then(|n| n.into_string().ok());
    name.unwrap_or_else(|| format!("interface {index}"))
}

/// Addresses, in the kernel's order.
pub(super) fn addresses(of: Of) -> io::Result<Vec<On>> {
    let (mut body, mut index) = (vec![0; ADDRESS], None);
    match of {
        Of::Everywhere => {}
        Of::Like(address) => body[0] = family(address),
        Of::Interface(n) => {
            index = Some(n);
            body[4..8].copy_from_slice(&n.to_ne_bytes());
        }
    }
    let mut found = match ask(libc::RTM_GETADDR, true, &body, address_of) {
        // It went meanwhile.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        done => done?,
    };
    // A kernel before 4.20 lists those of all.
    found.retain(|a| index.is_none_or(|n| a.index == n));
    Ok(found)
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // Both are below 256: the kernel has a byte for them.
    family as u8
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let at = body.len();
    body.resize(at + attribute.buffer_len(), 0);
    attribute.emit(&mut body[at..]);
}

/// Asks, for a list or for one; what `read` makes of the answers.
fn ask<T>(kind: u16, list: bool, body: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // A kernel before 4.20 has no such thing, and lists more.
    let _ = socket.set_netlink_get_strict_chk(true);
    let flags = libc::NLM_F_REQUEST | if list { libc::NLM_F_DUMP } else { 0 };
    for last in (0..TRIES).rev() {
        socket.send(&message(kind, flags as u16, body), 0)?;
        if let Some(found) = answers(&socket, list, &read, last == 0)? {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    // Number and sender are left out: there is one question at a time on a socket.
    (header.message_type, header.flags) = (kind, flags);
    header.length = u32::try_from(header.buffer_len() + body.len()).unwrap_or(u32::MAX);
    let mut message = vec![0; header.buffer_len()];
    header.emit(&mut message);
    message.extend(body);
    message
}

/// Reads until the end. None: the list changed meanwhile, and whoever asks may ask again.
fn answers<T>(
    socket: &Socket,
    list: bool,
    read: &impl Fn(&[u8]) -> Option<T>,
    anyhow: bool,
) -> io::Result<Option<Vec<T>>> {
    let (mut found, mut changed) = (Vec::new(), false);
    let mut buffer = Vec::with_capacity(ROOM);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            done => done?,
        };
        let mut rest = buffer.as_slice();
        while let Some((kind, flags, body)) = next(&mut rest) {
            changed |= i32::from(flags) & libc::NLM_F_DUMP_INTR != 0;
            match i32::from(kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    if let Some(code) = number(body).map(u32::cast_signed).filter(|code| *code < 0) {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    return Ok((anyhow || !changed).then_some(found));
                }
                _ => found.extend(read(body)),
            }
            if !list {
                return Ok(Some(found));
            }
        }
    }
}

/// The next message: its type, flags and body.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, u16, &'a [u8])> {
    let message = NetlinkBuffer::new_checked(*rest).ok()?;
    let length = usize::try_from(message.length()).ok()?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message.message_type(), message.flags(), message.payload()))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

/// Attributes by kind, up to one that is none.
fn attributes(all: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(all).map_while(Result::ok).filter_map(|one| {
        let (kind, length) = (one.kind(), usize::from(one.length()));
        Some((kind, one.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn link_of(body: &[u8]) -> Option<Link> {
    let (head, rest) = body.split_at_checked(LINK)?;
    let flags = number(&head[8..])?.cast_signed();
    let is = |flag| flags & flag != 0;
    let mut link = Link {
        index: number(&head[4..])?,
        name: String::new(),
        up: is(libc::IFF_UP),
        carrier: is(libc::IFF_RUNNING),
        loopback: is(libc::IFF_LOOPBACK),
        mtu: 0,
        group: 0,
        alias: None,
        vlan: None,
    };
    let (mut parent, mut tag) = (0, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MTU => link.mtu = number(value)?,
            libc::IFLA_GROUP => link.group = number(value)?,
            libc::IFLA_IFALIAS => link.alias = Some(text(value)),
            libc::IFLA_LINK => parent = number(value)?,
            libc::IFLA_LINKINFO => tag = tag_of(value),
            _ => {}
        }
    }
    link.vlan = tag.map(|(vlan, tagging)| (parent, vlan, tagging));
    (!link.name.is_empty()).then_some(link)
}

fn tag_of(info: &[u8]) -> Option<(u16, Tagging)> {
    let of = |wanted| move |(kind, value)| (kind == wanted).then_some(value);
    if text(attributes(info).find_map(of(libc::IFLA_INFO_KIND))?) != "vlan" {
        return None;
    }
    let data = attributes(info).find_map(of(libc::IFLA_INFO_DATA))?;
    let number = half(attributes(data).find_map(of(VLAN_ID))?)?;
    // In the network's order, as on the wire.
    let ad = attributes(data).find_map(of(VLAN_PROTOCOL)) == Some(&0x88a8_u16.to_be_bytes());
    Some((number, if ad { Tagging::Dot1ad } else { Tagging::Dot1q }))
}

fn address_of(body: &[u8]) -> Option<On> {
    let (head, rest) = body.split_at_checked(ADDRESS)?;
    let value = |wanted| attributes(rest).find_map(|(kind, value)| (kind == wanted).then_some(value));
    // Of a point-to-point link the other one is that at its other end.
    let bytes = value(libc::IFA_LOCAL).or_else(|| value(libc::IFA_ADDRESS))?;
    let address = match i32::from(head[0]) {
        libc::AF_INET => IpAddr::from(*bytes.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some(On { index: number(&head[4..])?, address, prefix: head[1] })
}
