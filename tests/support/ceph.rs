//! A real Ceph of the test's own: monitor, manager and OSD in a network namespace, gone with this process whatever end it
//! comes to. One serves all tests of a program; each takes a pool or a namespace of its own. It must never be shared by two
//! programs. Needs root and the packages of `scripts/packages test`; without them the tests fail.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to fail")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The cluster.
pub struct Ceph {
    folder: PathBuf,
    /// Its network; none where the monitor is reached as it is.
    net: Option<File>,
    /// Process 1 of its namespaces, as seen from here.
    init: String,
    /// Ends it all when its standard input is closed, which the kernel does for a process that is killed, too.
    holder: Option<Child>,
}

/// A daemon that is stopped; it goes on when this is dropped.
pub struct Stopped<'a>(&'a Ceph, &'a str);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(self.1, "CONT");
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// Names the folder of a cluster that another kernel runs, for tests under a kernel of their own (`tests/support/uml`).
const ELSEWHERE: &str = "BMID_TEST_CEPH";

/// Whether this process runs under a kernel of its own.
pub fn own_kernel() -> bool {
    std::env::var_os(ELSEWHERE).is_some()
}

/// Runs tests of this program again, by their whole names, under a kernel of their own, in the network namespace of this
/// process.
pub fn with_own_kernel(modules: &[&str], tests: &[&str]) {
    under_own_kernel(Command::new("env"), modules, Path::new("none"), tests);
}

fn under_own_kernel(command: Command, modules: &[&str], cluster: &Path, tests: &[&str]) -> String {
    let (ended, said) = said_by_own_kernel(command, modules, cluster, tests);
    let passed = said.matches("... ok").count();
    assert!(
        ended && said.contains(&format!("{} passed; 0 failed", tests.len())),
        "under a kernel of its own {passed} of {} passed: {said}",
        tests.len(),
    );
    said
}

/// What tests of this program say under a kernel of their own and in a network of their own, pass or fail.
pub fn told_by_own_kernel(modules: &[&str], tests: &[&str]) -> String {
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]);
    said_by_own_kernel(command, modules, Path::new("none"), tests).1
}

fn said_by_own_kernel(mut command: Command, modules: &[&str], cluster: &Path, tests: &[&str]) -> (bool, String) {
    let uml = tempfile::Builder::new().prefix("bmid-uml.").tempdir_in("/tmp").unwrap();
    // Whatever comes of this process, that kernel and its processes end with it.
    command.args(["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount", "--fork", "--kill-child"]);
    command.arg("--mount-proc");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/support/uml")).arg(uml.path());
    for module in modules {
        command.args(["--module", module]);
    }
    command.arg("env").arg(format!("{ELSEWHERE}={}", cluster.display()));
    // What repeats a test that goes by chance.
    command.args(std::env::var("BMI_SEED").ok().map(|seed| format!("BMI_SEED={seed}")));
    command.arg(std::env::current_exe().unwrap()).args(["--nocapture", "--test-threads=1", "--exact"]).args(tests);
    let output = command.stdin(Stdio::null()).output().expect("nsenter");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

/// The one of this program. Its objects are in memory, except where they are written in hundreds of thousands of pieces: there that
/// takes longer and longer.
pub fn ceph() -> &'static Ceph {
    static CEPH: OnceLock<Ceph> = OnceLock::new();
    let pieces = std::env::var_os("BMID_CONFORMANCE").is_some();
    CEPH.get_or_init(if pieces { Ceph::start } else { Ceph::in_memory })
}

impl Ceph {
    /// One of a test's own, for what would disturb others.
    pub fn start() -> Ceph {
        Ceph::start_at(Path::new("/tmp"), &[])
    }

    /// One in the network namespace of this process, which must be the test's own.
    pub fn here() -> Ceph {
        Ceph::here_at(Path::new("/tmp"))
    }

    /// The same, with its files in a folder below this one.
    pub fn here_at(at: &Path) -> Ceph {
        Ceph::start_at(at, &["--here"])
    }

    /// One of a test's own whose objects are in memory: faster, where clients are proved and not what a cluster keeps.
    pub fn in_memory() -> Ceph {
        Ceph::start_at(Path::new("/tmp"), &["--memory"])
    }

    /// One that runs under another kernel, on the same files.
    fn elsewhere(folder: &std::ffi::OsStr) -> Ceph {
        Ceph { folder: folder.into(), net: None, init: String::new(), holder: None }
    }

    /// Runs tests of this program again, by their whole names, under a kernel of their own that reaches this cluster: what they
    /// said.
    pub fn with_own_kernel(&self, tests: &[&str]) -> String {
        // `ecb`: that of 6.12 makes `cbc` of it.
        let ciphers = ["aes_generic", "ecb", "cbc", "gcm", "ctr", "hmac", "sha256_generic", "crc32c_generic"];
        let modules = [&ciphers[..], &["rbd", "veth", "ipv6"]].concat();
        under_own_kernel(self.command(), &modules, &self.folder, tests)
    }

    /// The same in the network namespace of this process, which must be the test's own.
    pub fn here_in_memory() -> Ceph {
        Ceph::start_at(Path::new("/tmp"), &["--here", "--memory"])
    }

    /// One in the network namespace of that process: a host of a test's own.
    pub fn beside(process: &str) -> Ceph {
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--net=/proc/{process}/ns/net")).args(["--", "setsid"]);
        Ceph::start_by(enter, Path::new("/tmp"), &["--here"])
    }

    fn start_at(at: &Path, more: &[&str]) -> Ceph {
        if let Some(folder) = std::env::var_os(ELSEWHERE) {
            return Ceph::elsewhere(&folder);
        }
        Ceph::start_by(Command::new("setsid"), at, more)
    }

    fn start_by(mut by: Command, at: &Path, more: &[&str]) -> Ceph {
        let folder = tempfile::Builder::new().prefix("bmid-ceph.").tempdir_in(at).unwrap().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/support/ceph");
        let log = File::create(folder.join("out")).unwrap();
        // In a session of its own: a Ctrl-C that ends the tests must leave it the time to clear up.
        let mut holder = by
            .arg(script)
            .arg(&folder)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("setsid (package util-linux) does not start");
        for _ in 0..1_200 {
            if folder.join("ready").exists() {
                break;
            }
            if holder.try_wait().unwrap().is_some() {
                panic!("no Ceph: {}", std::fs::read_to_string(folder.join("out")).unwrap_or_default());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let said = || std::fs::read_to_string(folder.join("out")).unwrap_or_default();
        assert!(folder.join("ready").exists(), "Ceph does not come up within a minute: {}", said());
        let outer = std::fs::read_to_string(folder.join("holder")).unwrap().trim().to_owned();
        let net = File::open(format!("/proc/{outer}/ns/net")).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
        let init = children.split_whitespace().next().unwrap().to_owned();
        Ceph { folder, net: Some(net), init, holder: Some(holder) }
    }

    /// Does something where its monitor can be reached; threads begun in it stay there.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            if let Some(net) = &self.net {
                nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).expect("the namespace (tests need root)");
            }
            f()
        };
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(out) => out,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Sends a signal to one of its daemons: `mon`, `mgr` or `osd`. One that is stopped does nothing any more when this returns: the
    /// signal goes to one of its threads, and until that has a processor to take it the others go on.
    pub fn signal(&self, daemon: &str, signal: &str) {
        const HALTED: &str = "timeout 60 sh -c 'while grep -h ^State: /proc/$0/task/*/status | grep -qv stopped; do sleep 0.01; done' $1";
        let pid = std::fs::read_to_string(self.path(&format!("pid.{daemon}"))).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--pid", "--mount", "--", "sh", "-c"]);
        command.args([&format!("kill -$0 $1 && {{ [ $0 != STOP ] || {HALTED}; }}"), signal, pid.trim()]);
        assert!(command.status().expect("nsenter").success(), "kill -{signal} {daemon}");
    }

    /// Stops one of its daemons until what is given back is dropped: a test that fails meanwhile must not wait for it for ever.
    pub fn stopped<'a>(&'a self, daemon: &'a str) -> Stopped<'a> {
        let stopped = Stopped(self, daemon);
        self.signal(daemon, "STOP");
        stopped
    }

    /// Starts one of its daemons again that was killed: `mon` or `osd`. It ends with the others.
    pub fn restart(&self, daemon: &str) {
        let number = if daemon == "osd" { "0" } else { "a" };
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--pid", "--mount", "--net", "--", "sh", "-c"]);
        command.arg("echo $$ >$0/pid.$1; exec ceph-$1 -f -c $0/ceph.conf -i $2 </dev/null >>$0/log/$1.out 2>&1");
        // Whoever waits for it is gone with this process, and it with the namespace.
        drop(command.arg(&self.folder).args([daemon, number]).spawn().expect("nsenter"));
    }

    /// Its namespaces' process, for `nsenter --target`.
    pub fn init(&self) -> &str {
        &self.init
    }

    /// Its configuration, which names the administrator's keyring.
    pub fn conf(&self) -> PathBuf {
        self.folder.join("ceph.conf")
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command that runs the program given as its first argument where the monitor can be reached. Begun by this thread:
    /// what is to end with the thread that began it would end too soon in [`Ceph::inside`].
    pub fn command(&self) -> Command {
        if self.net.is_none() {
            return Command::new("env");
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.init)).arg("--");
        command
    }

    /// A tool of Ceph, run as its administrator: what it said.
    pub fn tool(&self, line: &[&str]) -> String {
        let mut command = self.command();
        command.arg(line[0]).arg("--conf").arg(self.conf());
        let output = command.args(&line[1..]).stdin(Stdio::null()).output().expect("nsenter");
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A namespace of pool `rbd` that nobody else uses.
    pub fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.tool(&["rbd", "namespace", "create", &format!("rbd/{name}")]);
        name
    }

    /// A user with these rights: the path of its keyring.
    pub fn user(&self, name: &str, mon: &str, osd: &str) -> PathBuf {
        let path = self.path(&format!("keyring.{name}"));
        let text = self.tool(&["ceph", "auth", "get-or-create", &format!("client.{name}"), "mon", mon, "osd", osd]);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// What bmid preloads into tgtd, built now if it is not as new as its source: cargo builds for a test only its own package. It lies
/// where a bmid of the tests' finds it.
pub fn guard() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
            let there = folder.join("libbmid_rbdguard.so");
            // Built by who started it.
            if own_kernel() || std::env::var_os("BMI_BUILT").is_some() {
                return there;
            }
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--package", "bmid-rbdguard"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the guard does not build");
            there
        })
        .clone()
}
