//! What happens when something else, or nothing, is at the socket's place.

use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicBool;

use bmi::model::Kind;
use bmi::step::Severity;

use super::*;

/// Answers every request with `answer` until dropped; `None` never answers.
struct Fake {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    socket: PathBuf,
}

impl Fake {
    fn start(socket: &Path, answer: Option<Vec<u8>>) -> Fake {
        let listener = UnixListener::bind(socket).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, socket) = (stop.clone(), socket.to_owned());
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                match &answer {
                    None => held.push(stream),
                    Some(bytes) => {
                        let _ = stream.read(&mut [0; 8_192]);
                        let _ = stream.write_all(bytes);
                    }
                }
            }
        });
        Fake { stop, thread: Some(thread), socket }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = std::os::unix::net::UnixStream::connect(&self.socket);
        let _ = self.thread.take().unwrap().join();
    }
}

fn observe(driver: &Tgt, network: Id) -> DriverError {
    driver.observe(&Scope::Network { network, interface: "lo".to_owned() }).unwrap_err()
}

#[test]
fn nothing_there_is_unavailable_and_says_what_to_do() {
    let (_dir, driver, network, socket) = empty_network();
    let absent = observe(&driver, network);
    drop(UnixListener::bind(&socket).unwrap());
    let dead = observe(&driver, network);
    for e in [absent, dead] {
        assert_eq!(e.kind, Kind::Unavailable);
        assert!(e.why.contains("is not running") && !e.fix.is_empty(), "{e:?}");
    }
    assert_eq!(driver.observe(&Scope::Networks).unwrap(), [Seen::Network(network)], "its folder is there");
}

#[test]
fn a_tgtd_that_never_answers_is_a_timeout() {
    let (_dir, driver, network, socket) = empty_network();
    let _fake = Fake::start(&socket, None);
    let e = observe(&driver, network);
    assert_eq!(e.kind, Kind::Timeout);
    assert!(e.why.contains("did not answer within"), "{e}");
}

#[test]
fn a_tgtd_that_never_accepts_is_a_timeout() {
    let (_dir, driver, network, socket) = empty_network();
    let _listener = UnixListener::bind(&socket).unwrap();
    // Its queue of connections is full; a connect that blocks would now wait for ever.
    let mut held = Vec::new();
    loop {
        let client = driver.client(network);
        let flags = nix::sys::socket::SockFlag::SOCK_NONBLOCK;
        use nix::sys::socket::{AddressFamily, SockType, UnixAddr, connect};
        let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let full = connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(&socket).unwrap()).is_err();
        held.push(fd);
        if full {
            assert!(matches!(
                client.targets(),
                Err(client::Failure::NoAnswer(super::super::socket::NoAnswer::Slow(_)))
            ));
            return;
        }
    }
}

#[test]
fn garbage_is_an_error_and_a_lying_length_costs_no_memory() {
    let reply = |code: u32, len: u32, text: &[u8]| [&code.to_le_bytes(), &len.to_le_bytes(), text].concat();
    let answers = [
        (vec![], "closed the connection without an answer"),
        (vec![1, 2, 3], "not a reply"),
        (reply(0, 3, b""), "not a reply"),
        (reply(0, u32::MAX, b"x"), "not a reply"),
        (reply(0, 60 << 20, b"but short"), "not a reply"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not a reply"),
        (reply(4_711, 8, b""), "error 4711"),
    ];
    for (answer, says) in answers {
        let (_dir, driver, network, socket) = empty_network();
        let driver = Tgt { limit: std::time::Duration::from_secs(20), ..driver };
        let _fake = Fake::start(&socket, Some(answer.clone()));
        let e = observe(&driver, network);
        assert!(e.why.contains(says), "{answer:?}: {e}");
        assert_eq!(e.kind, if answer.is_empty() { Kind::Unavailable } else { Kind::Outside }, "{e}");
        let fault = bmi::model::Fault::from(e);
        assert!(says != "not a reply" || !fault.causes.is_empty(), "the cause is kept: {fault}");
    }
    // Text that means nothing is no target and no portal.
    let (_dir, driver, network, socket) = empty_network();
    let driver = Tgt { limit: std::time::Duration::from_secs(20), ..driver };
    let _fake = Fake::start(&socket, Some(reply(0, 8 + 6, b"\xff\xfe\n\0ab")));
    assert_eq!(driver.observe(&Scope::Network { network, interface: "lo".to_owned() }).unwrap(), []);
}

#[test]
fn a_tgtd_of_another_group_is_told_as_that() {
    // As a unit with another Group= would start it.
    let tgtd = Tgtd::start_as(&["--regid", "65534", "--clear-groups"]);
    let e = observe(&tgtd.driver, tgtd.network);
    assert_eq!(e.kind, Kind::Outside);
    assert!(e.why.contains("gid 65534") && e.fix.contains("gid 0"), "{e:?}");
}

#[test]
fn the_doctor_tells_a_missing_program_a_taken_port_and_a_portal_that_answers() {
    assert_eq!(super::super::doctor::program(None).severity, Severity::Ok, "tgtd is installed where the tests run");
    let tgtd = Tgtd::start();
    let ask = |address: String| {
        let networks = vec![(tgtd.network, "lo".to_owned(), address)];
        match tgtd.driver.look(&Look::Doctor { networks }).unwrap().unwrap() {
            Fact::Findings(all) => all[1].clone(),
            other => panic!("{other:?}"),
        }
    };
    let open = ask(format!("{}/24", fill_address(tgtd.slot)));
    assert_eq!(open.severity, Severity::Ok, "{open:?}");
    let closed = ask(real_address(tgtd.slot).to_string());
    assert!(closed.severity == Severity::Error && closed.found.contains("not open"), "{closed:?}");
    let _other = TcpListener::bind((real_address(tgtd.slot), 3260)).unwrap();
    let taken = ask(real_address(tgtd.slot).to_string());
    assert!(taken.severity == Severity::Error && taken.found.contains("something else listens"), "{taken:?}");
}
