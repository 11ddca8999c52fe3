//! What is an address, a subnet and a range, and what is none.

use super::*;

#[test]
fn stored_bytes_have_one_spelling_and_people_several() {
    fn read<T: for<'de> serde::Deserialize<'de>>(text: &str) -> (bool, bool) {
        let stored = bincode::serialize(text).unwrap();
        let people = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        (bincode::deserialize::<T>(&stored).is_ok(), T::deserialize(people).is_ok())
    }
    assert_eq!(read::<Mac>("52:54:00:00:00:0a"), (true, true));
    assert_eq!(read::<Mac>("52-54-00-00-00-0A"), (false, true));
    assert_eq!(read::<Cidr>("10.9.0.1/24"), (true, true));
    assert_eq!(read::<Cidr>("10.9.0.1/+24"), (false, true));
    assert_eq!(read::<Range>("10.9.0.1-10.9.0.2"), (true, true));
    assert_eq!(read::<Range>("10.9.0.1 - 10.9.0.2"), (false, true));
}

#[test]
fn a_mac_is_one_cards_address() {
    assert_eq!("52-54-00-AB-cd-01".parse::<Mac>().map(|m| m.to_string()).as_deref(), Ok("52:54:00:ab:cd:01"));
    for bad in [
        "",
        "52:54:00:00:00",
        "52:54:00:00:00:01:02",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "5254:00:00:00:01",
        "g2:54:00:00:00:01",
        "52:54:00:00:00:0١",
    ] {
        assert!(bad.parse::<Mac>().is_err(), "{bad}");
    }
}

#[test]
fn subnets_overlap_when_one_holds_the_other() {
    let c = |s: &str| s.parse::<Cidr>().expect(s);
    assert!(c("10.9.0.1/24").overlaps(c("10.9.0.129/25")));
    assert!(c("10.9.0.129/25").overlaps(c("10.9.0.1/16")));
    assert!(!c("10.9.0.1/24").overlaps(c("10.9.1.1/24")));
    for bad in ["10.9.0.0/24", "10.9.0.255/24", "10.9.0.1", "10.9.0.1/31", "127.0.0.2/8", "224.0.0.1/24", "x/24"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}

#[test]
fn a_subnet_has_no_host_bits_and_room_for_a_node() {
    let s = |t: &str| t.parse::<Subnet>().map(|s| s.hosts().to_string());
    assert_eq!(s("10.9.0.0/24").as_deref(), Ok("10.9.0.1-10.9.0.254"));
    assert_eq!(s("10.9.0.4/30").as_deref(), Ok("10.9.0.5-10.9.0.6"));
    for (bad, told) in [
        ("10.9.0.7/24", "in the subnet 10.9.0.0/24"),
        ("10.9.0.0/31", "too small"),
        ("10.9.0.1/32", "too small"),
        ("10.0.0.0/7", "larger"),
        ("10.9.0.0", "like 10.9.0.0/24"),
        ("127.0.0.0/8", "cannot be an engine's"),
        ("224.0.0.0/24", "cannot be an engine's"),
    ] {
        let why = s(bad).expect_err(bad);
        assert!(why.contains(told), "{bad}: {why}");
    }
}

#[test]
fn a_range_counts_round() {
    let r: Range = "10.9.0.100-10.9.0.102".parse().expect("range");
    assert_eq!((r.len(), r.at(4)), (3, IpAddr::from([10, 9, 0, 101])));
    assert!("10.9.0.2-10.9.0.1".parse::<Range>().is_err());
}

#[test]
fn an_ipv6_subnet_is_a_64_with_places_for_machines_of_each_kind() {
    let c: Cidr = "fd00:7:0:1::1/64".parse().expect("a subnet");
    assert_eq!((c.to_string().as_str(), c.subnet().to_string().as_str()), ("fd00:7:0:1::1/64", "fd00:7:0:1::/64"));
    assert_eq!(c.hosts().to_string(), "fd00:7:0:1::1-fd00:7:0:1:ffff:ffff:ffff:ffff");
    assert_eq!((c.leased().len(), c.leased().to_string().as_str()), (32_768, "fd00:7:0:1::1:0-fd00:7:0:1::1:7fff"));
    assert_eq!(c.reserved().to_string(), "fd00:7:0:1::1000:0-fd00:7:0:1::ffff:ffff");
    assert_eq!(c.reserved().len() % BLOCK, 0);
    assert_eq!(c.reserved().at(16).to_string(), "fd00:7:0:1::1000:10");
    let inside = |a: &str| c.contains(a.parse().expect(a));
    assert!(inside("fd00:7:0:1:5054:ff:fe00:1") && !inside("fd00:7:0:2::1") && !inside("10.9.0.1"));
    assert!(
        !c.overlaps("10.9.0.1/24".parse().expect("a subnet")) && c.overlaps("fd00:7:0:1::9/64".parse().expect("one"))
    );
    for (bad, told) in [
        ("fd00:7::1/48", "use 64"),
        ("fd00:7::/64", "network address"),
        ("fe80::1/64", "cannot be an engine's"),
        ("ff02::1/64", "cannot be an engine's"),
        ("::1/64", "cannot be an engine's"),
        ("::ffff:10.9.0.1/64", "cannot be an engine's"),
        ("fd00:7::1", "like 10.9.0.1/24 or fd00:7::1/64"),
    ] {
        let why = bad.parse::<Cidr>().expect_err(bad);
        assert!(why.contains(told), "{bad}: {why}");
    }
    assert_eq!("fd00:7::/64".parse::<Subnet>().map(|s| s.hosts().first.to_string()).as_deref(), Ok("fd00:7::1"));
    for bad in ["fd00:7::/63", "fd00:7::1/64", "fe80::/64", "fd00:7::/30"] {
        assert!(bad.parse::<Subnet>().is_err(), "{bad}");
    }
    assert!("fd00::1-10.9.0.2".parse::<Range>().is_err());
}
