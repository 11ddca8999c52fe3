//! How rows of earlier releases become rows of this one, a version at a time. Old shapes live here, one file each, and
//! nowhere else. Nothing here may touch the store: a step takes bytes (or, in a dump, JSON) of one version and gives the next.
//!
//! Nothing has changed its shape yet; the lists are empty.

use std::borrow::Cow;

use super::codec::DecodeError;

/// Takes a row's body from one version to the next.
pub(super) struct BytesStep {
    /// The table's byte.
    pub(super) table: u8,
    /// The version it takes.
    pub(super) from: u8,
    /// Gives the body of version `from + 1`, or says why it cannot.
    pub(super) lift: fn(&[u8]) -> Result<Vec<u8>, String>,
}

/// The same for a dump's line.
pub(super) struct JsonStep {
    /// The table's byte.
    pub(super) table: u8,
    /// The version it takes.
    pub(super) from: u8,
    /// Gives the object of version `from + 1`, or says why it cannot.
    pub(super) lift: fn(serde_json::Value) -> Result<serde_json::Value, String>,
}

/// Every change of a stored shape there was, oldest first. Append only.
pub(super) const BYTES: &[BytesStep] = &[];
/// The same changes for dumps.
pub(super) const JSON: &[JsonStep] = &[];

/// Brings a row's body from version `found` to version `known`.
pub(super) fn lift_bytes<'a>(
    steps: &[BytesStep],
    what: &'static str,
    table: u8,
    found: u8,
    known: u8,
    body: &'a [u8],
) -> Result<Cow<'a, [u8]>, DecodeError> {
    let mut body = Cow::Borrowed(body);
    for from in found..known {
        let step = steps.iter().find(|s| s.table == table && s.from == from);
        let step = step.ok_or(DecodeError::Unknown { what, found })?;
        body = Cow::Owned((step.lift)(&body).map_err(|why| DecodeError::Shape { what, why })?);
    }
    Ok(body)
}

/// Brings a dump's row from version `found` to version `known`.
pub(super) fn lift_json(
    steps: &[JsonStep],
    what: &'static str,
    table: u8,
    found: u8,
    known: u8,
    mut row: serde_json::Value,
) -> Result<serde_json::Value, DecodeError> {
    if found > known {
        return Err(DecodeError::Newer { what, found, known });
    }
    for from in found..known {
        let step = steps.iter().find(|s| s.table == table && s.from == from);
        let step = step.ok_or(DecodeError::Unknown { what, found })?;
        row = (step.lift)(row).map_err(|why| DecodeError::Shape { what, why })?;
    }
    Ok(row)
}
