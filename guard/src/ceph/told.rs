//! What bmid and the guard tell one another, in files beside tgtd's management socket: sizes of disks that are about to be opened, and the
//! addresses of connections.

use std::fs::{File, read_to_string};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// Where tgtd's management socket is.
fn folder() -> Option<PathBuf> {
    let socket = std::env::var_os("TGT_IPC_SOCKET")?;
    Path::new(&socket).parent().map(Path::to_path_buf)
}

/// How many bytes an image has, if bmid has said so in the file `size.POOL.IMAGE` before it had tgtd open it.
pub(crate) fn size_of(pool: &str, image: &str) -> Option<u64> {
    if pool.contains('/') || image.contains('/') {
        return None;
    }
    read_to_string(folder()?.join(format!("size.{pool}.{image}"))).ok()?.trim().parse().ok()
}

/// Notes a connection's addresses in the file `rados`: `PROCESS ADDRESSES`, a line each. A lock of theirs is not a dead owner's.
/// One that is `alone` begins the file anew.
pub(crate) fn tell(addresses: &str, alone: bool) -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    let mut options = File::options();
    options.create(true).write(true).append(!alone).truncate(alone);
    options.open(folder.join("rados"))?.write_all(format!("{} {addresses}\n", std::process::id()).as_bytes())
}
