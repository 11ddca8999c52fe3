//! The socket's place in the file system.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use bmi::model::Kind;
use bmid::listen::{SOCKET_GROUP, make};
use nix::unistd::Group;

use super::client::Client;
use super::fake::house;

#[test]
fn the_socket_is_the_groups_and_nobody_elses() {
    let house = house();
    let at = fs::metadata(&house.path).expect("it is there");
    assert!(at.file_type().is_socket());
    assert_eq!(at.permissions().mode() & 0o7777, 0o660);
    let group = Group::from_name(SOCKET_GROUP).expect("asked").map_or(0, |g| g.gid.as_raw());
    assert_eq!((at.uid(), at.gid()), (0, group));
}

#[test]
fn a_named_group_gets_it_and_a_missing_one_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("deep/er/s");
    let (_listener, made) = make(&path, Some("daemon")).expect("made");
    let daemon = Group::from_name("daemon").expect("asked").expect("every Debian has it");
    assert_eq!(fs::metadata(&path).expect("there").gid(), daemon.gid.as_raw());
    drop(made);
    let fault = make(&path, Some("no-such-group")).expect_err("no group");
    assert_eq!(fault.kind, Kind::Invalid);
    assert!(fault.to_string().contains("no-such-group") && fault.to_string().contains("deep/er/s"), "{fault}");
}

#[test]
fn a_socket_nobody_answers_is_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).expect("bound"));
    fs::write(dir.path().join("s.new"), "left by a crash").expect("written");
    let before = fs::metadata(&path).expect("there").ino();
    let (_listener, _made) = make(&path, None).expect("replaced");
    assert_ne!(fs::metadata(&path).expect("there").ino(), before);
    assert!(!dir.path().join("s.new").exists());
}

#[test]
fn a_socket_somebody_answers_is_left_alone_and_its_holder_named() {
    let house = house();
    let fault = make(&house.path, None).expect_err("two");
    assert_eq!(fault.kind, Kind::Busy);
    assert!(fault.why.contains(&std::process::id().to_string()), "{fault}");
    assert_eq!(Client::new(&house.path).get(1, "still").0, ["still"]);

    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("foreign");
    let _foreign = UnixListener::bind(&path).expect("bound");
    assert_eq!(make(&path, None).map(|_| ()).map_err(|f| f.kind), Err(Kind::Busy));
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("precious");
    fs::write(&path, "data").expect("written");
    assert_eq!(make(&path, None).map(|_| ()).map_err(|f| f.kind), Err(Kind::Conflict));
    assert_eq!(fs::read(&path).expect("there"), b"data");
}

#[test]
fn a_path_too_long_is_said_to_be() {
    let path = std::path::Path::new("/tmp").join("x".repeat(120));
    let fault = make(&path, None).expect_err("too long");
    assert_eq!(fault.kind, Kind::Invalid);
    assert!(fault.fix.contains("--socket"), "{fault}");
}

#[test]
fn a_successors_socket_outlives_its_predecessor() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s");
    let (_one, made) = make(&path, None).expect("made");
    fs::remove_file(&path).expect("removed by hand");
    let _other = UnixListener::bind(&path).expect("bound");
    drop(made);
    assert!(path.exists());
}
