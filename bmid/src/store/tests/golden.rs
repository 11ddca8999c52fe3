//! The bytes on disk never change their meaning: every shape that a release has written decodes for ever, and the current
//! ones encode to exactly the bytes in golden.txt.
//!
//! A changed shape means: raise its version, add a step to migrations, and *add* a line to golden.txt. Only before the first
//! release may a line be replaced; `BMID_GOLDEN=rewrite cargo test -p bmid golden` does that.

use std::collections::BTreeMap;

use super::super::codec::{self, Stored, StoredPart};
use super::super::{migrations, tables};
use super::samples;
use super::*;

fn encoded() -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<(String, Vec<u8>)> = Vec::new();
    for row in samples::rows() {
        out.push((row.table().as_str().to_owned(), codec::encode_row(&row).unwrap()));
    }
    out.push(("intent".into(), codec::encode(&samples::intent(90)).unwrap()));
    out.push(("part".into(), codec::encode(&StoredPart::new(&samples::part(90, 0)).unwrap()).unwrap()));
    out.push(("answer".into(), codec::encode(&samples::answer(91, Time(13))).unwrap()));
    out.push(("event".into(), codec::encode(&samples::event(14, 92)).unwrap()));
    out.push(("usage".into(), codec::encode(&samples::usage()).unwrap()));
    out.push(("meta".into(), codec::encode(&samples::meta()).unwrap()));
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

/// name and version -> bytes
fn golden() -> BTreeMap<(String, u8), Vec<u8>> {
    let mut out = BTreeMap::new();
    for line in include_str!("golden.txt").lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, version, bytes] = words[..] else { panic!("a line of golden.txt is not three words: {line}") };
        out.insert((name.to_owned(), version.parse().unwrap()), unhex(bytes));
    }
    out
}

#[test]
fn every_stored_shape_has_exactly_its_golden_bytes() {
    if std::env::var_os("BMID_GOLDEN").is_some_and(|v| v == "rewrite") {
        let mut text = "# table, version, bytes. See golden.rs before touching a line.\n".to_owned();
        for (name, bytes) in encoded() {
            text += &format!("{name} {} {}\n", bytes[0], hex(&bytes));
        }
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/tests/golden.txt"), text).unwrap();
        panic!("golden.txt was rewritten; look at the difference and run again");
    }
    let golden = golden();
    for (name, bytes) in encoded() {
        let line = format!("{name} {} {}", bytes[0], hex(&bytes));
        let wanted = golden.get(&(name, bytes[0]));
        assert_eq!(wanted, Some(&bytes), "the stored shape has changed; see golden.rs. The line would be\n{line}");
    }
}

#[test]
fn every_shape_ever_written_decodes_to_what_it_meant() {
    let stored: BTreeMap<String, Row> =
        samples::rows().into_iter().map(|r| (r.table().as_str().to_owned(), r)).collect();
    for ((name, _), bytes) in golden() {
        match name.as_str() {
            "intent" => assert_eq!(codec::decode::<Intent>(&bytes).unwrap(), samples::intent(90)),
            "part" => assert_eq!(codec::decode::<StoredPart>(&bytes).unwrap().open().unwrap(), samples::part(90, 0)),
            "answer" => assert_eq!(codec::decode::<Answer>(&bytes).unwrap(), samples::answer(91, Time(13))),
            "event" => assert_eq!(codec::decode::<Event>(&bytes).unwrap(), samples::event(14, 92)),
            "usage" => assert_eq!(codec::decode::<Usage>(&bytes).unwrap(), samples::usage()),
            "meta" => assert_eq!(codec::decode::<Meta>(&bytes).unwrap(), samples::meta()),
            row => {
                let table = tables::table_named(row).unwrap();
                assert_eq!(codec::decode_row(table, &bytes).unwrap(), stored[row], "{row}");
            }
        }
    }
}

#[test]
fn a_row_cut_short_too_long_newer_or_of_no_release_is_refused_with_a_typed_error() {
    let bytes = codec::encode_row(&samples::full_node().into()).unwrap();
    let decode = |b: &[u8]| codec::decode_row(Table::Node, b);
    assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Shape { .. })));
    assert!(matches!(decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Shape { .. })));
    assert!(matches!(decode(&[]), Err(DecodeError::Shape { .. })));
    assert_eq!(
        decode(&[&[Node::VERSION + 1], &bytes[1..]].concat()),
        Err(DecodeError::Newer { what: "node", found: Node::VERSION + 1, known: Node::VERSION })
    );
    assert_eq!(decode(&[&[0], &bytes[1..]].concat()), Err(DecodeError::Unknown { what: "node", found: 0 }));
}

#[test]
fn a_length_that_lies_is_refused_before_memory_is_asked_for() {
    // An intent whose method claims to be 2^60 bytes long.
    let mut bytes = codec::encode(&samples::intent(90)).unwrap();
    bytes[17..25].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(matches!(codec::decode::<Intent>(&bytes), Err(DecodeError::Shape { .. })));
}

#[test]
fn an_older_row_climbs_a_version_at_a_time_and_a_gap_is_an_error() {
    use migrations::{BytesStep, JsonStep, lift_bytes, lift_json};
    let steps = [
        BytesStep { table: 8, from: 1, lift: |b| Ok([b, b"2"].concat()) },
        BytesStep { table: 8, from: 2, lift: |b| Ok([b, b"3"].concat()) },
        BytesStep { table: 7, from: 1, lift: |_| Err("another table's".into()) },
    ];
    assert_eq!(&*lift_bytes(&steps, "node", 8, 1, 3, b"1").unwrap(), b"123");
    assert_eq!(&*lift_bytes(&steps, "node", 8, 3, 3, b"x").unwrap(), b"x");
    assert!(matches!(lift_bytes(&steps, "node", 8, 1, 4, b"1"), Err(DecodeError::Unknown { .. })));
    assert!(matches!(lift_bytes(&steps, "snapshot", 7, 1, 2, b"1"), Err(DecodeError::Shape { .. })));
    let json = [JsonStep { table: 8, from: 1, lift: |v| Ok(serde_json::json!([v])) }];
    assert_eq!(lift_json(&json, "node", 8, 1, 2, 1.into()).unwrap(), serde_json::json!([1]));
    assert!(matches!(lift_json(&json, "node", 8, 3, 2, 1.into()), Err(DecodeError::Newer { .. })));
}

#[test]
fn every_table_and_every_journal_shape_has_a_sample() {
    let names: Vec<String> = encoded().into_iter().map(|(n, _)| n).collect();
    for table in Table::ALL {
        assert!(names.iter().any(|n| n == table.as_str()), "{}", table.as_str());
    }
    for what in [Intent::WHAT, StoredPart::WHAT, Answer::WHAT, Event::WHAT, Usage::WHAT, Meta::WHAT] {
        assert!(names.iter().any(|n| n == what), "{what}");
    }
}
