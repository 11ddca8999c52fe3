//! A Ceph user's key on its way from its file into the kernel.
//!
//! It is read when the kernel is about to be asked and wiped afterwards. It must never stand in an error, a log, an argument or
//! a line that the kernel keeps.

use std::ffi::CString;
use std::fmt::Write;
use std::fs;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The only unsafe code.
pub(super) mod ffi;

/// Where a user's key stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// The file.
    pub path: String,
    /// The user whose section of a keyring or configuration holds it; none: the file is the key.
    pub user: Option<String>,
}

/// Why the kernel has no key.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoKey {
    #[error("{0} cannot be read: {1}")]
    Unread(String, String),
    #[error("{0} holds no key of {1}")]
    Missing(String, String),
    #[error("what {0} holds is no key")]
    Nonsense(String),
    #[error("the kernel does not take the key: {0}")]
    Refused(Errno),
    #[error("{0}")]
    Told(String),
}

impl KeyFile {
    /// The key as the kernel takes it.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, NoKey> {
        let unread = |e: std::io::Error| NoKey::Unread(self.path.clone(), e.to_string());
        let bytes = Zeroizing::new(fs::read(&self.path).map_err(unread)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| NoKey::Nonsense(self.path.clone()))?;
        let word = match &self.user {
            None => Some(text.trim()),
            Some(user) => in_section(text, &format!("client.{user}")),
        };
        let missing = || NoKey::Missing(self.path.clone(), self.user.clone().unwrap_or_default());
        decode(word.filter(|w| !w.is_empty()).ok_or_else(missing)?).ok_or_else(|| NoKey::Nonsense(self.path.clone()))
    }

    /// Has the kernel know it under a name until the value goes.
    pub(super) fn hold(&self, name: &str) -> Result<ffi::Held, NoKey> {
        let key = self.read()?;
        let name = CString::new(name).map_err(|_| NoKey::Refused(Errno::EINVAL))?;
        ffi::Held::add(&name, &key).map_err(NoKey::Refused)
    }
}

/// `key` in a section of Ceph's configuration format.
fn in_section<'a>(text: &'a str, section: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            inside = name.0.trim() == section;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == "key"
        {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

/// Reads base 64, padded or not. The room for it is taken once: what grows leaves copies behind.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut held) = (Zeroizing::new(0u32), 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        *bits = *bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((*bits >> held) as u8);
            *bits &= (1 << held) - 1;
        }
    }
    // Less than the frame of a key that Ceph gives (kind, time, length).
    (out.len() > 12).then_some(out)
}

/// A name for a key that no other request has.
pub(super) fn name(number: u64) -> String {
    let mut name = String::from("bmid");
    // Writing into a text does not fail.
    let _ = write!(name, ".{}.{number}", std::process::id());
    name
}
