//! Field types that only the client can resolve, before a request is sent.

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::Fault;

/// Which way bytes go through a passed descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The daemon reads it.
    Input,
    /// The daemon writes it.
    Output,
    /// The daemon writes it, and a file of that name is not replaced.
    New,
}

/// A file the client opens with the caller's own rights and passes as a descriptor; `-` is standard input or output.
///
/// In JSON it may be written as its path alone, which a client resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// As typed: for messages only, the daemon never opens it.
    pub name: String,
    /// Which of the request's descriptors it is; none until the client has opened it.
    pub descriptor: Option<u8>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Source, D::Error> {
        if d.is_human_readable() {
            return d.deserialize_any(Json);
        }
        Whole::deserialize(d).map(Source::from)
    }
}

/// A source as it crosses the wire.
#[derive(Deserialize)]
#[serde(rename = "Source", deny_unknown_fields)]
struct Whole {
    name: String,
    descriptor: Option<u8>,
}

impl From<Whole> for Source {
    fn from(w: Whole) -> Source {
        Source { name: w.name, descriptor: w.descriptor }
    }
}

struct Json;

impl<'de> Visitor<'de> for Json {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file's path, or {\"name\", \"descriptor\"}")
    }
    fn visit_str<E: Error>(self, path: &str) -> Result<Source, E> {
        path.parse().map_err(E::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        Whole::deserialize(MapAccessDeserializer::new(map)).map(Source::from)
    }
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
