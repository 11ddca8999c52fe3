//! Disks of a pool that are opened when a machine first asks for one of their bytes, by the thread that serves it, through one
//! connection for all whose user and configuration are the same.
//!
//! tgtd's module connects and opens in the loop that does all of tgtd's network I/O: 30 ms of everybody's time for each LUN, and seconds
//! when Ceph is slow. Here the module is answered at once from what bmid says of the disk (its size), and the loop never waits.
//! What a machine asks of a disk that cannot be opened ends in an error, and its next question tries again.
//!
//! Must never call Ceph itself: that is `ffi`'s, behind [`Library`].

use std::ffi::{CStr, CString, c_int};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

pub mod ffi;
#[cfg(test)]
mod tests;
mod told;

/// A handle of Ceph's libraries: a number here, never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) usize);

/// An open image, and the pool's context that it was opened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) context: Handle,
    pub(crate) image: Handle,
}

/// What was said of a connection before it was to be made. Whoever says the same word for word may share it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Word {
    User(Option<CString>),
    Name {
        cluster: Option<CString>,
        user: Option<CString>,
        flags: u64,
    },
    Environment(Option<CString>),
    /// With the file's text at the time.
    File(Option<CString>, Vec<u8>),
    Set(CString, CString),
}

/// Ceph's libraries, as far as they are asked. Errors are theirs: negative.
pub(crate) trait Library: Sync {
    fn connect(&self, words: &[Word]) -> Result<Handle, c_int>;
    fn disconnect(&self, cluster: Handle);
    fn open(&self, cluster: Handle, pool: &CStr, image: &CStr, snap: Option<&CStr>) -> Result<Opened, c_int>;
    fn close(&self, opened: Opened) -> c_int;
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is made once, when it is needed. Who waited while another failed gets that failure, instead of waiting as long again.
struct Late<T> {
    made: OnceLock<T>,
    failed: Mutex<Option<(Instant, c_int)>>,
}

impl<T: Copy> Late<T> {
    const fn new() -> Late<T> {
        Late { made: OnceLock::new(), failed: Mutex::new(None) }
    }

    fn get(&self, make: impl FnOnce() -> Result<T, c_int>) -> Result<T, c_int> {
        if let Some(made) = self.made.get() {
            return Ok(*made);
        }
        let came = Instant::now();
        let mut failed = lock(&self.failed);
        if let Some(made) = self.made.get() {
            return Ok(*made);
        }
        match *failed {
            Some((when, why)) if when >= came => return Err(why),
            _ => {}
        }
        match make() {
            Ok(made) => Ok(*self.made.get_or_init(|| made)),
            Err(why) => {
                *failed = Some((Instant::now(), why));
                Err(why)
            }
        }
    }
}

/// A connection, shared by all that hold it and shut down by the last.
pub(crate) struct Connection {
    library: &'static dyn Library,
    words: Vec<Word>,
    handle: Late<Handle>,
}

impl Connection {
    fn handle(&self) -> Result<Handle, c_int> {
        self.handle.get(|| self.library.connect(&self.words))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.made.get() {
            self.library.disconnect(*handle);
        }
    }
}

/// Connections that somebody holds.
pub(crate) struct Connections(Mutex<Vec<Weak<Connection>>>);

impl Connections {
    pub(crate) const fn new() -> Connections {
        Connections(Mutex::new(Vec::new()))
    }

    /// The one of whom the same was said, or a new one.
    fn join(&self, library: &'static dyn Library, words: &[Word]) -> Arc<Connection> {
        let mut all = lock(&self.0);
        all.retain(|c| c.strong_count() > 0);
        if let Some(there) = all.iter().filter_map(Weak::upgrade).find(|c| c.words == words) {
            return there;
        }
        let new = Arc::new(Connection { library, words: words.to_vec(), handle: Late::new() });
        all.push(Arc::downgrade(&new));
        new
    }
}

/// What tgtd's module has for a cluster.
pub(crate) struct Cluster {
    words: Mutex<Vec<Word>>,
    connection: OnceLock<Arc<Connection>>,
}

impl Cluster {
    pub(crate) fn new(first: Word) -> Cluster {
        Cluster { words: Mutex::new(vec![first]), connection: OnceLock::new() }
    }

    pub(crate) fn say(&self, word: Word) {
        lock(&self.words).push(word);
    }

    /// From here on nothing more can be said of it.
    pub(crate) fn join(&self, library: &'static dyn Library, all: &Connections) -> Arc<Connection> {
        self.connection.get_or_init(|| all.join(library, &lock(&self.words))).clone()
    }
}

/// A pool of it.
pub(crate) struct Context {
    pub(crate) connection: Arc<Connection>,
    pub(crate) pool: CString,
}

/// An image of that.
pub(crate) struct Image {
    connection: Arc<Connection>,
    pool: CString,
    name: CString,
    snap: Option<CString>,
    /// In bytes, if bmid has said it.
    pub(crate) size: Option<u64>,
    opened: Late<Opened>,
}

impl Image {
    /// Opened now, unless its size is known.
    pub(crate) fn new(
        context: &Context,
        name: CString,
        snap: Option<CString>,
        size: Option<u64>,
    ) -> Result<Image, c_int> {
        let (connection, pool) = (context.connection.clone(), context.pool.clone());
        let image = Image { connection, pool, name, snap, size, opened: Late::new() };
        if size.is_none() {
            image.handle()?;
        }
        Ok(image)
    }

    /// librbd's handle, for what cannot be answered without it.
    pub(crate) fn handle(&self) -> Result<Handle, c_int> {
        let connection = &self.connection;
        let open = || connection.library.open(connection.handle()?, &self.pool, &self.name, self.snap.as_deref());
        self.opened.get(open).map(|o| o.image)
    }

    /// librbd's handle, if it was ever needed.
    pub(crate) fn open(&self) -> Option<Handle> {
        self.opened.made.get().map(|o| o.image)
    }

    pub(crate) fn close(self) -> c_int {
        self.opened.made.get().map_or(0, |o| self.connection.library.close(*o))
    }
}
