//! Files of a request: opened with the caller's rights, named only when whole.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::os::unix::net::UnixListener;

use super::*;

fn source(path: &Path) -> Source {
    path.to_str().unwrap().parse().unwrap()
}

#[test]
fn an_input_becomes_the_next_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::default();
    for expected in 0..2u8 {
        let path = folder.path().join(expected.to_string());
        std::fs::write(&path, [expected]).unwrap();
        let mut given = source(&path);
        files.open(&mut given, Direction::Input).unwrap();
        assert_eq!(given.descriptor, Some(expected));
        let mut back = Vec::new();
        File::from(files.descriptors[usize::from(expected)].try_clone().unwrap()).read_to_end(&mut back).unwrap();
        assert_eq!(back, [expected]);
    }
}

#[test]
fn what_cannot_be_passed_is_refused_by_name_and_with_the_right_kind() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::default();
    let mut kind = |path: &Path, direction| files.open(&mut source(path), direction).unwrap_err().kind;
    assert_eq!(kind(&folder.path().join("none"), Direction::Input), Kind::NotFound);
    assert_eq!(kind(folder.path(), Direction::Input), Kind::Invalid);
    assert_eq!(kind(Path::new("/dev/zero"), Direction::Input), Kind::Invalid);
    assert_eq!(kind(Path::new("/dev/null"), Direction::Output), Kind::Invalid);
    assert_eq!(kind(&folder.path().join("none/out"), Direction::Output), Kind::NotFound);
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_ne!(kind(&socket, Direction::Input), Kind::Internal);
}

#[test]
fn more_files_than_a_request_carries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, "a").unwrap();
    let mut files = Files::default();
    for _ in 0..MAX_DESCRIPTORS {
        files.open(&mut source(&path), Direction::Input).unwrap();
    }
    assert_eq!(files.open(&mut source(&path), Direction::Input).unwrap_err().kind, Kind::Limit);
}

#[test]
fn an_output_has_its_name_only_when_whole_and_an_old_file_stays_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let (target, partial) = (folder.path().join("out"), folder.path().join("out.partial"));
    std::fs::write(&target, "old").unwrap();
    let mut files = Files::default();
    files.open(&mut source(&target), Direction::Output).unwrap();
    assert!(files.writes());
    File::from(files.descriptors.pop().unwrap()).write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    files.commit().unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"new");
    assert!(!partial.exists());
}

#[test]
fn a_new_output_never_replaces_a_file_not_even_one_that_came_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let mut files = Files::default();
    files.open(&mut source(&target), Direction::New).unwrap();
    files.commit().unwrap();
    assert!(target.exists(), "a new file is made");
    std::fs::write(&target, "old").unwrap();
    let fault = files.open(&mut source(&target), Direction::New).unwrap_err();
    assert!(fault.kind == Kind::Duplicate && fault.fix.contains("--force"), "{fault}");
    std::fs::remove_file(&target).unwrap();
    let mut late = Files::default();
    late.open(&mut source(&target), Direction::New).unwrap();
    std::fs::write(&target, "came meanwhile").unwrap();
    assert_eq!(late.commit().unwrap_err().kind, Kind::Duplicate);
    assert_eq!(std::fs::read(&target).unwrap(), b"came meanwhile");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing beside it");
}

#[test]
fn a_failed_output_leaves_nothing_and_the_old_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    std::fs::write(&target, "old").unwrap();
    let mut files = Files::default();
    files.open(&mut source(&target), Direction::Output).unwrap();
    drop(files);
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn two_commands_do_not_write_one_file_and_a_left_over_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    std::fs::write(folder.path().join("out.partial"), "left by a killed command").unwrap();
    let (mut first, mut second) = (Files::default(), Files::default());
    first.open(&mut source(&target), Direction::Output).unwrap();
    assert_eq!(second.open(&mut source(&target), Direction::Output).unwrap_err().kind, Kind::Busy);
    first.commit().unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"");
    second.open(&mut source(&target), Direction::Output).unwrap();
}

#[test]
fn a_symbolic_link_stays_one_and_what_it_names_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (link, real) = (folder.path().join("link"), folder.path().join("real"));
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut files = Files::default();
    files.open(&mut source(&link), Direction::Output).unwrap();
    files.commit().unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&real).unwrap(), b"");
}

#[test]
fn a_path_becomes_absolute_and_keeps_what_it_names() {
    let mut files = Files::default();
    let mut path: HostPath = "srv/./bmi".parse().unwrap();
    files.absolute(&mut path).unwrap();
    assert_eq!(path.0, std::env::current_dir().unwrap().join("srv/bmi").to_str().unwrap());
    let mut path: HostPath = "/srv/bmi".parse().unwrap();
    files.absolute(&mut path).unwrap();
    assert_eq!(path.0, "/srv/bmi");
}

#[test]
fn a_list_is_bounded_in_lines_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    let read = |text: String| {
        std::fs::write(&path, text).unwrap();
        Files::default().lines(path.to_str().unwrap())
    };
    assert_eq!(read("a\nb\r\n\nc".to_owned()).unwrap(), ["a", "b", "", "c"]);
    assert_eq!(read("x\n".repeat(MOST_LINES)).unwrap().len(), MOST_LINES);
    assert_eq!(read("x\n".repeat(MOST_LINES + 1)).unwrap_err().kind, Kind::Limit);
    assert_eq!(read("x".repeat((1 << 20) + 1)).unwrap_err().kind, Kind::Limit);
}
