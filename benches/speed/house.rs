//! A host of the measurement's own: network, mounts and processes in namespaces, a disk with XFS on it, bmid and its client
//! as they are released. Everything ends with this program.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Client, request};

const INSIDE: &str = "BMI_BENCH_INSIDE";
const BMICTL: &str = "BMI_BENCH_BMICTL";
/// The engine's address on the network of the nodes.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The run folder of a real host is in memory, and so is this one.
const RUN: &str = "/run/bmid";

/// Whether this is the child inside the namespaces. The outer one runs it and ends as it did.
pub(crate) fn inside(args: &[String]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    assert!(nix::unistd::geteuid().is_root(), "this needs root: mounts and network namespaces");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("a program has a path"))
        .args(args)
        .env(INSIDE, "1")
        .env(BMICTL, built_client())
        .stdin(Stdio::null())
        .status()
        .expect("unshare (package util-linux) runs");
    std::process::exit(status.code().unwrap_or(1));
}

/// The client, and what is preloaded into tgtd, as they are released; cargo builds for a measurement only the programs of its
/// own package.
fn built_client() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "bmictl", "--package", "bmid-rbdguard", "--bins", "--lib"])
        .current_dir(root)
        .status();
    assert!(built.expect("cargo runs").success(), "bmictl or the guard does not build");
    daemon_program().with_file_name("bmictl")
}

/// What bmid preloads into the tgtd it starts: it lies beside bmid.
pub(crate) fn guard() -> PathBuf {
    daemon_program().with_file_name("libbmid_rbdguard.so")
}

fn daemon_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_bmid"))
}

/// Runs a shell line, which must succeed.
pub(crate) fn sh(line: &str) -> String {
    let out = Command::new("bash").args(["-euc", line]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&out.stderr));
    said
}

/// The host with its bmid.
pub(crate) struct House {
    dir: TempDir,
    daemon: Option<Child>,
    nodes: usize,
}

impl House {
    /// Network, disk, golden image, bmid, a datastore and a network.
    pub(crate) fn new() -> House {
        let at = std::env::var_os("BMI_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let dir = tempfile::Builder::new().prefix("speed.").tempdir_in(at).expect("a folder");
        sh("mount -t tmpfs tmpfs /run; ip link set lo up");
        sh("ip link add eth1 type veth peer name node0; ip link set eth1 up; ip link set node0 up");
        let at = dir.path().display();
        sh(&format!("fallocate -l 4G {at}/disk.xfs; mkfs.xfs -q -m reflink=1 {at}/disk.xfs"));
        sh(&format!("mkdir {at}/disk; mount -o loop {at}/disk.xfs {at}/disk; mkdir {at}/disk/floor"));
        let mut house = House { dir, daemon: None, nodes: 0 };
        golden(&house.golden());
        house.up();
        let at = house.path("disk/bmid");
        house.ctl(&["datastore", "create", "fast", "--path", at.to_str().expect("text")]);
        let address = format!("{ADDRESS}/20");
        let net = ["network", "create", "net1", "--interface", "eth1", "--address", &address];
        house.ctl(&[net.as_slice(), &["--range", "10.9.1.0-10.9.12.255"]].concat());
        let golden = house.golden();
        let import = ["image", "import", golden.to_str().expect("text"), "--name", "golden", "--format", "raw"];
        house.ctl(&[import.as_slice(), &["--datastore", "fast"]].concat());
        house
    }

    /// What is measured on.
    pub(crate) fn machine(&self) -> String {
        let kernel = sh("uname -r").trim().to_owned();
        let model = sh("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1").trim().to_owned();
        let disk = sh(&format!("findmnt -no FSTYPE,SOURCE -T {}", self.dir.path().display()));
        let load = sh("cut -d' ' -f1 /proc/loadavg");
        let (cores, disk) = (sh("nproc"), disk.split_whitespace().collect::<Vec<_>>().join(" on "));
        format!(
            "{model}, {} cores, Linux {kernel}; state on {disk}, disks on XFS in a loop file there, run folder in memory; \
             load at the start {}",
            cores.trim(),
            load.trim()
        )
    }

    /// A path in the host's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The disk that images are made of, on the XFS.
    pub(crate) fn golden(&self) -> PathBuf {
        self.path("disk/floor/golden.raw")
    }

    /// bmid's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        Path::new(RUN).join("bmid.sock")
    }

    /// The management socket of the network's tgtd.
    pub(crate) fn tgtd(&self) -> PathBuf {
        sh(&format!("ls {RUN}/net/*/tgtd/sock.0")).trim().into()
    }

    /// Starts bmid; how long until it answered its first request.
    pub(crate) fn up(&mut self) -> Duration {
        let log = File::options().create(true).append(true).open(self.path("bmid.log")).expect("a log");
        let mut command = Command::new(daemon_program());
        command.arg("--state-dir").arg(self.path("state")).args(["--run-dir", RUN]);
        command.env("BMID_DEFAULT_DATASTORE", "none").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begun = Instant::now();
        let mut daemon = command.spawn().expect("bmid starts");
        loop {
            let answer = Client::connect(&self.socket()).and_then(|mut c| c.ask(request("status")));
            if matches!(answer, Some((_, Ok(_)))) {
                break;
            }
            let ended = daemon.try_wait().expect("asked");
            assert!(ended.is_none(), "bmid ended ({ended:?}):\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = begun.elapsed();
        self.daemon = Some(daemon);
        took
    }

    /// Kills bmid without a chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().expect("killed");
        daemon.wait().expect("ended");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("bmid.log")).unwrap_or_default()
    }

    /// A field of bmid's `/proc/PID/status`.
    pub(crate) fn about(&self, field: &str) -> u64 {
        let pid = self.daemon.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line =
            status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).expect("there is such a field");
        line.split_whitespace().next().and_then(|w| w.parse().ok()).expect("a number")
    }

    /// The client's command, ready for arguments.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new(std::env::var_os(BMICTL).expect("the outer one says where it is"));
        command.env("BMI_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    /// Runs bmictl, which must succeed.
    pub(crate) fn ctl(&self, args: &[&str]) {
        let out = self.client().args(args).output().expect("bmictl runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "bmictl {args:?}: {said}\nbmid:\n{}", self.log());
    }

    /// A bare connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket()).expect("bmid answers")
    }

    /// Provisions nodes in one call until there are `n`.
    pub(crate) fn fill(&mut self, n: usize) {
        if n <= self.nodes {
            return;
        }
        let path = self.path("machines");
        let mut list = File::create(&path).expect("a file");
        for i in self.nodes..n {
            writeln!(list, "n{i:04},{}", mac(i)).expect("written");
        }
        drop(list);
        let file = path.to_str().expect("text");
        self.ctl(&["node", "provision", "--image", "golden", "--network", "net1", "--file", file]);
        self.nodes = n;
    }

    /// How many nodes [`House::fill`] has made.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("bmid said:\n{}", self.log().lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Out of the folder's way at once; the kernel lets go of it when the last tgtd has ended with the namespace.
        let _ = Command::new("umount").arg("-l").arg(self.path("disk")).status();
    }
}

/// The MAC of a machine.
pub(crate) fn mac(i: usize) -> String {
    format!("52:54:00:{:02x}:{:02x}:{:02x}", i >> 16 & 0xff, i >> 8 & 0xff, i & 0xff)
}

/// A disk of 256 MiB with data in 64 places, as an installed system has.
fn golden(path: &Path) {
    use std::os::unix::fs::FileExt;
    let disk = File::create(path).expect("a file");
    let data: Vec<u8> = (0..512 << 10).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for place in 0..64 {
        disk.write_all_at(&data, place << 22).expect("written");
    }
    disk.set_len(256 << 20).expect("set");
    disk.sync_all().expect("synced");
}
