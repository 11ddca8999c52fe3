//! Field types that only the client can resolve, before a request is sent.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::Fault;

/// Which way bytes go through a passed descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The daemon reads it.
    Input,
    /// The daemon writes it.
    Output,
}

/// A file the client opens with the caller's own rights and passes as a descriptor; `-` is standard input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As typed: for messages only, the daemon never opens it.
    pub name: String,
    /// Which of the request's descriptors it is; none until the client has opened it.
    pub descriptor: Option<u8>,
}

impl FromStr for Source {
    type Err = String;
    fn from_str(s: &str) -> Result<Source, String> {
        if s.is_empty() || s.contains('\0') {
            return Err("give a path, or - for standard input".to_owned());
        }
        Ok(Source { name: s.to_owned(), descriptor: None })
    }
}

/// A path the client makes absolute; the daemon uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPath(pub String);

impl FromStr for HostPath {
    type Err = String;
    fn from_str(s: &str) -> Result<HostPath, String> {
        if s.is_empty() || s.contains(['\0', '\n', ',']) {
            return Err("a path must not be empty or hold NUL, newline or comma".to_owned());
        }
        Ok(HostPath(s.to_owned()))
    }
}

/// What a client can do for an operation before it is sent.
pub trait Resolve {
    /// Opens it and notes which descriptor it became.
    fn open(&mut self, source: &mut Source, direction: Direction) -> Result<(), Fault>;
    /// Makes it absolute.
    fn absolute(&mut self, path: &mut HostPath) -> Result<(), Fault>;
    /// The lines of a text file (or `-`) that the client reads itself; at most 10,000 lines.
    fn lines(&mut self, path: &str) -> Result<Vec<String>, Fault>;
    /// Says something the person should know before going on.
    fn warn(&mut self, text: &str);
}
