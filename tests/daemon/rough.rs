//! What goes wrong around a running bmid: descriptors that do not fit, clients and daemons killed in the middle of an import,
//! a state folder that fills up.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::client::{call, file};
use super::house::{House, eventually};
use super::support::engine::Engine;
use super::support::host::Host;
use super::support::{bmictl, bmid, run};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn descriptors_that_bmid_has_no_room_for_close_their_connection_and_nothing_else() {
    let mut house = House::new();
    let mut limited = Command::new("prlimit");
    limited.env_clear().env("PATH", PATH).arg("--nofile=80:80").arg(bmid());
    house.with_flags(&mut limited);
    house.start(&mut limited);
    eventually("the default datastore", || (house.call("datastore.ls").len() == 1).then_some(()));
    let mut other = house.client();
    let before = descriptors(house.pid());
    let one = file("one of many");
    let many = vec![one.as_raw_fd(); 200];
    for _ in 0..3 {
        let mut client = house.client();
        client.send_with(&call(1, "status", "{}"), &many);
        let fault = client.closed();
        assert!(fault.to_string().contains("descriptors were lost"), "{fault}");
    }
    eventually("what came is closed", || (descriptors(house.pid()) <= before).then_some(()));
    other.send(&call(1, "status", "{}"));
    assert_eq!(other.called(1).1, None, "others are served");
}

/// `bmictl image import -` for a disk of 4 MiB, fed by the test.
fn importing(mut bmictl: Command) -> Child {
    bmictl.args(["image", "import", "-", "--name", "golden", "--format", "raw", "--size", "4M"]);
    bmictl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("bmictl starts")
}

fn client(house: &House) -> Command {
    let mut command = Command::new(bmictl());
    command.arg("--socket").arg(house.socket());
    command
}

#[test]
fn a_client_killed_in_the_middle_of_an_import_leaves_nothing_stuck() {
    let house = House::running();
    for writer_lives in [false, true] {
        let mut child = importing(client(&house));
        let mut pipe = child.stdin.take().expect("a pipe");
        pipe.write_all(&vec![7; 3 << 20]).expect("it is read");
        eventually("it has begun", || house.call("op.ls").iter().any(|o| o["method"] == "image.import").then_some(()));
        child.kill().expect("killed");
        child.wait().expect("taken in");
        if writer_lives {
            pipe.write_all(&vec![7; 1 << 20]).expect("bmid still reads");
        }
        drop(pipe);
        eventually("no operation is open", || house.call("op.ls").is_empty().then_some(()));
        let images = house.call("image.ls");
        assert_eq!(images.len(), usize::from(writer_lives), "{images:?}");
        assert!(images.iter().all(|i| i["status"] == "active"), "{images:?}");
        assert!(house.call("state.check").is_empty());
    }
}

/// The longest file beneath a folder.
fn longest(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|e| match e.file_type().is_ok_and(|t| t.is_dir()) {
        true => longest(&e.path()),
        false => e.metadata().map_or(0, |m| m.len()),
    });
    sizes.max().unwrap_or(0)
}

fn sha256(file: &Path) -> String {
    run(Command::new("sha256sum").arg(file)).split_whitespace().next().expect("a sum").to_owned()
}

#[test]
fn an_import_cut_off_by_the_daemons_death_is_resumed_and_has_the_right_sum() {
    let host = Host::new("resume");
    let mut engine = Engine::start(&host);
    let source = host.path("disk.raw");
    // Every block tells where it stands, so that none can pass for another.
    let bytes: Vec<u8> = (0u64..4 << 20).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    fs::write(&source, &bytes).expect("a disk");
    let mut command = host.command(bmictl());
    command.arg("--socket").arg(host.path("bmid.sock"));
    command.args(["image", "import", "-", "--name", "golden", "--format", "raw"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut cut = command.spawn().expect("bmictl starts");
    let mut pipe = cut.stdin.take().expect("a pipe");
    pipe.write_all(&bytes[..20 << 20]).expect("it is read");
    let staging = engine.state().join("datastore/staging");
    let came = eventually("its bytes are there", || Some(longest(&staging)).filter(|n| *n >= 16 << 20));
    engine.kill();
    drop(pipe);
    let said = cut.wait_with_output().expect("bmictl ends");
    assert!(!said.status.success(), "it tells that it does not know the end");
    engine.restart();
    eventually("the cut one has ended", || {
        engine.json(&["op", "ls"]).as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert!(longest(&staging) >= came, "what had come is kept");
    engine.ctl(&["image", "import", source.to_str().expect("text"), "--name", "golden", "--format", "raw"]);
    let image = engine.json(&["image", "show", "golden"]);
    let sum = sha256(&source);
    assert_eq!((&image["status"], &image["size_bytes"]), (&Value::from("active"), &Value::from(bytes.len())));
    assert_eq!((image["sha256"].as_str(), image["raw_sha256"].as_str()), (Some(&*sum), Some(&*sum)));
    let id = image["id"].as_str().expect("an id");
    let found =
        run(Command::new("find").arg(engine.state().join("datastore/images")).args(["-name", &format!("{id}*.raw")]));
    assert_eq!(sha256(Path::new(found.trim())), sum, "and so have the bytes on the datastore");
    assert_eq!(longest(&staging), 0, "nothing is left of the way there");
}

#[test]
fn a_state_folder_that_fills_up_refuses_the_new_lets_the_old_end_and_needs_no_restart() {
    let host = Host::new("full");
    // Only the state is on the small file system: what fills up is bmid's own room.
    host.sh(&format!("mkdir {0} && mount -t tmpfs -o size=300M tmpfs {0}", host.path("small").display()));
    let socket = host.path("run/bmid.sock");
    let log = File::create(host.path("bmid.log")).expect("a log");
    let mut daemon = host.command(bmid());
    daemon.arg("--state-dir").arg(host.path("small/state")).arg("--run-dir").arg(host.path("run"));
    daemon.arg(format!("--sim={}", host.path("world").display()));
    daemon.env("BMID_DEFAULT_DATASTORE", host.path("store")).stderr(log);
    let mut daemon = daemon.spawn().expect("bmid starts");
    let ctl = |args: &[&str]| -> Output {
        host.command(bmictl()).arg("--socket").arg(&socket).args(args).output().expect("bmictl starts")
    };
    let done = |args: &[&str]| {
        let out = ctl(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    eventually("it answers", || ctl(&["datastore", "show", "default"]).status.success().then_some(()));
    let mut command = host.command(bmictl());
    command.arg("--socket").arg(&socket);
    let mut running = importing(command);
    let mut pipe = running.stdin.take().expect("a pipe");
    pipe.write_all(&vec![7; 1 << 20]).expect("it is read");
    eventually("it has begun", || done(&["op", "ls"]).contains("image.import").then_some(()));
    let fill = host.path("small/fill");
    host.sh(&format!("dd if=/dev/zero of={} bs=64k 2>/dev/null || true", fill.display()));

    let create = ["datastore", "create", "second", "--kind", "file", "--path", "/srv/second"];
    let refused = ctl(&create);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("is full") && said.contains("make room"), "{said}");
    assert!(!done(&["datastore", "ls"]).contains("second"), "reading goes on, and nothing was begun");

    pipe.write_all(&vec![7; 3 << 20]).expect("it is read");
    drop(pipe);
    let ended = running.wait_with_output().expect("bmictl ends");
    assert!(ended.status.success(), "what runs ends: {}", String::from_utf8_lossy(&ended.stderr));
    assert!(done(&["image", "ls"]).contains("golden"));

    host.sh(&format!("rm {}", fill.display()));
    done(&create);
    assert_eq!(done(&["state", "check", "-f", "jsonl"]), "");
    assert!(daemon.try_wait().expect("asked").is_none(), "it is still the same bmid");
    daemon.kill().expect("killed");
    daemon.wait().expect("taken in");
}
