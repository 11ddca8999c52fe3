//! The two lines by which we know again what we wrote: whose it is and what it was made from, and whether somebody has
//! changed it since. Pure. What carries no such lines is not ours and never touched.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

const MARK: &str = "# bmid ";
const CONTENT: &str = "# content ";

/// Lower-case hex of the SHA-256.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, b| {
        out.push_str(&format!("{b:02x}"));
        out
    })
}

/// A file's text: `head` as it is (may be empty), the mark, the rest.
pub(super) fn write(head: &str, mark: &[(&str, &str)], rest: &str) -> String {
    let words: Vec<String> = mark.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{head}{MARK}{}\n{CONTENT}{}\n{rest}", words.join(" "), hash(rest.as_bytes()))
}

/// What a marked file says of itself.
pub(super) struct Mark {
    words: BTreeMap<String, String>,
    /// The rest is as it was written.
    pub(super) intact: bool,
}

impl Mark {
    /// The mark of a text, if it carries one.
    pub(super) fn read(text: &str) -> Option<Mark> {
        let body = text.strip_prefix("#!ipxe\n").unwrap_or(text);
        let (first, rest) = body.split_once('\n')?;
        let words = first.strip_prefix(MARK)?;
        let words = words.split(' ').filter_map(|w| w.split_once('='));
        let words = words.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let (content, rest) = rest.split_once('\n')?;
        let intact = content.strip_prefix(CONTENT) == Some(hash(rest.as_bytes()).as_str());
        Some(Mark { words, intact })
    }

    /// One of its values, if it is there and reads as that.
    pub(super) fn get<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.words.get(key)?.parse().ok()
    }
}
