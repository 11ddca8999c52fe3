//! An image in a pool, as people name it. Pure; it never says whether there is one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest part of a name; librbd's own limits are below that.
const LONGEST: usize = 128;

/// `POOL/[NAMESPACE/]IMAGE[@SNAPSHOT]`. As the location of a golden image (storage-driver Image: location, imageName): its
/// bytes are there, and not under a name that derives from its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RbdSource {
    /// The pool.
    pub pool: String,
    /// The namespace in it.
    pub namespace: Option<String>,
    /// The image.
    pub image: String,
    /// A snapshot of it.
    pub snap: Option<String>,
}

impl fmt::Display for RbdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.pool)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.image)?;
        self.snap.as_ref().map_or(Ok(()), |snap| write!(f, "@{snap}"))
    }
}

impl FromStr for RbdSource {
    type Err = String;

    fn from_str(s: &str) -> Result<RbdSource, String> {
        let (path, snap) = match s.split_once('@') {
            Some((path, snap)) => (path, Some(snap.to_owned())),
            None => (s, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (pool, namespace, image) = match parts.as_slice() {
            [pool, image] => (*pool, None, *image),
            [pool, namespace, image] => (*pool, Some((*namespace).to_owned()), *image),
            _ => return Err(bad(s)),
        };
        let plain =
            |p: &str| !p.is_empty() && p.len() <= LONGEST && !p.contains('@') && !p.chars().any(char::is_control);
        let named = [Some(pool), namespace.as_deref(), Some(image), snap.as_deref()];
        if !named.into_iter().flatten().all(|p| plain(p) && !p.contains('/')) {
            return Err(bad(s));
        }
        Ok(RbdSource { pool: pool.to_owned(), image: image.to_owned(), namespace, snap })
    }
}

fn bad(s: &str) -> String {
    let shown: String = s.chars().take(80).collect();
    format!("{shown:?} is no image of a pool; give POOL/IMAGE, POOL/IMAGE@SNAPSHOT or POOL/NAMESPACE/IMAGE")
}

impl TryFrom<String> for RbdSource {
    type Error = String;
    fn try_from(s: String) -> Result<RbdSource, String> {
        s.parse()
    }
}

impl From<RbdSource> for String {
    fn from(source: RbdSource) -> String {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_is_named_as_rbd_names_it() {
        for (text, namespace, snap) in [
            ("p/i", None, None),
            ("p/i@s", None, Some("s")),
            ("p/n/i", Some("n"), None),
            ("p/n/i@s", Some("n"), Some("s")),
        ] {
            let found: RbdSource = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((found.pool.as_str(), found.image.as_str()), ("p", "i"));
            assert_eq!((found.namespace.as_deref(), found.snap.as_deref()), (namespace, snap));
        }
        for bad in ["", "p", "p/", "/i", "p//i", "p/i@", "p/i@s@t", "a/b/c/d", "p/i@s/t", "p/\ni"] {
            assert!(bad.parse::<RbdSource>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back_as_it_was(text in "\\PC{0,40}") {
            if let Ok(found) = text.parse::<RbdSource>() {
                prop_assert_eq!(found.to_string(), text);
            }
        }
    }
}
