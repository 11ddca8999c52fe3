//! For tests of drivers only: the suite that a real driver and its simulator both pass, and a rack of two network
//! namespaces, engine and machine, joined by a cable. Needs root; leaves nothing behind: a namespace ends with its last
//! user.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bmi::model::{Id, Sealed};
use bmi::step::{Scope, Seen};
use nix::sched::{CloneFlags, setns, unshare};

use super::sim::World;
use super::{Driver, DriverError, StepCx, Unseal};

/// A program of a test's own, which may run at once: it is written by another process. What a thread of this one has open while another
/// forks is open in the child too until that runs its own program, and what is open for writing cannot be run.
pub(crate) fn program(path: &Path, text: &str) {
    let mut install = Command::new("install");
    let mut child =
        install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().expect("install runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("a program is handed over");
    assert!(child.wait().expect("install ends").success(), "{}", path.display());
}

/// Twice, back twice, back without, seen after each.
pub(crate) fn both_ways<D: Driver>(
    driver: &D,
    scope: &Scope,
    step: &D::Step,
    undo: &D::Step,
    is_so: &dyn Fn(&[Seen]) -> bool,
) {
    let seen = || driver.observe(scope).expect("observe");
    let apply = |step: &D::Step| driver.apply(step, &StepCx::PLAIN).expect("apply").changed;
    assert!(!is_so(&seen()), "before anything: {:?}", seen());
    assert!(!apply(undo), "back without");
    assert!(!is_so(&seen()));
    assert!(apply(step));
    assert!(is_so(&seen()), "after the step: {:?}", seen());
    assert!(!apply(step), "the second time changes nothing");
    assert!(is_so(&seen()));
    assert!(apply(undo));
    assert!(!is_so(&seen()), "after its inverse: {:?}", seen());
    assert!(!apply(undo), "the second time changes nothing");
    assert!(!is_so(&seen()));
}

/// A simulator's failures: one before the effect leaves everything as it was, one after it leaves the effect, and doing
/// it again brings it about. `first` are steps it needs.
pub(crate) fn fails_at_each<D: Driver>(
    make: &dyn Fn(World) -> D,
    scope: &Scope,
    first: &[D::Step],
    [(step, step_name), (undo, undo_name)]: [(&D::Step, &str); 2],
    is_so: &dyn Fn(&[Seen]) -> bool,
) {
    for back in [false, true] {
        for after in [false, true] {
            let dir = tempfile::tempdir().expect("folder");
            let driver = make(World::open(dir.path()).expect("world"));
            let apply = |step: &D::Step| driver.apply(step, &StepCx::PLAIN);
            for step in first.iter().chain(back.then_some(step)) {
                apply(step).expect("what it needs");
            }
            let (it, name) = if back { (undo, undo_name) } else { (step, step_name) };
            let point = format!("{name}.{}", if after { "after" } else { "before" });
            std::fs::write(dir.path().join("faults"), format!("fail {point} 1\n")).expect("faults");
            apply(it).expect_err(&point);
            assert_eq!(is_so(&driver.observe(scope).expect("observe")), back != after, "{point}");
            assert_eq!(apply(it).expect("again").changed, !after, "{point}");
            assert_eq!(is_so(&driver.observe(scope).expect("observe")), !back, "{point}");
        }
    }
}

/// Secrets that are not sealed.
pub(crate) struct Open;

impl Unseal for Open {
    fn open(&self, sealed: &Sealed) -> Result<String, DriverError> {
        Ok(String::from_utf8_lossy(&sealed.0).into_owned())
    }
}

/// For a driver's constructor.
pub(crate) fn open() -> Arc<dyn Unseal> {
    Arc::new(Open)
}

/// An id of a test's own.
pub(crate) fn id() -> Id {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random bytes");
    Id::from_random(bytes)
}

/// Two network namespaces. The engine has `v0`, the machine `v1` on the other end of the cable; both are up.
pub(crate) struct Rack {
    engine: File,
    machine: File,
}

impl Rack {
    pub(crate) fn new() -> Rack {
        let rack = Rack { engine: namespace(), machine: namespace() };
        let there = format!("/proc/{}/fd/{}", std::process::id(), rack.machine.as_raw_fd());
        rack.engine(|| {
            sh("ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up");
            sh(&format!("ip link set v1 netns {there}"));
        });
        rack.machine(|| sh("ip link set lo up; ip link set v1 up"));
        // The kernel tells of a carrier a moment after both ends are up.
        until(|| rack.engine(|| shown("ip -o link show dev v0").contains("LOWER_UP")));
        rack
    }

    /// Does something as the engine.
    pub(crate) fn engine<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.engine, f)
    }

    /// Does something as the machine.
    pub(crate) fn machine<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.machine, f)
    }
}

fn namespace() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (tests need root)");
        File::open("/proc/thread-self/ns/net").expect("the namespace")
    };
    std::thread::spawn(make).join().expect("thread")
}

/// A namespace belongs to a thread: a new one enters it, and what it starts is in it too.
fn inside<T: Send>(namespace: &File, f: impl FnOnce() -> T + Send) -> T {
    let run = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        f()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs shell commands, all of which must succeed.
pub(crate) fn sh(commands: &str) {
    let out = Command::new("sh").args(["-ec", commands]).output().expect("sh");
    assert!(out.status.success(), "{commands}: {}", String::from_utf8_lossy(&out.stderr));
}

/// What a shell command writes.
pub(crate) fn shown(command: &str) -> String {
    let out = Command::new("sh").args(["-ec", command]).output().expect("sh");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits until it is so; gives up, failing, after a time that only a defect needs.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it never came to be so");
}

/// A process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts dnsmasq with a configuration and waits for its pid file.
pub(crate) fn dnsmasq(conf: &Path, pid_file: &Path) -> Running {
    let mut command = Command::new("dnsmasq");
    command.arg("-k").arg("-C").arg(conf).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(command.spawn().expect("dnsmasq"));
    until(|| {
        assert!(running.0.try_wait().expect("wait").is_none(), "dnsmasq ended");
        pid_file.exists()
    });
    running
}
