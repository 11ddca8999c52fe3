//! What a service manager gives and is told: a socket, readiness, reloads, the watchdog.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::Client;
use super::house::House;

/// A manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn new(house: &House) -> Manager {
        let socket = UnixDatagram::bind(house.path("notify")).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        Manager(socket)
    }

    /// Waits for a message with this line in it; gives the whole.
    fn told(&self, line: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let n = self.0.recv(&mut bytes).unwrap_or_else(|e| panic!("{line} never came: {e}"));
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            if text.lines().any(|l| l == line) {
                return text;
            }
        }
    }
}

/// bmid under that manager, whose watchdog waits so many microseconds.
fn managed(house: &House, watchdog: u32) -> Command {
    let file = house.path("bmid.toml");
    fs::write(&file, "log = \"info\"\n").expect("written");
    let mut bmid = house.bmid();
    bmid.arg("--config").arg(&file).env("NOTIFY_SOCKET", house.path("notify"));
    bmid.env("WATCHDOG_USEC", watchdog.to_string());
    bmid
}

#[test]
fn the_manager_is_told_of_readiness_reloads_life_and_the_end() {
    let mut house = House::new();
    let manager = Manager::new(&house);
    house.start(&mut managed(&house, 900_000));
    assert!(manager.told("READY=1").contains("STATUS=listening on"));
    manager.told("WATCHDOG=1");
    house.signal(Signal::SIGHUP);
    assert!(manager.told("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.told("READY=1");
    manager.told("WATCHDOG=1");
    assert_eq!(house.ends(Signal::SIGTERM).code(), Some(0));
    manager.told("STOPPING=1");
}

/// As much as a manager that hangs may leave unread: nobody gets anything more in. One sender alone fills its own share.
fn fill(house: &House) {
    let one = || {
        let other = UnixDatagram::unbound().expect("a socket");
        other.set_nonblocking(true).expect("set");
        let sent = (0..100_000).take_while(|_| other.send_to(b"MAINPID=1", house.path("notify")).is_ok()).count();
        sent > 0
    };
    while one() {}
}

#[test]
fn a_manager_that_does_not_read_holds_up_nothing_and_is_told_all_when_it_does() {
    let mut house = House::new();
    let manager = Manager::new(&house);
    fill(&house);
    house.start(&mut managed(&house, 30_000));
    assert_eq!(house.call("status").len(), 1);
    house.signal(Signal::SIGHUP);
    house.says("configuration read again");
    for line in ["READY=1", "WATCHDOG=1", "RELOADING=1", "READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        manager.told(line);
    }
    fill(&house);
    assert_eq!(house.call("status").len(), 1);
    assert_eq!(house.ends(Signal::SIGTERM).code(), Some(0));
    assert!(!house.log().contains("something hangs"), "{}", house.log());
}

#[test]
fn a_reload_takes_over_what_it_can_and_names_what_it_cannot() {
    let mut house = House::new();
    let file = house.path("bmid.toml");
    fs::write(&file, "log = \"warn\"\n").expect("written");
    house.start(house.bmid().arg("--config").arg(&file));
    assert!(!house.log().contains("listening"), "{}", house.log());
    fs::write(&file, "log = \"info\"\nport = 3333\nreconcile_every = 7\n").expect("written");
    house.signal(Signal::SIGHUP);
    house.says("configuration read again");
    assert!(house.log().contains("restart bmid for the new port"), "{}", house.log());
    fs::write(&file, "log = \"info\"\nprot = 1\n").expect("written");
    house.signal(Signal::SIGHUP);
    house.says("the old configuration stays");
    assert!(house.log().contains("prot"), "{}", house.log());
    assert_eq!(house.call("status").len(), 1);
}

/// bmid with `listener` as the third descriptor, said to be for it: what systemd does.
pub(crate) fn activated(house: &House, listener: UnixListener, fds: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    shell.arg(super::support::bmid());
    house.with_flags(&mut shell);
    shell.env("LISTEN_FDS", fds).stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    shell
}

#[test]
fn a_socket_that_systemd_opened_is_served_and_left_when_bmid_ends() {
    let house = House::new();
    let path = house.path("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let mut shell = activated(&house, listener.try_clone().expect("a second handle"), "1");
    let mut child = shell.stderr(Stdio::piped()).spawn().expect("started");
    // The first client comes before bmid is up, and waits.
    let mut client = Client::new(&path);
    client.send(&super::client::call(1, "status", "{}"));
    assert_eq!(client.called(1).1, None);
    assert!(!house.socket().exists(), "it makes no other socket");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM)
        .expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    assert!(path.exists(), "it is systemd's");
}

#[test]
fn what_systemd_passed_wrongly_is_refused_by_name() {
    let house = House::new();
    let listener = UnixListener::bind(house.path("a.sock")).expect("bound");
    let (code, _, said) = House::runs(&mut {
        let mut shell = activated(&house, listener, "1");
        shell.stdin(Stdio::from(fs::File::open("/etc/passwd").expect("a file")));
        shell
    });
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no listening Unix stream socket") && said.contains("bmid.socket"), "{said}");
}
