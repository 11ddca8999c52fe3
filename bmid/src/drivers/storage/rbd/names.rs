//! What our things in a pool are called, and the mark each carries. Pure.
//!
//! A name begins with the datastore's prefix, so engines that share a pool never meet; the mark, in the image's metadata, says
//! whose it is and is written when the image is whole: an image of ours without it, or with the one that librbd
//! copied from its parent, is half-made.

use bmi::model::Id;
use bmi::step::{Backing, BackingKind, Imported};
use serde::{Deserialize, Serialize};

/// The snapshot of a golden image that disks are cloned from.
pub(super) const BASE: &str = "base";
/// The key of the mark in an image's metadata.
pub(super) const MARK: &str = "bmid";
/// The object that lists what stands in no image: datastores, snapshots, unfinished imports, work to be done.
pub(super) const REGISTER: &str = "bmid.register";

/// What an image of ours says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) engine: Id,
    pub(super) datastore: Id,
    pub(super) kind: BackingKind,
    pub(super) id: Id,
    pub(super) generation: u32,
    /// RBD's id of the image that this is the mark of: clones begin with a copy of their parent's.
    #[serde(default)]
    pub(super) rbd: String,
    /// How many parents stand above it; more than there are after one of them was flattened.
    pub(super) depth: u32,
    /// What its import found out, for a golden image.
    pub(super) imported: Option<Imported>,
    /// The snapshot that is the golden image, where that is another's image under its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) in_place: Option<String>,
    /// What its records say, see `found.rs`. As it stands there: a note of another release's must not make a mark unreadable.
    pub(super) note: Option<serde_json::Value>,
}

/// Whether two addresses are of one client: `v2:10.0.0.1:0/3141592653`, or several in brackets with commas. Hosts and protocols may be
/// told in two ways; the number is the client's own.
pub(super) fn same_client(a: &str, b: &str) -> bool {
    let number = |address: &'_ str| address.rsplit_once('/').map(|(_, n)| n.trim_end_matches(']').to_owned());
    b.split(',').filter_map(number).any(|b| a.split(',').filter_map(number).any(|a| a == b))
}

impl Mark {
    pub(super) fn backing(&self) -> Backing {
        Backing { kind: self.kind, id: self.id, generation: self.generation }
    }
}

/// A name of ours, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// A golden image or a volume.
    Whole(Backing),
    /// A removed volume that snapshots still need.
    Hidden,
    /// An unfinished import.
    Staging,
    /// What waits for its end where librbd knows no trash.
    Gone,
}

/// The name of a removed volume that snapshots still need.
pub(super) fn hidden(prefix: &str, what: &Backing) -> String {
    format!("{prefix}.h.{}", what.name())
}

/// The name of what waits for its end where librbd knows no trash, by the id that it keeps.
pub(super) fn gone(prefix: &str, id: &str) -> String {
    format!("{prefix}.g.{id}")
}

/// The name of an unfinished import, by a digest of its staging name: image names are short.
pub(super) fn staging(prefix: &str, digest: &str) -> String {
    format!("{prefix}.n.{}", &digest[..digest.len().min(16)])
}

/// Whether a name is one of any datastore of any engine.
pub(super) fn any(name: &str) -> bool {
    let rest = name.strip_prefix("bmi.").and_then(|rest| rest.split_once('.'));
    rest.is_some_and(|(id, _)| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Reads a name; none for what is not ours.
pub(super) fn read(prefix: &str, name: &str) -> Option<Named> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
    let (letter, rest) = rest.split_once('.')?;
    match letter {
        "n" => return Some(Named::Staging),
        "g" => return Some(Named::Gone),
        _ => {}
    }
    let (id, generation) = rest.split_once('.')?;
    let (id, generation) = (id.parse().ok()?, generation.parse().ok()?);
    match letter {
        "i" => Some(Named::Whole(Backing { kind: BackingKind::Image, id, generation })),
        "v" => Some(Named::Whole(Backing { kind: BackingKind::Volume, id, generation })),
        "h" => Some(Named::Hidden),
        _ => None,
    }
}

/// The name of the RBD snapshot that a snapshot of ours is.
pub(super) fn snap(what: &Backing) -> String {
    what.rbd_snap()
}

/// The name of the RBD snapshot that a copy of a volume is made through.
pub(super) fn through(to: &Backing) -> String {
    format!("bmi.to.{}", to.name())
}

/// A text as Ceph's classes take it.
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    out.extend_from_slice(text);
    out
}

/// A text as Ceph's classes give it.
pub(super) fn decode(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_not_ours() {
        let id = Id::from_random([7; 16]);
        let prefix = format!("bmi.{}", "0".repeat(32));
        for what in [Backing::image(id), Backing::volume(id, 4_294_967_295)] {
            let name = what.rbd_name(&prefix);
            assert!(name.len() < 96, "{name} is longer than librbd's names");
            assert_eq!(read(&prefix, &name), Some(Named::Whole(what)));
            assert_eq!(read("bmi.0", &name), None);
            assert!(any(&name) && !any("bmi.debian.12"));
            assert_eq!(read(&prefix, &hidden(&prefix, &what)), Some(Named::Hidden));
        }
        assert_eq!(read(&prefix, &staging(&prefix, "0123")), Some(Named::Staging));
        assert_eq!(read(&prefix, &gone(&prefix, "10e5b2fc9a0c")), Some(Named::Gone));
        for foreign in ["", "vm-1", &prefix, &format!("{prefix}.v.x.0"), &format!("{prefix}.i.{id}")] {
            assert_eq!(read(&prefix, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn texts_survive_the_way_to_a_class_and_back() {
        assert_eq!(decode(&encode(b"mark")), Some(&b"mark"[..]));
        for bad in [&b""[..], b"\x01\0\0", b"\x05\0\0\0abcd"] {
            assert_eq!(decode(bad), None);
        }
    }
}
