//! Descriptors all the way through the real daemon: a client that leaves while its bytes are taken in, or lies about them.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use bmi::model::{Bytes, Fault, Format, Kind};
use bmi::ops::Request;
use bmi::ops::args::Source;
use bmi::ops::image::import::ImageImport;
use bmi::protocol::{ClientFrame, Envelope, ServerFrame, Submit};

use super::client::Client;
use super::house::{House, eventually};

/// Of every disk here.
pub(crate) const SIZE: u64 = 4 << 20;

/// The request for an import.
pub(crate) fn import(name: &str, descriptor: Option<u8>, envelope: Envelope) -> ClientFrame {
    let request = Request::ImageImport(ImageImport {
        source: Some(Source { name: "disk".into(), descriptor }),
        name: name.parse().expect("a name"),
        format: Some(Format::Raw),
        size: Some(Bytes(SIZE)),
        sha256: None,
        datastore: "default".parse().expect("a name"),
        from_rbd: None,
        in_place: false,
    });
    ClientFrame::Submit(Submit { id: 1, envelope, request })
}

fn settled() -> House {
    let house = House::running();
    eventually("the default datastore", || {
        let made = house.call("datastore.ls").iter().any(|d| d["state"] == "active");
        (made && house.call("op.ls").is_empty()).then_some(())
    });
    house
}

fn images(house: &House) -> Vec<serde_json::Value> {
    house.call("image.ls")
}

/// How request 1 ends.
pub(crate) fn ended(client: &mut Client) -> Result<(), Fault> {
    loop {
        match client.next() {
            Some(ServerFrame::End { id: 1, end }) => return end.map(|_| ()),
            Some(_) => {}
            None => panic!("closed without an end"),
        }
    }
}

fn pipe() -> (File, File) {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    (read.into(), write.into())
}

#[test]
fn an_import_goes_on_when_its_client_is_gone() {
    let house = settled();
    let client = house.client();
    let (read, mut write) = pipe();
    client.send_with(&import("golden", Some(0), Envelope::default()), &[read.as_raw_fd()]);
    drop(read);
    write.write_all(&vec![7; 1 << 20]).expect("somebody reads");
    drop(client);
    write.write_all(&vec![7; 3 << 20]).expect("somebody still reads");
    drop(write);
    let image = eventually("the image is there", || images(&house).into_iter().find(|i| i["status"] == "active"));
    assert_eq!(image["size_bytes"], SIZE);
}

#[test]
fn an_import_that_asked_for_it_ends_with_its_client() {
    let house = settled();
    let client = house.client();
    let (read, mut write) = pipe();
    let envelope = Envelope { cancel_on_close: true, ..Envelope::default() };
    client.send_with(&import("golden", Some(0), envelope), &[read.as_raw_fd()]);
    drop(read);
    write.write_all(&vec![7; 1 << 20]).expect("somebody reads");
    drop(client);
    // The reader lets go: what is written from then on finds nobody.
    eventually("the pipe breaks", || write.write_all(&[7; 4096]).is_err().then_some(()));
    eventually("nothing is left of it", || (images(&house).is_empty() && house.call("op.ls").is_empty()).then_some(()));
}

#[test]
fn a_request_that_names_descriptors_it_did_not_bring_is_refused() {
    let house = settled();
    for descriptor in [None, Some(0), Some(3), Some(255)] {
        let mut client = house.client();
        client.send(&import("golden", descriptor, Envelope::default()));
        assert!(ended(&mut client).is_err(), "{descriptor:?}");
    }
    assert!(images(&house).is_empty());
}

#[test]
fn fewer_bytes_than_declared_are_refused_and_leave_nothing() {
    let house = settled();
    let mut client = house.client();
    let file = super::client::file("too short");
    client.send_with(&import("golden", Some(0), Envelope::default()), &[file.as_raw_fd()]);
    let fault = ended(&mut client).expect_err("refused");
    assert!(matches!(fault.kind, Kind::Corrupt | Kind::Invalid), "{fault}");
    assert!(images(&house).is_empty());
}
