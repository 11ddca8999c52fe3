//! What the kernel has mapped, read from `/sys/bus/rbd/devices`. Looks only.

use std::fs;
use std::path::{Path, PathBuf};

use super::Disk;

/// One map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    /// The kernel's number for it: `/dev/rbd<number>`.
    pub(super) number: u32,
    /// Of which disk.
    pub(super) disk: Disk,
    /// The image's id.
    pub(super) id: String,
    /// It is of a snapshot, which ours never are.
    pub(super) snap: bool,
    /// The address of the client that holds it.
    pub(super) client: String,
}

impl Map {
    /// All maps of this kernel, by number. One that goes meanwhile is not among them.
    pub(super) fn all(bus: &Path) -> Vec<Map> {
        let Ok(entries) = fs::read_dir(bus.join("devices")) else { return Vec::new() };
        let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let mut all: Vec<Map> = numbers.filter_map(|number| Map::read(bus, number)).collect();
        all.sort_by_key(|m| m.number);
        all
    }

    /// The map of that number. None for one that does not tell all: it cannot be compared, so it is nobody's we know.
    pub(super) fn read(bus: &Path, number: u32) -> Option<Map> {
        let folder = bus.join("devices").join(number.to_string());
        let said = |what: &str| fs::read_to_string(folder.join(what)).ok().map(|t| t.trim_end_matches('\n').to_owned());
        let full = |what: &str| said(what).filter(|t| !t.is_empty());
        Some(Map {
            number,
            disk: Disk {
                fsid: full("cluster_fsid")?,
                pool: full("pool")?,
                // A kernel without namespaces has nothing in any.
                namespace: said("pool_ns").unwrap_or_default(),
                image: full("name")?,
            },
            id: full("image_id")?,
            snap: full("current_snap")? != "-",
            client: full("client_addr")?,
        })
    }

    /// Where it is opened.
    pub(super) fn device(&self) -> PathBuf {
        PathBuf::from(format!("/dev/rbd{}", self.number))
    }
}
