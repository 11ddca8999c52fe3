//! Names: what people call things. They never become a path, an IQN or an RBD name; those come from ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Id;

/// A name of a managed object: 1 to 63 characters of `A-Z a-z 0-9 . _ -`, the first a letter or digit, and not shaped
/// like an id (a name that reads as an id could never be told from it on a command line).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The project that owns and pays. An opaque text; our own are names, raw records may hold any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

/// How a command names an object: `NAME` (the acting project's own), `OWNER/NAME`, or an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ref {
    /// The acting project's own object of that name.
    Own(Name),
    /// Another project's object.
    Of(Owner, Name),
    /// By id.
    Id(Id),
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    given: String,
    why: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a name: {}; use 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
            self.given, self.why
        )
    }
}

impl std::error::Error for BadName {}

fn check(s: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { given: s.chars().take(64).collect(), why });
    match s.as_bytes() {
        [] => return bad("it is empty"),
        b if b.len() > 63 => return bad("it is longer than 63 characters"),
        [first, ..] if !first.is_ascii_alphanumeric() => return bad("it does not begin with a letter or digit"),
        b if !b.iter().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(c)) => {
            return bad("it has a character outside A-Z a-z 0-9 . _ -");
        }
        _ => {}
    }
    if s.contains("..") {
        return bad("it has two dots in a row");
    }
    if s.parse::<Id>().is_ok() {
        return bad("it looks like an id");
    }
    Ok(())
}

macro_rules! text_type {
    ($t:ident, $check:expr) => {
        impl $t {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl TryFrom<String> for $t {
            type Error = BadName;
            fn try_from(s: String) -> Result<$t, BadName> {
                $check(&s)?;
                Ok($t(s))
            }
        }
        impl From<$t> for String {
            fn from(n: $t) -> String {
                n.0
            }
        }
        impl FromStr for $t {
            type Err = BadName;
            fn from_str(s: &str) -> Result<$t, BadName> {
                $t::try_from(s.to_owned())
            }
        }
    };
}

text_type!(Name, check);
text_type!(Owner, |s: &str| match s {
    "" => Err(BadName { given: String::new(), why: "it is empty" }),
    s if s.len() > 255 || s.contains(|c: char| c.is_control() || c == '/') => {
        Err(BadName {
            given: s.chars().take(64).collect(),
            why: "a project is at most 255 bytes without control characters and slashes",
        })
    }
    _ => Ok(()),
});

impl Owner {
    /// The project that exists from the first start and that root acts for (DESIGN section 2, point 1).
    #[must_use]
    pub fn default_project() -> Owner {
        Owner("default".to_owned())
    }
}

impl TryFrom<String> for Ref {
    type Error = BadName;

    fn try_from(s: String) -> Result<Ref, BadName> {
        if let Ok(id) = s.parse::<Id>() {
            return Ok(Ref::Id(id));
        }
        match s.split_once('/') {
            Some((owner, name)) => Ok(Ref::Of(owner.parse()?, name.parse()?)),
            None => Ok(Ref::Own(s.parse()?)),
        }
    }
}

impl From<Ref> for String {
    fn from(r: Ref) -> String {
        r.to_string()
    }
}

impl FromStr for Ref {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Ref, BadName> {
        Ref::try_from(s.to_owned())
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ref::Own(n) => write!(f, "{n}"),
            Ref::Of(o, n) => write!(f, "{o}/{n}"),
            Ref::Id(id) => write!(f, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(300);
        for bad in [
            "",
            "..",
            "a..b",
            "/etc",
            "a/b",
            "a\nb",
            "a\0b",
            &long,
            "узел",
            "結点",
            "-x",
            ".x",
            "a b",
            "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["a", "node-1", "Debian_12.5", "0"] {
            assert_eq!(good.parse::<Name>().map(String::from).as_deref(), Ok(good));
        }
    }

    #[test]
    fn a_ref_is_a_name_an_owned_name_or_an_id() {
        assert!(matches!("web".parse(), Ok(Ref::Own(_))));
        assert!(matches!("alice/web".parse(), Ok(Ref::Of(..))));
        assert!(matches!("0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".parse(), Ok(Ref::Id(_))));
        assert!("a/b/c".parse::<Ref>().is_err());
    }
}
