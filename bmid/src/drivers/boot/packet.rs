//! The few DHCP packets we speak ourselves (RFC 2131, RFC 2132): a question to find other servers, and the release of a
//! lease. Pure. Never answers anybody.

use std::net::Ipv4Addr;

use bmi::model::Mac;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Options by number.
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const END: u8 = 255;
/// Message types.
pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const RELEASE: u8 = 7;

/// A client's packet. `options` follow the message type, each as number and value.
pub(super) fn client(kind: u8, xid: u32, mac: Mac, address: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut p = vec![1, 1, 6, 0];
    p.extend_from_slice(&xid.to_be_bytes());
    // Seconds; flags: answer by broadcast, since we have no address to be answered at.
    p.extend_from_slice(&[0, 0, 0x80, 0]);
    p.extend_from_slice(&address.octets());
    p.resize(28, 0);
    p.extend_from_slice(&mac.bytes());
    p.resize(236, 0);
    p.extend_from_slice(&COOKIE);
    for (number, value) in [(MESSAGE_TYPE, &[kind][..])].iter().chain(options) {
        // Values of ours are short.
        p.extend_from_slice(&[*number, u8::try_from(value.len()).unwrap_or(0)]);
        p.extend_from_slice(value);
    }
    p.push(END);
    // Some servers drop what is shorter than a BOOTP packet.
    p.resize(p.len().max(300), 0);
    p
}

/// The release of a lease to the server that gave it.
pub(super) fn release(mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
    client(RELEASE, 0, mac, address, &[(SERVER, &server.octets())])
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: u8,
    pub(super) xid: u32,
    /// The address it gives.
    pub(super) address: Ipv4Addr,
    /// Who it says it is.
    pub(super) server: Option<Ipv4Addr>,
    /// The boot file's name.
    pub(super) file: String,
    /// All options, as they came.
    #[cfg(test)]
    pub(super) options: Vec<(u8, Vec<u8>)>,
}

/// Reads a server's packet; none if it is not one. It comes from the network: nothing in it is believed.
pub(super) fn answer(p: &[u8]) -> Option<Answer> {
    if p.first() != Some(&2) || p.get(236..240) != Some(&COOKIE[..]) {
        return None;
    }
    let four = |at: usize| -> Option<[u8; 4]> { p.get(at..at + 4)?.try_into().ok() };
    let file = p.get(108..236)?.split(|b| *b == 0).next().unwrap_or_default();
    let mut answer = Answer {
        kind: 0,
        xid: u32::from_be_bytes(four(4)?),
        address: four(16)?.into(),
        server: None,
        file: String::from_utf8_lossy(file).into_owned(),
        #[cfg(test)]
        options: Vec::new(),
    };
    let mut rest = p.get(240..)?;
    while let Some((&number, tail)) = rest.split_first() {
        match number {
            0 => rest = tail,
            END => break,
            _ => {
                let (&length, tail) = tail.split_first()?;
                let value = tail.get(..usize::from(length))?;
                rest = &tail[value.len()..];
                #[cfg(test)]
                answer.options.push((number, value.to_vec()));
                match number {
                    MESSAGE_TYPE => answer.kind = *value.first()?,
                    SERVER => answer.server = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
                    67 => answer.file = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                    _ => {}
                }
            }
        }
    }
    (answer.kind != 0).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_garbled_answer_is_no_answer() {
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        let mut p = client(OFFER, 7, mac, Ipv4Addr::UNSPECIFIED, &[(SERVER, &[10, 9, 0, 1])]);
        assert_eq!(answer(&p), None, "that is a client's");
        p[0] = 2;
        let whole = answer(&p).unwrap();
        assert_eq!((whole.kind, whole.xid, whole.server), (OFFER, 7, Some(Ipv4Addr::new(10, 9, 0, 1))));
        for length in 0..243 {
            assert_eq!(answer(&p[..length]), None, "cut at {length}");
        }
        p[241] = 200;
        p.truncate(300);
        assert_eq!(answer(&p), None, "an option longer than the packet");
    }
}
