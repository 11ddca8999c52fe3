//! What only happens on a terminal. `script` (util-linux) makes one.

use std::io::Write;
use std::process::{Command, Stdio};

use bmi::model::{Fault, Kind};
use bmi::ops::{Gone, Reply};
use bmi::protocol::{Progress, ServerFrame};

use super::fake::{Fake, OP, Ran};

/// bmictl with a terminal on all three, into which `typed` is typed. Both outputs come as one.
fn on_terminal(fake: Fake, line: &str, environment: &[(&str, &str)], typed: &str) -> Ran {
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &format!("{} {line}", env!("CARGO_BIN_EXE_bmictl")), "/dev/null"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm");
    command.env("BMI_SOCKET", fake.socket()).envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    let ran = fake.finish(child);
    drop(stdin);
    ran
}

fn removed() -> Fake {
    Fake::new(|mut peer| {
        peer.submitted();
        peer.item(Reply::TagRm(Gone { id: Some(OP), name: "installed".to_owned() }));
        peer.end(true);
    })
}

#[test]
fn what_destroys_is_asked_about_and_done_on_yes() {
    let ran = on_terminal(removed(), "tag rm web1 installed", &[], "y\n");
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.out.contains("This destroys the restore point; go on? [y/N]"), "{}", ran.out);
    assert!(ran.out.contains("changed"), "{}", ran.out);
}

#[test]
fn anything_but_yes_does_nothing() {
    for answer in ["n\n", "\n", "ja\n", "\u{4}"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("script");
        let line = format!("{} tag rm web1 installed", env!("CARGO_BIN_EXE_bmictl"));
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("BMI_SOCKET", folder.path().join("none"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(1), "{}", ran.out);
        assert!(ran.out.contains("nothing was done"), "{}", ran.out);
    }
}

#[test]
fn with_yes_nobody_is_asked() {
    let ran = on_terminal(removed(), "tag rm web1 installed --yes", &[], "");
    assert_eq!(ran.code, Some(0));
    assert!(!ran.out.contains("destroys"), "{}", ran.out);
}

#[test]
fn a_failure_has_colour_and_lines_on_a_terminal_and_no_colour_with_no_color() {
    let failing = || {
        Fake::new(|mut peer| {
            peer.submitted();
            peer.fail(Fault::new(Kind::Busy, "it is held").trying("tag web1").fix("wait"));
        })
    };
    let line = "tag create web1 installed";
    let plain = "bmictl: cannot tag web1\r\n  why it is held\r\n  fix wait\r\n";
    let ran = on_terminal(failing(), line, &[], "");
    assert_eq!(ran.code, Some(4));
    assert!(ran.out.contains("\x1b[31mbmictl:\x1b[0m"), "{:?}", ran.out);
    assert!(on_terminal(failing(), line, &[("NO_COLOR", "1")], "").out.contains(plain));
    assert!(on_terminal(failing(), &format!("{line} --color never"), &[], "").out.contains(plain));
    let forced = on_terminal(failing(), &format!("{line} --color always"), &[("NO_COLOR", "1")], "");
    assert!(forced.out.contains("\x1b[31m"), "{:?}", forced.out);
}

#[test]
fn a_long_operation_has_a_bar_which_is_gone_at_the_end() {
    let fake = Fake::new(|mut peer| {
        let (envelope, ..) = peer.submitted();
        assert!(envelope.progress);
        for done in 0..10 {
            let progress = Progress { op_id: OP, what: "copying".to_owned(), done, total: Some(10), bytes: false };
            peer.send(&ServerFrame::Progress { id: 1, progress });
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        peer.end(true);
    });
    let ran = on_terminal(fake, "tag create web1 installed", &[], "");
    assert!(ran.out.contains("copying"), "{:?}", ran.out);
    assert!(ran.out.trim_end().ends_with("changed"), "{:?}", ran.out);
}

#[test]
fn a_dump_is_not_poured_onto_a_terminal() {
    let fake = Fake::new(|mut peer| assert!(peer.next().is_none()));
    // The connection that proves that nothing was sent.
    let socket = fake.socket();
    let ran = {
        let mut command = Command::new("script");
        let line = format!("{} state dump", env!("CARGO_BIN_EXE_bmictl"));
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("BMI_SOCKET", &socket).stdin(Stdio::null());
        Ran::of(command.output().unwrap())
    };
    drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    drop(fake);
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(ran.out.contains("standard output is a terminal"), "{}", ran.out);
}
