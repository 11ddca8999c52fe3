//! Passed descriptors: tied to their frame, counted, of the right kind, closed when not wanted.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use bmi::model::Kind;
use bmi::protocol::ClientFrame;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::client::{Client, ask, call, file, framed};
use super::fake::house;

fn raw(files: &[File]) -> Vec<RawFd> {
    files.iter().map(AsRawFd::as_raw_fd).collect()
}

/// The other end of the pipe breaks when nobody holds the passed end any more.
fn pipe() -> (File, File) {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    (read.into(), write.into())
}

#[test]
fn descriptors_come_with_their_frame_in_order() {
    let house = house();
    let mut client = Client::new(&house.path);
    client.send_with(&ask(1, "files"), &raw(&[file("one"), file("two")]));
    assert_eq!(client.answer(1).0, ["one", "two"]);
    client.send_with(&call(2, "datastore.rm", r#"{"datastore":"files"}"#), &raw(&[file("three")]));
    assert_eq!(client.called(2).0, [r#"{"id":null,"name":"three"}"#]);
}

#[test]
fn descriptors_do_not_wander_to_the_neighbours_of_their_frame() {
    let house = house();
    let mut client = Client::new(&house.path);
    for round in 0..20u64 {
        let id = round * 3 + 1;
        client.send(&ask(id, "files"));
        client.send_with(&ask(id + 1, "files"), &raw(&[file("mine")]));
        client.send(&ask(id + 2, "files"));
        let mut items = Vec::new();
        let mut ends = 0;
        while ends < 3 {
            match client.next() {
                Some(bmi::protocol::ServerFrame::Item { id, .. }) => items.push(id),
                Some(bmi::protocol::ServerFrame::End { end: Ok(_), .. }) => ends += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(items, [id + 1], "round {round}");
    }
}

#[test]
fn a_frame_whose_descriptors_come_with_its_first_bytes_alone_has_them() {
    let house = house();
    let mut client = Client::new(&house.path);
    let (bytes, passed) = (framed(&ask(1, "files")), file("early"));
    let fds = [passed.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let first = [IoSlice::new(&bytes[..2])];
    sendmsg::<()>(client.stream.as_raw_fd(), &first, &rights, MsgFlags::empty(), None).expect("sent");
    client.bytes(&bytes[2..]);
    assert_eq!(client.answer(1).0, ["early"]);
}

#[test]
fn a_fifth_descriptor_is_closed_and_its_request_refused() {
    let house = house();
    let mut client = Client::new(&house.path);
    let files: Vec<File> = (0..5).map(|n| file(&n.to_string())).collect();
    client.send_with(&ask(1, "files"), &raw(&files));
    assert_eq!(client.answer(1).1.map_err(|f| f.kind), Err(Kind::Limit));
    client.send_with(&ask(2, "files"), &raw(&files[..4]));
    assert_eq!(client.answer(2).0, ["0", "1", "2", "3"]);
}

#[test]
fn open_requests_of_a_connection_hold_four_descriptors_together() {
    let house = house();
    let mut client = Client::new(&house.path);
    let files: Vec<File> = (0..3).map(|n| file(&n.to_string())).collect();
    client.send_with(&ask(1, "hold"), &raw(&files));
    house.wait("the first is taken in", |s| s.begun.load(std::sync::atomic::Ordering::SeqCst) == 1);
    client.send_with(&ask(2, "files"), &raw(&files[..2]));
    assert_eq!(client.answer(2).1.map_err(|f| f.kind), Err(Kind::Limit));
    client.send_with(&ask(3, "files"), &raw(&files[..1]));
    assert_eq!(client.answer(3).0, ["0"]);
    house.seen.release.cancel();
    assert!(client.answer(1).1.is_ok());
    client.send_with(&ask(4, "files"), &raw(&files));
    assert_eq!(client.answer(4).0.len(), 3);
}

#[test]
fn only_files_pipes_and_block_devices_are_taken() {
    let house = house();
    let mut client = Client::new(&house.path);
    let folder = File::open("/").expect("a folder");
    let null = File::open("/dev/null").expect("a character device");
    let (socket, _other) = UnixStream::pair().expect("sockets");
    for (id, fd) in [(1, folder.as_raw_fd()), (2, null.as_raw_fd()), (3, socket.as_raw_fd())] {
        client.send_with(&ask(id, "files"), &[fd]);
        let fault = client.answer(id).1.expect_err("refused");
        assert_eq!(fault.kind, Kind::Invalid, "{fault}");
        assert!(!fault.fix.is_empty());
    }
    let (read, mut write) = pipe();
    write.write_all(b"through a pipe").expect("written");
    drop(write);
    client.send_with(&ask(4, "files"), &raw(&[read]));
    assert_eq!(client.answer(4).0, ["through a pipe"]);
}

#[test]
fn descriptors_with_frames_that_want_none_are_closed() {
    let house = house();
    let mut client = Client::new(&house.path);
    let (read, mut write) = pipe();
    client.send_with(&ClientFrame::Cancel(5), &[read.as_raw_fd()]);
    drop(read);
    client.get(1, "x").1.expect("done");
    let broken = write.write_all(b"x").expect_err("nobody holds the other end");
    assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn descriptors_without_end_neither_grow_the_daemon_nor_stay_open() {
    let house = house();
    let mut client = Client::new(&house.path);
    let (read, mut write) = pipe();
    let bytes = framed(&ask(1, "files"));
    let fds = vec![read.as_raw_fd(); 100];
    for byte in &bytes {
        let one = [*byte];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(client.stream.as_raw_fd(), &[IoSlice::new(&one)], &rights, MsgFlags::empty(), None)
            .expect("sent");
    }
    drop(read);
    assert_eq!(client.answer(1).1.map_err(|f| f.kind), Err(Kind::Limit));
    assert_eq!(write.write_all(b"x").map_err(|e| e.kind()), Err(std::io::ErrorKind::BrokenPipe));
}
