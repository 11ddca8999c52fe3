//! Bytes and listings, without a tgtd.

use bmi::step::MakeTarget;
use proptest::prelude::*;

use super::super::make::Repairs;
use super::show::{self, BadListing, Connection, Listed, ListedLun};
use super::wire::{self, BadReply, Code, Mode, Op, Payload, Request};
use super::*;
use crate::drivers::target::conformance::{INITIATOR, account, lun};

#[test]
fn a_request_has_the_layout_that_tgtd_reads() {
    let payload = Payload::of("path", "/a").unwrap().and("bstype", "rdwr").unwrap();
    let bytes = Request::new(Mode::Device, Op::New).tid(0x0102).lun(3).with(payload).encode().unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes.len(), 120 + 20);
    assert_eq!((word(0), word(4), word(72), word(76), word(88)), (2, 0, 140, 0x0102, 3));
    assert_eq!(&bytes[8..14], b"iscsi\0");
    assert_eq!(&bytes[120..], b"path=/a,bstype=rdwr\0");
    let all = Request::new(Mode::Target, Op::Show).all().encode().unwrap();
    assert_eq!((all.len(), &all[76..80]), (120, &[255; 4][..]));
    let cut = Request::new(Mode::Connection, Op::Delete).tid(1).connection(0x0a0b, 7).force(true).encode().unwrap();
    assert_eq!(
        (&cut[80..88], &cut[96..100], &cut[116..]),
        (&[0x0b, 0x0a, 0, 0, 0, 0, 0, 0][..], &[7, 0, 0, 0][..], &[1, 0, 0, 0][..])
    );
}

#[test]
fn a_payload_never_grows_past_what_tgtd_takes_and_no_value_ends_its_field() {
    let room = wire::MAX_PAYLOAD - "path=".len() - 1;
    let most = Payload::of("path", &"x".repeat(room)).unwrap();
    let bytes = Request::new(Mode::Device, Op::New).with(most).encode().unwrap();
    assert!(bytes.len() <= wire::HEADER + 8_192);
    for bad in ["", "a,b", "a\0b", "a\nb", "a\u{85}b", &"x".repeat(room + 1)] {
        let e = Payload::of("password", bad).map(drop).unwrap_err().to_string();
        assert!(e.contains("password") && (bad.len() < 3 || !e.contains(bad)), "{e}");
    }
}

#[test]
fn a_request_that_would_crash_tgtd_is_never_encoded() {
    for (mode, op) in [
        (Mode::Target, Op::New),
        (Mode::Target, Op::Update),
        (Mode::Account, Op::New),
        (Mode::Portal, Op::New),
        (Mode::Target, Op::Bind),
    ] {
        assert!(Request::new(mode, op).encode().is_err(), "{mode:?} {op:?}");
    }
}

#[test]
fn a_reply_is_read_and_what_is_none_is_refused() {
    let whole = [&0u32.to_le_bytes()[..], &12u32.to_le_bytes(), b"hey\0"].concat();
    assert_eq!(wire::decode(&whole), Ok((Code(0), "hey".to_owned())));
    assert_eq!(wire::decode(&whole[..9]), Err(BadReply::Short(9)));
    assert_eq!(wire::decode(&[0; 7]), Err(BadReply::Short(7)));
    let long = [0u32.to_le_bytes(), (wire::MAX_REPLY as u32 + 1).to_le_bytes()].concat();
    assert_eq!(wire::decode(&long), Err(BadReply::Length(wire::MAX_REPLY as u32 + 1)));
}

const TWO: &str = "Target 1: iqn.a:1\n    System information:\n        Driver: iscsi\n        State: ready\n    \
    I_T nexus information:\n        I_T nexus: 8\n            Initiator: iqn.i alias: none\n            Connection: 0\n                \
    IP Address: 192.0.2.7\n    LUN information:\n        LUN: 0\n            Type: controller\n            SCSI ID: IET     00010000\n            \
    Online: Yes\n            Backing store path: None\n        LUN: 1\n            Type: disk\n            SCSI ID: abc\n            \
    SCSI SN: serial1\n            Online: Yes\n            Backing store path: /tmp/a=b: c.img\n            Backing store flags: \n    \
    Account information:\n        u1\n    ACL information:\n        iqn.i\n        192.0.2.0/24\n\
    Target 7: iqn.a:7\n    System information:\n        Driver: iscsi\n        State: offline\n    I_T nexus information:\n    \
    LUN information:\n        LUN: 0\n            Backing store path: None\n    Account information:\n    ACL information:\n\n";

fn names() -> Vec<(u32, String)> {
    show::targets("LLDs:\n    iscsi: ready\n        Target 7: iqn.a:7\n        Target 1: iqn.a:1\n    iser: error\n")
}

#[test]
fn a_listing_is_read_whole() {
    let l = ListedLun {
        number: 1,
        path: "/tmp/a=b: c.img".to_owned(),
        serial: "serial1".to_owned(),
        scsi_id: "abc".to_owned(),
        online: true,
    };
    let one = Listed {
        tid: 1,
        iqn: "iqn.a:1".to_owned(),
        ready: true,
        busy: true,
        luns: vec![l],
        accounts: vec!["u1".to_owned()],
        initiators: vec!["iqn.i".to_owned(), "192.0.2.0/24".to_owned()],
    };
    let seven = Listed {
        tid: 7,
        iqn: "iqn.a:7".to_owned(),
        ready: false,
        busy: false,
        luns: vec![],
        accounts: vec![],
        initiators: vec![],
    };
    assert_eq!(show::listing(TWO, &names()), Ok(vec![one, seven]));
    assert_eq!(show::listing("\n", &[]), Ok(vec![]));
}

#[test]
fn a_listing_that_is_not_of_the_same_targets_is_not_believed() {
    let missing = &names()[..1];
    assert_eq!(show::listing(TWO, missing), Err(BadListing::Targets { after: "iqn.a:1".to_owned() }));
    let more = [names(), vec![(9, "iqn.a:9".to_owned())]].concat();
    assert_eq!(show::listing(TWO, &more), Err(BadListing::Targets { after: "iqn.a:7".to_owned() }));
    let cut = TWO.split_once("    ACL information").unwrap().0;
    assert_eq!(show::listing(cut, &names()[..1]), Err(BadListing::Part("iqn.a:1".to_owned())));
}

#[test]
fn connections_and_portals_are_read() {
    let text = "Session: 16\n    Connection: 0\n        Initiator: iqn.i:1\n        IP Address: 192.0.2.7\nSession: 15\n    \
                Connection: 1\n        Initiator: iqn.i:2\n        IP Address: fe80::1\n";
    let c = |sid, cid, initiator: &str, address: &str| Connection {
        sid,
        cid,
        initiator: initiator.to_owned(),
        address: address.to_owned(),
    };
    assert_eq!(show::connections(text), [c(16, 0, "iqn.i:1", "192.0.2.7"), c(15, 1, "iqn.i:2", "fe80::1")]);
    let portals = show::portals("Portal: 127.97.0.1:3260,1\nPortal: [::1]:3261,1\nPortal: x\n");
    assert_eq!(portals, [("127.97.0.1".to_owned(), 3260), ("::1".to_owned(), 3261)]);
}

#[test]
fn repairs_name_what_differs_and_nothing_else() {
    let want = MakeTarget {
        network: Id::from_random([1; 16]),
        tid: 1,
        iqn: "iqn.a:1".to_owned(),
        luns: vec![lun("/a")],
        initiator: INITIATOR.to_owned(),
        account: Some(account()),
    };
    let l = &want.luns[0];
    let listed = ListedLun {
        number: 1,
        path: l.path.clone(),
        serial: l.serial.clone(),
        scsi_id: l.scsi_id.clone(),
        online: true,
    };
    let whole = Listed {
        tid: 1,
        iqn: want.iqn.clone(),
        ready: true,
        busy: true,
        luns: vec![listed.clone()],
        accounts: vec![account().user],
        initiators: vec![INITIATOR.to_owned()],
    };
    assert!(Repairs::of(&whole, &want).nothing());
    let unmarked = Listed { luns: vec![ListedLun { serial: "beaf11".to_owned(), ..listed.clone() }], ..whole.clone() };
    assert_eq!(Repairs::of(&unmarked, &want), Repairs { mark: vec![l], ..Repairs::default() });
    let asleep = Listed { ready: false, ..whole.clone() };
    assert_eq!(Repairs::of(&asleep, &want), Repairs { wake: true, ..Repairs::default() });
    let off = Listed { luns: vec![ListedLun { online: false, ..listed }], ..whole.clone() };
    assert_eq!(Repairs::of(&off, &want), Repairs { close: vec![1], open: vec![l], ..Repairs::default() });
    let bare = Listed { luns: vec![], accounts: vec!["x".to_owned()], initiators: vec!["ALL".to_owned()], ..whole };
    let all = Repairs {
        open: vec![l],
        forget: vec!["x"],
        account: true,
        lock_out: vec!["ALL"],
        let_in: true,
        ..Repairs::default()
    };
    assert_eq!(Repairs::of(&bare, &want), all);
}

proptest! {
    /// The same as the fuzz targets do, for seconds instead of minutes.
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0..3_000usize, cut in 0..3_000usize) {
        let _ = wire::decode(&bytes);
        let mut text = TWO.as_bytes().to_vec();
        let at = at.min(text.len());
        let end = (at + cut % 50).min(text.len());
        text.splice(at..end, bytes.iter().copied().take(40));
        for t in [String::from_utf8_lossy(&bytes).into_owned(), String::from_utf8_lossy(&text).into_owned()] {
            let _ = (show::targets(&t), show::connections(&t), show::portals(&t), show::listing(&t, &names()));
            let _ = show::listing(&t, &show::targets(&t));
        }
    }

    /// Whatever an initiator has for an alias, cut off anywhere: the listing is refused, or says what it says without it.
    #[test]
    fn no_alias_makes_up_anything(lines in proptest::collection::vec(0..12usize, 0..14), cut in any::<bool>()) {
        let known: Vec<&str> = TWO.lines().collect();
        let pick = [0, 1, 3, 4, 9, 10, 15, 20, 22, 23, 24, 26].map(|i| known[i]);
        let alias: Vec<&str> = lines.iter().map(|&i| pick[i]).collect();
        let alias = alias.join("\n");
        let text = if cut {
            TWO.replace("none\n            Connection: 0\n                IP Address: 192.0.2.7\n", &alias)
        } else {
            TWO.replace("alias: none", &format!("alias: {alias}"))
        };
        let honest = show::listing(TWO, &names()).unwrap();
        if let Ok(read) = show::listing(&text, &names()) {
            prop_assert_eq!(read, honest);
        }
    }
}
