//! The connection: nobody there, the wrong one there, one that goes away.

use bmi::model::Format;
use bmi::ops::Reply;
use bmi::ops::image::list::FormatView;
use bmi::protocol::{Hello, NO_REQUEST, PROTOCOL, ServerFrame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fake::{Fake, OP, Ran, bmictl, framed};

#[test]
fn without_a_daemon_it_names_the_socket_says_how_to_look_and_ends_with_8() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let ran = Ran::of(bmictl(&["status", "--socket", socket.to_str().unwrap()]).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(8), ""));
    assert!(ran.err.contains(socket.to_str().unwrap()) && ran.err.contains("systemctl status bmid"), "{}", ran.err);
    // A socket file that a killed daemon has left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ran = Ran::of(bmictl(&["status", "--socket", socket.to_str().unwrap()]).output().unwrap());
    assert_eq!(ran.code, Some(8), "{}", ran.err);
}

#[test]
fn one_who_may_not_is_told_of_the_group_and_ends_with_5() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    // The program may lie where only root looks.
    let program = folder.path().join("bmictl");
    // By another process: what is open for writing here while another test forks could not be run.
    let copied = std::process::Command::new("install").arg(env!("CARGO_BIN_EXE_bmictl")).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new(&program);
    let command = command.args(["status", "--socket", socket.to_str().unwrap()]).env_clear().uid(65534).gid(65534);
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert!(ran.err.contains("group bmi"), "{}", ran.err);
}

#[test]
fn another_protocol_is_refused_naming_both_releases_and_what_to_restart() {
    for (theirs, hint) in [(PROTOCOL - 1, "restart bmid"), (PROTOCOL + 1, "use the bmictl of release 9.9.9")] {
        let fake = Fake::new(move |mut peer| {
            peer.next().unwrap();
            peer.send(&ServerFrame::Hello(Hello { protocol: theirs, release: "9.9.9".to_owned(), ..Hello::ours() }));
            assert!(peer.next().is_none(), "nothing typed is sent to another protocol");
        });
        let ran = fake.run(&["status"]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.err.contains(&format!("protocol {theirs}")) && ran.err.contains(&format!("speaks {PROTOCOL}")),
            "{}",
            ran.err
        );
        assert!(ran.err.contains(hint), "{}", ran.err);
    }
}

#[test]
fn a_daemon_that_closes_instead_of_saying_hello_is_tried_twice_more_and_then_told() {
    use std::io::{Read, Write};
    let told = [(2, 1, "speaks protocol"), (3, 8, "closed the connection before saying hello")];
    // One that reads what was sent, and one that may be gone before.
    for ((closes, code, told), reads) in told.into_iter().flat_map(|t| [(t, true), (t, false)]) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for n in 0.. {
                let (mut peer, _) = listener.accept().unwrap();
                if reads || n >= closes {
                    let _ = peer.read(&mut [0; 4096]).unwrap();
                }
                if n >= closes {
                    let hello = Hello { protocol: PROTOCOL + 1, ..Hello::ours() };
                    peer.write_all(&framed(&ServerFrame::Hello(hello))).unwrap();
                }
            }
        });
        let ran = Ran::of(bmictl(&["status", "--socket", socket.to_str().unwrap()]).output().unwrap());
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.err.contains(told), "{}", ran.err);
    }
}

#[test]
fn what_is_not_bmid_is_found_out() {
    let wrong = Hello { magic: *b"http", ..Hello::ours() };
    for bytes in
        [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), framed(&ServerFrame::Hello(wrong)), vec![0, 0, 0, 2, 255, 255]]
    {
        let fake = Fake::new(move |mut peer| {
            peer.next().unwrap();
            peer.raw(&bytes);
            peer.next();
        });
        let ran = fake.run(&["status"]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.starts_with("bmictl: cannot "), "{}", ran.err);
    }
}

#[test]
fn a_daemon_that_goes_away_in_the_middle_is_a_clear_failure() {
    // After an item, in the middle of a frame, and before anything.
    let item = Reply::ImageFormats(FormatView { format: Format::Raw, import: String::new(), export: true });
    let whole = framed(&ServerFrame::Item { id: 1, item });
    for bytes in [whole.clone(), whole[..whole.len() - 1].to_vec(), whole[..3].to_vec(), Vec::new()] {
        let fake = Fake::new(move |mut peer| {
            peer.submitted();
            peer.raw(&bytes);
        });
        let ran = fake.run(&["image", "formats"]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("closed the connection before the answer was whole"), "{}", ran.err);
    }
}

#[test]
fn a_change_whose_daemon_goes_away_says_how_to_look_after_it_and_repeat_it() {
    let fake = Fake::new(|mut peer| {
        let (envelope, ..) = peer.submitted();
        assert!(envelope.op_id.is_some());
    });
    let ran = fake.run(&["tag", "create", "web1", "installed"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("bmictl op show ") && ran.err.contains("--op-id "), "{}", ran.err);
}

#[test]
fn a_silent_daemon_ends_with_7_after_the_timeout_and_says_that_it_goes_on() {
    let fake = Fake::new(|mut peer| {
        let (envelope, ..) = peer.submitted();
        assert_eq!(envelope.timeout_ms, Some(50));
        assert!(peer.next().is_none());
    });
    let ran = fake.run(&["tag", "create", "web1", "installed", "--timeout", "0.05"]);
    assert_eq!(ran.code, Some(7), "{}", ran.err);
    assert!(ran.err.contains("it goes on: `bmictl op watch "), "{}", ran.err);
}

#[test]
fn a_daemon_that_refuses_the_connection_is_heard() {
    let told = r#"{"code":1,"message":"x","data":{"kind":"limit","class":"failed","tried":"","why":"too many clients","fix":"wait","causes":[]}}"#;
    // Before it has read anything, and after it has taken the request.
    for takes in [false, true] {
        let fake = Fake::new(move |mut peer| {
            if takes {
                peer.submitted();
            } else {
                peer.send(&ServerFrame::Hello(Hello::ours()));
            }
            peer.send(&ServerFrame::CallEnd { id: NO_REQUEST, error: Some(told.to_owned()) });
        });
        let ran = fake.run(&["status"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains("too many clients; wait"), "{}", ran.err);
    }
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.send(&ServerFrame::Gap { id: 2, missed: 1 });
        peer.next();
    });
    let ran = fake.run(&["image", "formats"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
}

#[test]
fn ctrl_c_ends_the_waiting_and_not_the_change() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (ready, at) = std::sync::mpsc::channel();
        let fake = Fake::new(move |mut peer| {
            let (envelope, ..) = peer.submitted();
            assert!(!envelope.cancel_on_close);
            ready.send(()).unwrap();
            assert!(peer.next().is_none(), "it asks for nothing to be cancelled");
        });
        let id = OP.to_string();
        let child = fake.command(&["tag", "create", "web1", "installed", "--op-id", &id]).spawn().unwrap();
        at.recv().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let ran = fake.finish(child);
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.err.contains(&format!("the operation goes on: `bmictl op watch {id}`")), "{}", ran.err);
    }
}
