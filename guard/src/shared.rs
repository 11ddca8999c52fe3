//! Who may share a connection: LUNs whose user, cluster and configuration are the same, word for word. Numbers stand for
//! librados' handles; nothing here calls anything of theirs.

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What makes two connections the same.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Cluster, user and flags as they were given.
    pub(crate) who: String,
    /// The text of the configuration at the time.
    pub(crate) conf: Vec<u8>,
}

/// A handle that a LUN has.
struct Lun {
    handle: usize,
    key: Key,
    /// Something else was set: its connection is its own.
    private: bool,
    /// The handle that is connected for it.
    through: Option<usize>,
}

/// All handles of this process, in the order they were made.
pub(crate) struct Table {
    luns: Vec<Lun>,
    /// Handles that are connected and no LUN's any more, while others go through them.
    kept: Vec<usize>,
}

/// What is to be done to have a LUN connected.
pub(crate) enum Connect {
    /// Connect it; then tell.
    Itself,
    /// Nothing: it goes through one that is connected.
    Done,
}

/// What is to be done when a LUN goes: these handles are shut down.
pub(crate) type Leave = Vec<usize>;

static TABLE: Mutex<Table> = Mutex::new(Table { luns: Vec::new(), kept: Vec::new() });

/// All handles of this process. tgtd opens and closes LUNs in one thread, so nobody ever waits for it.
pub(crate) fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn lun(&mut self, handle: usize) -> Option<&mut Lun> {
        self.luns.iter_mut().find(|l| l.handle == handle)
    }

    /// A handle was made.
    pub(crate) fn made(&mut self, handle: usize, who: String) {
        self.luns.push(Lun { handle, key: Key { who, conf: Vec::new() }, private: false, through: None });
    }

    /// It has read a configuration.
    pub(crate) fn configured(&mut self, handle: usize, conf: Option<Vec<u8>>) {
        if let Some(lun) = self.lun(handle) {
            match conf {
                Some(conf) if lun.key.conf.is_empty() => lun.key.conf = conf,
                _ => lun.private = true,
            }
        }
    }

    /// It was told something of its own.
    pub(crate) fn told(&mut self, handle: usize) {
        if let Some(lun) = self.lun(handle) {
            lun.private = true;
        }
    }

    /// It is to be connected.
    pub(crate) fn connect(&mut self, handle: usize) -> Connect {
        let Some(lun) = self.lun(handle) else { return Connect::Itself };
        if lun.private || lun.key.conf.is_empty() {
            return Connect::Itself;
        }
        let key = lun.key.clone();
        let through = self.luns.iter().find(|l| !l.private && l.key == key && l.through.is_some());
        let through = through.and_then(|l| l.through);
        if let (Some(lun), Some(_)) = (self.lun(handle), through) {
            lun.through = through;
            return Connect::Done;
        }
        Connect::Itself
    }

    /// It was connected.
    pub(crate) fn connected(&mut self, handle: usize) {
        if let Some(lun) = self.lun(handle) {
            lun.through = Some(handle);
        }
    }

    /// No other is connected.
    pub(crate) fn alone(&self, handle: usize) -> bool {
        self.luns.iter().all(|l| l.through.is_none_or(|t| t == handle))
    }

    /// The handle that is connected for it.
    pub(crate) fn through(&self, handle: usize) -> usize {
        self.luns.iter().find(|l| l.handle == handle).and_then(|l| l.through).unwrap_or(handle)
    }

    /// Its LUN goes.
    pub(crate) fn leave(&mut self, handle: usize) -> Leave {
        let Some(at) = self.luns.iter().position(|l| l.handle == handle) else { return vec![handle] };
        let through = self.luns.remove(at).through;
        let used = |h: usize, luns: &[Lun]| luns.iter().any(|l| l.through == Some(h));
        let mut down = Vec::new();
        if used(handle, &self.luns) {
            self.kept.push(handle);
        } else {
            down.push(handle);
        }
        if let Some(through) = through.filter(|t| *t != handle && !used(*t, &self.luns))
            && let Some(at) = self.kept.iter().position(|k| *k == through)
        {
            down.push(self.kept.remove(at));
        }
        down
    }
}

/// Notes a connection's addresses in the file `rados` beside the management socket: `PROCESS ADDRESSES`, a line each. The first one
/// that lives begins the file anew.
pub(crate) fn tell(addresses: &str, alone: bool) -> std::io::Result<()> {
    let socket = std::env::var_os("TGT_IPC_SOCKET").unwrap_or_default();
    let Some(folder) = Path::new(&socket).parent() else { return Ok(()) };
    let mut options = std::fs::File::options();
    options.create(true).write(true).append(!alone).truncate(alone);
    options.open(folder.join("rados"))?.write_all(format!("{} {addresses}\n", std::process::id()).as_bytes())
}
