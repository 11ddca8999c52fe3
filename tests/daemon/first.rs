//! The first moments of a new engine: who asks at once is served, and what is made then can be brought back.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bmi::protocol::Envelope;
use nix::sys::signal::Signal;

use super::client::Client;
use super::house::{House, eventually};
use super::imports::{SIZE, ended, import};

/// A child that ends with its owner.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn disk() -> fs::File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(SIZE).expect("its size");
    file
}

#[test]
fn an_import_sent_the_moment_the_socket_accepts_finds_the_default_datastore() {
    for round in 0..25 {
        let house = House::new();
        let log = fs::File::create(house.path("log")).expect("a log");
        let mut bmid = Ends(house.bmid().stdin(Stdio::null()).stderr(log).spawn().expect("bmid starts"));
        // No pause between two tries: the first one that is accepted asks.
        while UnixStream::connect(house.socket()).is_err() {
            assert!(bmid.0.try_wait().expect("asked").is_none(), "round {round}: bmid ended: {}", house.log());
        }
        let mut client = house.client();
        client.send_with(&import("golden", Some(0), Envelope::default()), &[disk().as_raw_fd()]);
        ended(&mut client).unwrap_or_else(|fault| panic!("round {round}: {fault}\n{}", house.log()));
    }
}

#[test]
fn a_request_that_waits_in_a_socket_of_systemd_before_the_first_start_is_served() {
    let house = House::new();
    let path = house.path("activated.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let mut shell = super::manager::activated(&house, listener.try_clone().expect("a second handle"), "1");
    let client = Client::silent(&path);
    let hello = bmi::protocol::ClientFrame::Hello(bmi::protocol::Hello::ours());
    client.send_with(&hello, &[]);
    client.send_with(&import("golden", Some(0), Envelope::default()), &[disk().as_raw_fd()]);
    let _bmid = Ends(shell.stderr(Stdio::null()).spawn().expect("started"));
    let mut client = client;
    assert!(matches!(client.next(), Some(bmi::protocol::ServerFrame::Hello(_))));
    ended(&mut client).expect("served");
}

#[test]
fn a_time_limit_shorter_than_the_first_start_ends_the_waiting_and_nothing_is_begun() {
    let mut house = House::new();
    fs::create_dir_all(house.path("state/sim")).expect("made");
    fs::write(house.path("state/sim/faults"), "hang storage.make_store.before 1 8\n").expect("written");
    house.start(&mut house.bmid());
    let mut client = house.client();
    let envelope = Envelope { timeout_ms: Some(100), ..Envelope::default() };
    client.send_with(&import("golden", Some(0), envelope), &[disk().as_raw_fd()]);
    let fault = ended(&mut client).expect_err("too early");
    assert_eq!(fault.kind, bmi::model::Kind::Timeout, "{fault}");
    assert!(fault.why.contains("nothing was begun"), "{fault}");
    assert_eq!(house.call("status").len(), 1, "what is not about it is served meanwhile");
    client.send_with(&import("golden", Some(0), Envelope::default()), &[disk().as_raw_fd()]);
    ended(&mut client).expect("it waits");
}

fn dumps(house: &House) -> Vec<PathBuf> {
    let folder = fs::read_dir(house.path("state/dumps")).into_iter().flatten().flatten();
    let mut out: Vec<PathBuf> =
        folder.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    out.sort();
    out
}

fn check(house: &House) -> (Option<i32>, String) {
    let mut command = Command::new(super::support::bmid());
    let (code, out, said) = House::runs(command.env_clear().arg("--state-dir").arg(house.path("state")).arg("--check"));
    (code, out + &said)
}

/// Spoils every file of the store.
fn damage(house: &House) {
    for file in fs::read_dir(house.path("state/db")).expect("a store").flatten().filter(|f| f.path().is_file()) {
        let len = usize::try_from(file.metadata().expect("there").len()).expect("fits");
        fs::write(file.path(), vec![0xa5; len.max(16)]).expect("spoiled");
    }
}

#[test]
fn a_store_damaged_right_after_the_first_start_comes_back_out_of_the_dump_of_that_start() {
    let mut house = House::running();
    let engine = house.call("status")[0]["engine_id"].clone();
    let first = eventually("the first dump", || dumps(&house).pop());
    let datastore = house.call("datastore.ls")[0]["id"].clone();
    assert_eq!(house.ends(Signal::SIGKILL).code(), None);
    damage(&house);
    let restore = format!("bmictl state restore {} --yes", first.display());

    let (code, said) = check(&house);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("damaged") && said.contains(&restore), "{said}");
    assert!(house.path("state/db").exists(), "a look moves nothing");

    let (code, _, said) = House::runs(&mut house.bmid());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("moved to") && said.contains("start bmid again") && said.contains(&restore), "{said}");
    let (code, said) = check(&house);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stands aside") && said.contains(&restore), "{said}");

    house.start(&mut house.bmid());
    house.says(&restore);
    assert!(house.call("datastore.ls").is_empty(), "it waits for the dump");
    let mut bmictl = Command::new(super::support::bmictl());
    bmictl.arg("--socket").arg(house.socket()).args(["state", "restore", first.to_str().expect("text"), "--yes"]);
    let (code, _, said) = House::runs(&mut bmictl);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(house.call("status")[0]["engine_id"], engine);
    assert_eq!(house.call("datastore.ls")[0]["id"], datastore);
    let mut client = house.client();
    client.send_with(&import("golden", Some(0), Envelope::default()), &[disk().as_raw_fd()]);
    ended(&mut client).expect("the datastore is in use again");
    assert!(house.call("state.check").is_empty());
}

#[test]
fn an_empty_store_that_waits_for_its_dump_writes_none_of_its_own() {
    let mut house = House::running();
    eventually("the first dump", || dumps(&house).pop());
    house.ends(Signal::SIGTERM);
    let before = dumps(&house);
    damage(&house);
    // As old as after a night: another one is due at once.
    let night = std::time::SystemTime::now() - std::time::Duration::from_secs(40_000);
    for dump in &before {
        fs::File::options().write(true).open(dump).and_then(|f| f.set_modified(night)).expect("older");
    }
    House::runs(&mut house.bmid());
    house.start(&mut house.bmid());
    assert_eq!(house.call("status").len(), 1);
    house.ends(Signal::SIGTERM);
    assert_eq!(dumps(&house), before);
}

#[test]
fn an_orderly_stop_writes_what_has_changed_since_the_last_dump_and_only_then() {
    let mut house = House::running();
    eventually("the first dump", || dumps(&house).pop());
    let mut client = house.client();
    client.send_with(&import("golden", Some(0), Envelope::default()), &[disk().as_raw_fd()]);
    ended(&mut client).expect("imported");
    let before = dumps(&house);
    assert_eq!(house.ends(Signal::SIGTERM).code(), Some(0), "{}", house.log());
    let after = dumps(&house);
    assert_eq!(after.len(), before.len() + 1);
    assert!(fs::read_to_string(after.last().expect("one")).expect("read").contains("golden"));
}
