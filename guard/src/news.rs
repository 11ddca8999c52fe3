//! What a dnsmasq hears of the host: news of its own addresses. dnsmasq has the kernel tell it of every address and route there is, and
//! lists all of them again each time; hundreds of dnsmasq on one host then do nothing else. A program in the kernel
//! (`man 7 socket`, `SO_ATTACH_FILTER`) keeps other interfaces' news from it, so that it is not even woken. Answers to what it asks
//! for itself come as ever. This must never keep an answer or an error back.

use std::net::IpAddr;

pub mod ffi;

/// The variable that names the addresses it shall hear of, with blanks between them. Without it everything is heard.
pub const HEARS: &str = "BMID_HEARS";

/// Where a message's type, its flags, the family of an address and the attributes of an address begin (rtnetlink(7)).
const TYPE: u32 = 4;
const FLAGS: u32 = 6;
const FAMILY: u32 = 16;
const ATTRIBUTES: u32 = 24;
/// An attribute's value begins behind its length and its type.
const VALUE: u32 = 4;
const IFA_ADDRESS: u32 = 1;
const IFA_LOCAL: u32 = 2;

/// An instruction of the kernel's: code, how many to skip if so and if not so, a number.
pub type Op = (u16, u8, u8, u32);

/// The addresses that a text names; none if one of them is none: better too much news than too little.
#[must_use]
pub fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// The program: news of these addresses passes, other addresses' and routes' do not, all else does.
#[must_use]
pub fn program(addresses: &[IpAddr]) -> Vec<Op> {
    let (kept, dropped) = (ret(u32::MAX), ret(0));
    let mut all = vec![
        // Part of a list that was asked for.
        half(FLAGS),
        (code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K), 0, 1, sent(libc::NLM_F_MULTI as u16)),
        kept,
        half(TYPE),
        equal(sent(libc::RTM_NEWADDR), 5, 0),
        equal(sent(libc::RTM_DELADDR), 4, 0),
        equal(sent(libc::RTM_NEWROUTE), 2, 0),
        equal(sent(libc::RTM_DELROUTE), 1, 0),
        kept,
        dropped,
    ];
    for address in addresses {
        all.extend(is_of(*address));
        all.push(kept);
    }
    all.push(dropped);
    all
}

/// Goes on with the next instruction if the message is of that address, else behind it.
fn is_of(address: IpAddr) -> Vec<Op> {
    let (family, attribute, bytes) = match address {
        IpAddr::V4(a) => (libc::AF_INET, IFA_LOCAL, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6, IFA_ADDRESS, a.octets().to_vec()),
    };
    let words: Vec<u32> = bytes.chunks_exact(4).map(|w| w.iter().fold(0, |all, b| all << 8 | u32::from(*b))).collect();
    let mut block = vec![
        (code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS), 0, 0, FAMILY),
        equal(family as u32, 0, u8::MAX),
        // The kernel finds an attribute: where to begin in one register, its type in the other.
        (code(libc::BPF_LD | libc::BPF_IMM), 0, 0, ATTRIBUTES),
        (code(libc::BPF_LDX | libc::BPF_IMM), 0, 0, attribute),
        (code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32),
        equal(0, u8::MAX, 0),
        (code(libc::BPF_MISC | libc::BPF_TAX), 0, 0, 0),
    ];
    for (at, word) in (0u32..).zip(words) {
        block.push((code(libc::BPF_LD | libc::BPF_W | libc::BPF_IND), 0, 0, VALUE + 4 * at));
        block.push(equal(word, 0, u8::MAX));
    }
    // Who leaves the block skips the instruction behind it, too.
    let end = block.len();
    for (at, op) in block.iter_mut().enumerate() {
        let out = u8::try_from(end - at).unwrap_or(u8::MAX);
        for skip in [&mut op.1, &mut op.2] {
            if *skip == u8::MAX {
                *skip = out;
            }
        }
    }
    block
}

fn code(bits: u32) -> u16 {
    u16::try_from(bits).unwrap_or_default()
}

fn ret(bytes: u32) -> Op {
    (code(libc::BPF_RET | libc::BPF_K), 0, 0, bytes)
}

fn half(at: u32) -> Op {
    (code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS), 0, 0, at)
}

fn equal(number: u32, yes: u8, no: u8) -> Op {
    (code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), yes, no, number)
}

/// A number of the kernel's as the program reads it: it takes bytes as they come over a wire.
fn sent(number: u16) -> u32 {
    u32::from(number.to_be())
}

#[cfg(test)]
mod tests;
