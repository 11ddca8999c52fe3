//! The floor: what one provision needs, done bare and in one thread: a clone with its fsyncs, the target, the two boot files,
//! two commits of a journal. It plans nothing, checks nothing, and could take nothing back.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::house::{House, sh};
use super::target::{self, Tgtd};

/// Bytes of a commit: what bmid's journal writes for a provision.
const COMMIT: usize = 4_096;
const IQN: &str = "iqn.2026-11.internal.floor:01234567-89ab-cdef-0123-";

/// The floor's own tgtd, disks, boot files and journal, on the same file systems as bmid's.
pub(crate) struct Floor {
    tgtd: Tgtd,
    golden: PathBuf,
    disks: PathBuf,
    boot: PathBuf,
    journal: File,
    script: Vec<u8>,
    host: Vec<u8>,
    filled: u32,
}

impl Floor {
    /// An empty one. Its boot files have the bytes of those that bmid wrote for a node, which must be there.
    pub(crate) fn new(house: &House) -> Floor {
        let boot = PathBuf::from("/run/floor");
        let disks = house.path("disk/floor/volumes");
        for folder in [&boot.join("hosts"), &boot.join("mac"), &disks] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let one = |pattern: &str| std::fs::read(sh(&format!("ls {pattern} | head -1")).trim()).expect("a boot file");
        let journal = OpenOptions::new().create(true).append(true).open(house.path("journal")).expect("a file");
        Floor {
            tgtd: Tgtd::start(&boot.join("tgtd"), 3_261),
            golden: house.golden(),
            disks,
            script: one("/run/bmid/net/*/boot/tftp/mac/*"),
            host: one("/run/bmid/net/*/boot/hosts/*"),
            boot,
            journal,
            filled: 0,
        }
    }

    /// Makes targets until there are `n`.
    pub(crate) fn fill(&mut self, n: usize) {
        let n = u32::try_from(n).expect("few");
        for tid in self.filled + 1..=n {
            target::make(&self.tgtd.socket, tid, &format!("{IQN}{tid:012}"), &self.clone_disk(tid, false));
        }
        self.filled = self.filled.max(n);
    }

    /// What one provision needs, of a number beyond those it was filled with.
    pub(crate) fn provision(&mut self, tid: u32) {
        self.commit();
        let disk = self.clone_disk(tid, true);
        target::make(&self.tgtd.socket, tid, &format!("{IQN}{tid:012}"), &disk);
        self.replace(&self.boot.join(format!("mac/{tid:012}.ipxe")), &self.script);
        self.replace(&self.boot.join(format!("hosts/{IQN}{tid:012}")), &self.host);
        self.commit();
    }

    /// Takes it away again.
    pub(crate) fn deprovision(&mut self, tid: u32) {
        target::take(&self.tgtd.socket, tid);
        for file in [
            self.disk(tid),
            self.boot.join(format!("mac/{tid:012}.ipxe")),
            self.boot.join(format!("hosts/{IQN}{tid:012}")),
        ] {
            std::fs::remove_file(file).expect("it is there");
        }
    }

    fn disk(&self, tid: u32) -> PathBuf {
        self.disks.join(format!("{tid:012}.raw"))
    }

    fn clone_disk(&self, tid: u32, durable: bool) -> PathBuf {
        let (temp, path) = (self.disks.join(".new"), self.disk(tid));
        let from = File::open(&self.golden).expect("the golden disk");
        let to = File::create_new(&temp).expect("a new file");
        rustix::fs::ioctl_ficlone(&to, &from).expect("XFS shares bytes");
        to.set_permissions(Permissions::from_mode(0o600)).expect("set");
        if durable {
            to.sync_all().expect("synced");
        }
        std::fs::rename(&temp, &path).expect("renamed");
        if durable {
            sync(&self.disks);
        }
        path
    }

    fn replace(&self, path: &Path, content: &[u8]) {
        let temp = self.boot.join(".new");
        let mut file = File::create_new(&temp).expect("a new file");
        file.write_all(content).expect("written");
        file.sync_all().expect("synced");
        std::fs::rename(&temp, path).expect("renamed");
        sync(path.parent().expect("a folder"));
    }

    fn commit(&mut self) {
        self.journal.write_all(&[0x42; COMMIT]).expect("written");
        self.journal.sync_data().expect("synced");
    }
}

fn sync(folder: &Path) {
    File::open(folder).and_then(|f| f.sync_all()).expect("synced");
}
