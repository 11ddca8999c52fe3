//! The program, run by a small machine of the test's own over messages as the kernel sends them. That the kernel takes it is shown with a
//! real dnsmasq (tests/real/links.rs).

use super::*;

/// A message of an address: its header, `ifaddrmsg`, attributes.
fn message(kind: u16, flags: u16, family: i32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut m = vec![0; 4];
    m.extend(kind.to_ne_bytes());
    m.extend(flags.to_ne_bytes());
    m.extend([0; 8]);
    m.extend([family as u8, 24, 0, 0, 7, 0, 0, 0]);
    for (name, value) in attributes {
        m.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        m.extend(name.to_ne_bytes());
        m.extend(*value);
        m.resize(m.len().next_multiple_of(4), 0);
    }
    m
}

/// What the kernel's ancillary load of an attribute does.
fn find(m: &[u8], mut at: usize, name: u32) -> u32 {
    while at + 4 <= m.len() {
        let number = |i| u16::from_ne_bytes([m[i], m[i + 1]]);
        if u32::from(number(at + 2)) == name {
            return at as u32;
        }
        at += usize::from(number(at)).next_multiple_of(4).max(4);
    }
    0
}

fn passes(hears: &str, m: &[u8]) -> bool {
    let all = program(&addresses(hears).unwrap());
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    let load = |from: usize, n: usize| m[from..from + n].iter().fold(0u32, |all, b| all << 8 | u32::from(*b));
    loop {
        let (code, yes, no, k) = all[at];
        at += 1;
        let number = k as usize;
        match u32::from(code) {
            c if c == libc::BPF_RET => return k != 0,
            c if c == libc::BPF_LD | libc::BPF_ABS && k as i32 == libc::SKF_AD_OFF + libc::SKF_AD_NLATTR => {
                a = find(m, a as usize, x);
            }
            c if c == libc::BPF_LD | libc::BPF_H | libc::BPF_ABS => a = load(number, 2),
            c if c == libc::BPF_LD | libc::BPF_B | libc::BPF_ABS => a = load(number, 1),
            c if c == libc::BPF_LD | libc::BPF_IND => a = load(x as usize + number, 4),
            c if c == libc::BPF_LD | libc::BPF_IMM => a = k,
            c if c == libc::BPF_LDX | libc::BPF_IMM => x = k,
            c if c == libc::BPF_MISC | libc::BPF_TAX => x = a,
            c if c == libc::BPF_JMP | libc::BPF_JEQ => at += usize::from(if a == k { yes } else { no }),
            c if c == libc::BPF_JMP | libc::BPF_JSET => at += usize::from(if a & k != 0 { yes } else { no }),
            c => panic!("{c:#x} is no instruction that is used here"),
        }
    }
}

const OWN: &str = "172.16.7.1 fd97:1:2:3::1";

fn v4(last: u8) -> [u8; 4] {
    [172, 16, last, 1]
}

#[test]
fn news_of_its_own_addresses_is_heard_and_of_others_is_not() {
    for kind in [libc::RTM_NEWADDR, libc::RTM_DELADDR] {
        let of = |last| message(kind, 0, libc::AF_INET, &[(1, &v4(7)), (2, &v4(last)), (3, b"eth1\0")]);
        assert!(passes(OWN, &of(7)) && !passes(OWN, &of(8)) && !passes("", &of(7)));
        for (address, heard) in [("fd97:1:2:3::1", true), ("fd97:1:2:4::1", false), ("fe80::1", false)] {
            let bytes = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
            let m = message(kind, 0, libc::AF_INET6, &[(6, &[0; 16]), (1, &bytes)]);
            assert_eq!(passes(OWN, &m), heard, "{address}");
            assert!(!passes("172.16.7.1", &m), "of another family");
        }
        assert!(!passes(OWN, &message(kind, 0, libc::AF_INET, &[])), "of no address");
    }
    for kind in [libc::RTM_NEWROUTE, libc::RTM_DELROUTE] {
        assert!(!passes(OWN, &message(kind, 0, libc::AF_INET, &[(1, &v4(7))])), "a route");
    }
}

#[test]
fn what_it_asked_for_and_errors_always_come() {
    let multi = libc::NLM_F_MULTI as u16;
    for kind in [libc::RTM_NEWADDR, libc::RTM_NEWROUTE, libc::RTM_NEWNEIGH, libc::RTM_NEWLINK] {
        assert!(passes(OWN, &message(kind, multi, libc::AF_INET, &[(2, &v4(9))])));
    }
    for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR, libc::NLMSG_OVERRUN] {
        assert!(passes(OWN, &message(kind as u16, 0, 0, &[])));
    }
    assert!(passes(OWN, &message(libc::RTM_NEWNEIGH, 0, libc::AF_INET, &[])), "a single answer");
}

#[test]
fn a_text_with_a_word_that_is_no_address_names_none() {
    assert_eq!(addresses(" 10.0.0.1  fd97::1\n").unwrap().len(), 2);
    assert_eq!((addresses("10.0.0.1 eth1"), addresses("")), (None, Some(Vec::new())));
}
