//! What librbd wrote for a clone of a golden image, and from it what another clone of the same image is. Pure.
//!
//! An image of format 2 is a name (`rbd_id.NAME`), an entry of the pool's directory, a header with a map of keys, an object map, and a line in
//! its parent's list of children. Of two clones of one snapshot the headers differ in the id alone, and in their times. What of a header is
//! not known here makes no pattern: then librbd alone makes the clones.

use std::collections::BTreeMap;

use super::ffi::FEATURES;
use super::names::{decode, encode};

/// The feature that says that there are `op_features`, and the one of those that a clone of the second kind has.
const OPERATIONS: u64 = 1 << 8;
const CLONE_CHILD: u64 = 1 << 1;

/// What a header may hold that every clone of the same snapshot holds as it is.
const SAME: [&str; 6] = ["features", "op_features", "order", "parent", "size", "snap_seq"];
/// What is each image's own, and made anew with it.
const OWN: [&str; 4] = ["access_timestamp", "create_timestamp", "modify_timestamp", "object_prefix"];
/// How the keys of an image's metadata begin.
pub(super) const METADATA: &str = "metadata_";

/// A key of a header's map, with its value as it stands there.
pub(super) type Key = (String, Vec<u8>);

/// A clone of one snapshot of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// RBD's id of the image that it is cloned from.
    pub(super) of: String,
    /// The number of the snapshot.
    snap: u64,
    order: u8,
    pub(super) size: u64,
    /// All of [`SAME`].
    keys: Vec<Key>,
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// Reads image and snapshot of what the class calls a parent: versions and length (1, 1, 4 bytes), the pool's number, its namespace, the image's id, the
/// snapshot's number; later releases may add behind those.
fn parent(spec: &[u8], pool: i64, namespace: &str) -> Option<(String, u64)> {
    // The second says which release's reader is needed at least.
    let (lies, rest) = spec.get(6..).filter(|_| spec[1] == 1)?.split_first_chunk::<8>()?;
    let space = decode(rest)?;
    let rest = rest.get(4 + space.len()..)?;
    let image = decode(rest)?;
    let snap = number(rest.get(4 + image.len()..)?.get(..8)?)?;
    let here = i64::from_le_bytes(*lies) == pool && space == namespace.as_bytes();
    here.then_some((std::str::from_utf8(image).ok()?.to_owned(), snap))
}

/// What all the data objects of an image begin with.
fn prefix(id: &str) -> Vec<u8> {
    encode(format!("rbd_data.{id}").as_bytes())
}

impl Pattern {
    /// Reads what librbd wrote: the header of image `id`, and what the class tells of its parent, which has to lie in the same pool and namespace.
    /// None for what cannot be made from this: another way to lay out the data, another pool for them, keys of a later release.
    pub(super) fn read(id: &str, header: Vec<Key>, spec: &[u8], pool: i64, namespace: &str) -> Option<Pattern> {
        let (of, snap) = parent(spec, pool, namespace)?;
        let all: BTreeMap<String, Vec<u8>> = header.into_iter().filter(|(key, _)| !key.starts_with(METADATA)).collect();
        let usual = all.len() == SAME.len() + OWN.len() && SAME.iter().chain(&OWN).all(|key| all.contains_key(*key));
        if !usual || all["object_prefix"] != prefix(id) {
            return None;
        }
        let order = *all["order"].first().filter(|order| (12..=25).contains(*order))?;
        let size = number(&all["size"])?;
        let is = |key: &str, value| number(&all[key]) == Some(value);
        if !(is("features", FEATURES | OPERATIONS) && is("op_features", CLONE_CHILD) && is("snap_seq", 0)) {
            return None;
        }
        let keys = all.into_iter().filter(|(key, _)| SAME.contains(&key.as_str())).collect();
        Some(Pattern { of, snap, order, size, keys })
    }

    /// The keys of another clone's header, all but what [`Pattern::create`] has the class write.
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The input of the class's `create`: size, order, features, the data's prefix, and no pool of their own for them.
    pub(super) fn create(&self, id: &str) -> Vec<u8> {
        let mut input = self.size.to_le_bytes().to_vec();
        input.push(self.order);
        // OPERATIONS cannot be asked for; the keys behind say it.
        input.extend(FEATURES.to_le_bytes());
        input.extend(prefix(id));
        input.extend((-1i64).to_le_bytes());
        input
    }

    /// The input of `object_map_resize`: how many objects, none of which is there.
    pub(super) fn object_map(&self) -> Vec<u8> {
        let mut input = self.size.div_ceil(1 << self.order).to_le_bytes().to_vec();
        input.push(0);
        input
    }

    /// The input of `child_attach`, for the parent's header: its snapshot, and who is its child (version 2 of what a child is, with its length).
    pub(super) fn child(&self, id: &str, pool: i64, namespace: &str) -> Vec<u8> {
        let mut child = pool.to_le_bytes().to_vec();
        child.extend(encode(id.as_bytes()));
        child.extend(encode(namespace.as_bytes()));
        let mut input = self.snap.to_le_bytes().to_vec();
        input.extend([2, 1]);
        input.extend(encode(&child));
        input
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use proptest::prelude::*;

    use super::*;

    /// What librbd 16.2.15 wrote for a clone of 2 GiB: the class's answers as they were.
    fn header() -> Vec<Key> {
        let parent = b"\x02\x02\x2d\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0c\x00\x00\x00101de8dca266\x04\0\0\0\0\0\0\0\x01\0\0\0\x80\0\0\0\0";
        let all: [(&str, &[u8]); 11] = [
            ("access_timestamp", b"\xff\xff\x03\x6b\x0a\x6d\xc0\x30"),
            ("create_timestamp", b"\xff\xff\x03\x6b\x0a\x6d\xc0\x30"),
            ("features", b"\x3d\x01\0\0\0\0\0\0"),
            ("metadata_bmid", b"{}"),
            ("modify_timestamp", b"\xff\xff\x03\x6b\x0a\x6d\xc0\x30"),
            ("object_prefix", b"\x15\0\0\0rbd_data.10251e3c529f"),
            ("op_features", b"\x02\0\0\0\0\0\0\0"),
            ("order", b"\x16"),
            ("parent", parent),
            ("size", b"\0\0\0\x80\0\0\0\0"),
            ("snap_seq", b"\0\0\0\0\0\0\0\0"),
        ];
        all.map(|(key, value)| (key.to_owned(), value.to_vec())).to_vec()
    }

    /// One of this image.
    pub(in super::super) fn pattern_of(of: &str) -> Pattern {
        Pattern { of: of.to_owned(), ..Pattern::read(ID, header(), SPEC, 1, "").unwrap() }
    }

    const ID: &str = "10251e3c529f";
    const SPEC: &[u8] = b"\x01\x01\x24\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0c\x00\x00\x00101de8dca266\x04\0\0\0\0\0\0\0";

    #[test]
    fn another_clone_is_told_to_the_classes_as_librbd_tells_it() {
        let pattern = Pattern::read(ID, header(), SPEC, 1, "").unwrap();
        assert_eq!((pattern.of.as_str(), pattern.snap, pattern.size), ("101de8dca266", 4, 2 << 30));
        let keys: Vec<&str> = pattern.keys().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["features", "op_features", "order", "parent", "size", "snap_seq"]);
        // Without the features that are not asked for; -1 is no pool of their own for the data.
        let created = b"\0\0\0\x80\0\0\0\0\x16\x3d\0\0\0\0\0\0\0\x0b\0\0\0rbd_data.ab\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(pattern.create("ab"), created);
        assert_eq!(pattern.object_map(), b"\0\x02\0\0\0\0\0\0\0");
        let child = b"\x04\0\0\0\0\0\0\0\x02\x01\x14\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0ab\x02\0\0\0ns";
        assert_eq!(pattern.child("ab", 1, "ns"), child);
    }

    #[test]
    fn what_is_not_known_is_no_pattern() {
        let read = |header| Pattern::read(ID, header, SPEC, 1, "");
        assert!(read(header()).is_some());
        for n in 0..header().len() {
            let mut less = header();
            let (key, _) = less.remove(n);
            assert_eq!(read(less).is_some(), key == "metadata_bmid", "without {key}");
        }
        for more in ["data_pool_id", "stripe_unit", "flags", "group_ref", "what a later release writes"] {
            let mut all = header();
            all.push((more.to_owned(), vec![0; 8]));
            assert!(read(all).is_none(), "{more}");
        }
        let with = |key: &str, value: &[u8]| {
            let mut all = header();
            all.iter_mut().filter(|(k, _)| k == key).for_each(|(_, v)| *v = value.to_vec());
            all
        };
        for (key, value) in [
            ("object_prefix", &b"\x17\0\0\0rbd_data.3.10251e3c529f"[..]),
            ("order", b""),
            ("order", b"\x40"),
            ("size", b"\0"),
            ("features", b""),
            ("features", b"\x7d\x01\0\0\0\0\0\0"),
            ("op_features", b"\x03\0\0\0\0\0\0\0"),
            ("snap_seq", b"\x04\0\0\0\0\0\0\0"),
        ] {
            assert!(read(with(key, value)).is_none(), "{key}");
        }
        let later = [b"\x02\x02", &SPEC[2..]].concat();
        assert!(Pattern::read(ID, header(), &later, 1, "").is_none(), "told in another release's words");
        assert!(Pattern::read(ID, header(), SPEC, 2, "").is_none(), "another pool's image");
        assert!(Pattern::read(ID, header(), SPEC, 1, "a").is_none(), "another namespace's image");
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_or_refused(spec in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..45, cut in 0usize..50) {
            let _ = parent(&spec, 1, "");
            let mut near = SPEC.to_vec();
            near[at.min(SPEC.len() - 1)] ^= 1 << (cut % 8);
            near.truncate(cut);
            let _ = parent(&near, 1, "");
        }
    }
}
