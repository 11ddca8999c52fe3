//! A small XFS of its own on a loop file, gone with its owner, panic or not.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The smallest size mkfs.xfs takes.
const SIZE: u64 = 300 << 20;

/// A mounted file system.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
    mounted: bool,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let out =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}; install xfsprogs and mount"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr)))
}

impl Disk {
    /// Makes and mounts one.
    pub(crate) fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
        run("mkfs.xfs", &["-q", "-f", file.to_str().unwrap()]).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut disk = Disk { dir, mounted: false };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub(crate) fn mount(&mut self) {
        run("mount", &["-o", "loop", self.file().to_str().unwrap(), self.path().to_str().unwrap()]).unwrap();
        self.mounted = true;
    }

    pub(crate) fn unmount(&mut self) {
        // A killed child's memory maps may keep it busy for a moment.
        let done = (0..100).find_map(|_| {
            let done = run("umount", &[self.path().to_str().unwrap()]).ok();
            if done.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            done
        });
        done.expect("the file system cannot be unmounted");
        self.mounted = false;
        // A mount namespace made meanwhile by something else on this machine holds it too. Mounted again while it does, it
        // would be the very same file system, still shut down.
        let file = self.file();
        let held = || Command::new("losetup").arg("-j").arg(&file).output().is_ok_and(|o| !o.stdout.is_empty());
        let gone = (0..1_200).any(|_| {
            let gone = !held();
            if !gone {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            gone
        });
        assert!(gone, "something else holds the file system");
    }

    /// The power goes: nothing that is not on the disk by now ever gets there.
    pub(crate) fn lose_power(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", self.path().to_str().unwrap()]).unwrap();
    }

    /// Mounts it read-only, or for writing again.
    pub(crate) fn read_only(&self, yes: bool) {
        let how = if yes { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", how, self.path().to_str().unwrap()]).unwrap();
    }

    /// Bytes free.
    pub(crate) fn free(&self) -> u64 {
        let s = nix::sys::statvfs::statvfs(&self.path()).unwrap();
        s.blocks_available() * s.fragment_size()
    }

    /// Fills it until `left` bytes or less are free, with a file that `drop_fill` takes away.
    pub(crate) fn fill(&self, left: u64) {
        use std::io::Write as _;
        let mut out = std::fs::File::options().append(true).create(true).open(self.fill_path()).unwrap();
        for piece in [1 << 20, 4096, 512] {
            while self.free() > left && out.write_all(&vec![0u8; piece]).is_ok() {}
            // Blocks promised to data still in memory are not free; settle before going finer.
            let _ = out.sync_all();
        }
    }

    /// Makes room again. XFS gives a removed file's blocks back in the background: on a busy machine not at once.
    pub(crate) fn drop_fill(&self) {
        let held = std::fs::metadata(self.fill_path()).unwrap().len();
        std::fs::remove_file(self.fill_path()).unwrap();
        let back = (0..1_200).any(|_| {
            let back = self.free() >= held / 2;
            if !back {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            back
        });
        assert!(back, "the blocks of a removed file are not free again");
    }

    fn fill_path(&self) -> PathBuf {
        self.path().join("fill")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let path: &Path = &self.path();
            // Lazily: a process of a failed test may still be in it.
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
