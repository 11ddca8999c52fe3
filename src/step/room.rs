//! How much of a host a tgtd uses, where that ends, and what one more disk costs it.

use serde::{Deserialize, Serialize};

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Threads.
    Threads,
    /// Open files.
    Files,
    /// Bytes of memory.
    Memory,
}

impl Resource {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Resource::Threads => "threads",
            Resource::Files => "open files",
            Resource::Memory => "bytes of memory",
        }
    }
}

/// So much of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Threads.
    pub threads: u64,
    /// Open files.
    pub files: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Amounts {
    /// That of one.
    #[must_use]
    pub fn of(&self, what: Resource) -> u64 {
        match what {
            Resource::Threads => self.threads,
            Resource::Files => self.files,
            Resource::Memory => self.memory,
        }
    }
}

/// A limit that a tgtd stands under, alone or with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Of what.
    pub of: Resource,
    /// Its name, for people: `RLIMIT_NOFILE of process 12`.
    pub name: String,
    /// What is used of it, by all that stand under it.
    pub used: u64,
    /// Where it ends.
    pub most: u64,
    /// How it is raised.
    pub raise: String,
}

/// What a network's tgtd uses, may use, and needs for another disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What it uses.
    pub used: Amounts,
    /// What it stands under.
    pub limits: Vec<Limit>,
    /// What a disk costs that is a file or a block device.
    pub file: Amounts,
    /// What a disk costs that tgtd's own module opens in a pool.
    pub pool: Amounts,
}
