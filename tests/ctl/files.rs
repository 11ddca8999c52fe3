//! Files cross as descriptors, never as bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use bmi::model::{Fault, Kind};
use bmi::ops::state::StateDone;
use bmi::ops::{Reply, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fake::{Fake, Ran, bmictl};

#[test]
fn an_import_passes_the_opened_file_and_not_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, "the bytes of a disk").unwrap();
    let fake = Fake::new(|mut peer| {
        let (_, request, mut fds) = peer.submitted();
        let Request::ImageImport(import) = request else { panic!("no import") };
        assert_eq!((import.source.unwrap().descriptor, fds.len()), (Some(0), 1));
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "the bytes of a disk");
        peer.end(true);
    });
    assert_eq!(fake.run(&["image", "import", path.to_str().unwrap(), "--name", "golden"]).code, Some(0));
}

#[test]
fn an_import_from_a_pipe_ends_when_its_writer_ends() {
    let fake = Fake::new(|mut peer| {
        let (_, request, mut fds) = peer.submitted();
        let Request::ImageImport(import) = request else { panic!("no import") };
        assert_eq!(import.source.unwrap().name, "-");
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 1 << 20);
        peer.end(true);
    });
    let mut child = fake.command(&["image", "import", "-", "--name", "golden"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    drop(stdin);
    assert_eq!(fake.finish(child).code, Some(0));
}

#[test]
fn a_file_that_is_not_there_is_told_before_the_daemon_is_called() {
    let ran = Ran::of(
        bmictl(&["image", "import", "/nonexistent/disk.raw", "--name", "golden", "--socket", "/nonexistent"])
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("cannot open /nonexistent/disk.raw: No such file"), "{}", ran.err);
    assert!(ran.err.contains("look at the path"), "it says what to do: {}", ran.err);
}

#[test]
fn an_export_gets_its_name_when_the_daemon_is_done_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let seen = path.clone();
    let fake = Fake::new(move |mut peer| {
        let (envelope, _, mut fds) = peer.submitted();
        assert!(envelope.cancel_on_close, "nobody wants half a file");
        File::from(fds.remove(0)).write_all(b"rows\n").unwrap();
        assert!(!seen.exists());
        peer.item(Reply::StateDump(StateDone { rows: 1 }));
        peer.end(false);
    });
    let ran = fake.run(&["state", "dump", path.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "rows  1\n"));
    assert_eq!(std::fs::read(&path).unwrap(), b"rows\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_export_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let fake = Fake::new(|mut peer| {
        let (_, _, mut fds) = peer.submitted();
        File::from(fds.remove(0)).write_all(b"half").unwrap();
        peer.fail(Fault::new(Kind::Full, "no space"));
    });
    assert_eq!(fake.run(&["state", "dump", path.to_str().unwrap()]).code, Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_export_leaves_nothing_and_asks_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let (ready, at) = std::sync::mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        let (envelope, ..) = peer.submitted();
        assert!(envelope.cancel_on_close);
        ready.send(()).unwrap();
        assert!(peer.next().is_none());
    });
    let child = fake.command(&["state", "dump", path.to_str().unwrap()]).spawn().unwrap();
    at.recv().unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(fake.finish(child).code, Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_check_of_an_export_gives_no_file_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.end(false);
    });
    assert_eq!(fake.run(&["state", "dump", path.to_str().unwrap(), "--check"]).code, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_export_cannot_be_begun_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let args = ["state", "dump", path.to_str().unwrap(), "--no-wait", "--socket", "/nonexistent"];
    let ran = Ran::of(bmictl(&args).output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn on_standard_output_a_dump_stands_alone() {
    let fake = Fake::new(|mut peer| {
        let (_, request, mut fds) = peer.submitted();
        assert!(matches!(request, Request::StateDump(_)));
        File::from(fds.remove(0)).write_all(b"rows\n").unwrap();
        peer.item(Reply::StateDump(StateDone { rows: 1 }));
        peer.end(false);
    });
    let ran = fake.run(&["state", "dump"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "rows\n"));
}

#[test]
fn a_list_of_machines_is_read_by_the_client_and_answers_an_array() {
    let fake = Fake::new(|mut peer| {
        let (_, request, fds) = peer.submitted();
        let Request::NodeProvision(provision) = request else { panic!("no provision") };
        assert!(fds.is_empty());
        assert_eq!(provision.nodes.len(), 2);
        peer.end(true);
    });
    let args = ["node", "provision", "--image", "debian", "--network", "rack1", "--file", "-", "-f", "json"];
    let mut child = fake.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let list = b"# machines\nweb1,52:54:00:00:00:01\n\nweb2 52:54:00:00:00:02 eno1\n";
    child.stdin.take().unwrap().write_all(list).unwrap();
    assert_eq!(fake.finish(child).out, "[]\n");
}
