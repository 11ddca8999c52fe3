//! Where a datastore's folder is and by which file it is known. It looks at names only, never at the disk.

use std::path::{Component, Path, PathBuf};

use bmi::model::{Kind, Place};

use crate::drivers::DriverError;

/// The file with the datastore's id.
pub(super) const MARKER: &str = ".bmid-datastore";

/// The folder of a place; another driver's place has none.
pub(super) fn folder(place: &Place) -> Result<&str, DriverError> {
    match place {
        Place::Folder { path, .. } => Ok(path),
        Place::Rbd(_) => Err(DriverError::new(Kind::Internal, format!("use {}", place.word()), "it is not a folder")),
    }
}

/// The path of a place, if it is one that bmid uses.
pub(super) fn path(place: &Place) -> Result<PathBuf, DriverError> {
    let path = folder(place)?;
    let odd = |c: Component<'_>| !matches!(c, Component::RootDir | Component::Normal(_));
    let p = Path::new(path);
    if !p.is_absolute() || p.parent().is_none() || p.components().any(odd) || path.chars().any(char::is_control) {
        let why = "a datastore's folder is an absolute path without `..` and control characters, and not `/`";
        return Err(DriverError::new(Kind::Invalid, format!("use the folder {path:?}"), why)
            .fix("give a folder like /srv/bmid"));
    }
    // Collected anew, without a slash at the end.
    Ok(p.components().collect())
}
