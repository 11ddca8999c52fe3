//! The key beside the state, and secrets sealed under it: what is stored, dumped or journalled is ciphertext.
//!
//! A key is made once and never replaced here: with another key every sealed secret would be lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bmi::model::{Fault, Kind, Sealed};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::drivers::{DriverError, Unseal};

/// Length of a key.
const KEY: usize = 32;
/// Length of a nonce: long enough to be random.
const NONCE: usize = 24;
/// First byte of what is sealed this way.
const VERSION: u8 = 1;
/// Bound to every sealed secret.
const PURPOSE: &[u8] = b"bmid secret 1";

/// Seals and opens secrets.
pub struct Keyring(XChaCha20Poly1305);

impl Keyring {
    /// The key of a state folder, made if there is none and `may_make`. The folder's lock must be held.
    pub fn open(state: &Path, may_make: bool) -> Result<Keyring, Fault> {
        let path = state.join("key");
        let failed = |e: io::Error| {
            Fault::new(Kind::Unavailable, e.to_string())
                .trying(format!("read or make the key {}", path.display()))
                .fix("look at the folder's owner and mode, and at its file system")
        };
        let key = match read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_make => make(&path).map_err(failed)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(lost(&path)),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(broken(&path)),
            other => other.map_err(failed)?,
        };
        Ok(Keyring(XChaCha20Poly1305::new(&key.into())))
    }

    /// Seals a secret. Each time another text comes out.
    pub fn seal(&self, secret: &str) -> Sealed {
        let mut nonce = [0; NONCE];
        fill(&mut nonce);
        let payload = Payload { msg: secret.as_bytes(), aad: PURPOSE };
        let mut out = vec![VERSION];
        out.extend(nonce);
        // Encryption fails beyond 256 GiB alone; an empty box opens as nothing, it leaks nothing.
        out.extend(self.0.encrypt(&XNonce::from(nonce), payload).unwrap_or_default());
        Sealed(out)
    }

    fn unseal(&self, sealed: &Sealed) -> Option<String> {
        let (version, rest) = sealed.0.split_first()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE>()?;
        if *version != VERSION {
            return None;
        }
        let open = self.0.decrypt(&XNonce::from(*nonce), Payload { msg: text, aad: PURPOSE }).ok()?;
        String::from_utf8(open).ok()
    }
}

impl Unseal for Keyring {
    fn open(&self, sealed: &Sealed) -> Result<String, DriverError> {
        self.unseal(sealed).ok_or_else(|| {
            let why = "it was sealed with another key, or was changed since";
            DriverError::new(Kind::Corrupt, "open a sealed secret", why)
                .fix("put the file `key` back that belongs to this state, or give the node a new secret")
        })
    }
}

fn read(path: &Path) -> io::Result<[u8; KEY]> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        // Somebody copied it carelessly: close it, it still is the key.
        tracing::warn!("the key {} could be read by others; its mode is set to 0600", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let mut text = Vec::new();
    file.take(KEY as u64 + 1).read_to_end(&mut text)?;
    text.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// A key under its name only when it is whole and durable.
fn make(path: &Path) -> io::Result<[u8; KEY]> {
    let mut key = [0; KEY];
    fill(&mut key);
    let new = PathBuf::from(format!("{}.new", path.display()));
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key)
}

fn lost(path: &Path) -> Fault {
    Fault::new(Kind::Unavailable, "it is not there, and the state holds secrets sealed with it")
        .trying(format!("read the key {}", path.display()))
        .fix("put the key back from where the state folder is backed up to")
}

fn broken(path: &Path) -> Fault {
    Fault::new(Kind::Corrupt, format!("it is not {KEY} bytes long"))
        .trying(format!("read the key {}", path.display()))
        .fix("put the key back from where the state folder is backed up to")
}

/// Random bytes of the system.
pub(super) fn fill(bytes: &mut [u8]) {
    #[allow(clippy::expect_used, reason = "a system without random bytes can make no id and no key; ending is right")]
    getrandom::fill(bytes).expect("the system has random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (tempfile::TempDir, Keyring) {
        let dir = tempfile::tempdir().expect("a folder");
        let ring = Keyring::open(dir.path(), true).expect("a key");
        (dir, ring)
    }

    #[test]
    fn a_sealed_secret_opens_after_a_restart_and_shows_nothing() {
        let (dir, ring) = ring();
        let sealed = ring.seal("hunter2");
        assert!(!sealed.0.windows(7).any(|w| w == b"hunter2"));
        assert_ne!(sealed, ring.seal("hunter2"), "the same secret looks different each time");
        let again = Keyring::open(dir.path(), false).expect("the same key");
        assert_eq!(again.open(&sealed).expect("opens"), "hunter2");
        assert_eq!(again.open(&ring.seal("")).expect("opens"), "");
    }

    #[test]
    fn whatever_byte_is_changed_it_does_not_open() {
        let (_dir, ring) = ring();
        let sealed = ring.seal("s");
        for i in 0..sealed.0.len() {
            let mut other = sealed.clone();
            other.0[i] ^= 1;
            assert_eq!(ring.open(&other).map_err(|e| e.kind), Err(Kind::Corrupt), "byte {i}");
        }
        for short in 0..sealed.0.len() {
            assert!(ring.open(&Sealed(sealed.0[..short].to_vec())).is_err(), "{short} bytes");
        }
        assert!(self::ring().1.open(&sealed).is_err(), "another key");
    }

    #[test]
    fn the_key_is_readable_by_its_owner_alone_and_never_replaced() {
        let (dir, ring) = ring();
        let path = dir.path().join("key");
        let mode = |p: &Path| fs::metadata(p).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), fs::metadata(&path).expect("there").len()), (0o600, 32));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let again = Keyring::open(dir.path(), true).expect("opens");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(again.open(&ring.seal("same")).expect("opens"), "same");
    }

    #[test]
    fn a_lost_or_broken_key_is_said_to_be_so_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let fault = Keyring::open(dir.path(), false).map(|_| ()).expect_err("lost");
        assert!(fault.fix.contains("back"), "{fault}");
        let path = dir.path().join("key");
        for bad in [31, 33, 0] {
            fs::write(&path, vec![1; bad]).expect("written");
            assert_eq!(Keyring::open(dir.path(), true).map(|_| ()).map_err(|f| f.kind), Err(Kind::Corrupt));
            assert_eq!(fs::read(&path).expect("there").len(), bad);
        }
    }

    #[test]
    fn a_key_half_made_by_a_crash_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("key.new"), b"half").expect("written");
        Keyring::open(dir.path(), true).expect("a key");
        assert!(!dir.path().join("key.new").exists());
    }
}
