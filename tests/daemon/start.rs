//! Starting, stopping, starting again; mistakes in folders and configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::sys::signal::Signal;

use super::client::{Client, call};
use super::house::{House, eventually, mode};

#[test]
fn without_any_configuration_it_comes_up_on_the_embedded_default() {
    let house = House::running();
    assert_eq!(house.call("status").len(), 1);
    eventually("the default datastore", || (house.call("datastore.ls").len() == 1).then_some(()));
    assert_eq!((mode(&house.path("state")), mode(&house.path("state/key"))), (0o700, 0o600));
    assert_eq!((mode(&house.path("run")), mode(&house.socket())), (0o755, 0o660));
    assert!(house.log().contains("simulated"), "{}", house.log());
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_with_the_holders_pid() {
    let house = House::running();
    let mut second = house.bmid();
    second.arg("--socket").arg(house.path("other.sock"));
    let (code, _, said) = House::runs(&mut second);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", house.pid())), "{said}");
    assert!(!house.path("other.sock").exists());
    assert_eq!(house.call("status").len(), 1);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_with_the_holders_pid() {
    let house = House::running();
    let other = House::new();
    let (code, _, said) = House::runs(other.bmid().arg("--socket").arg(house.socket()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", house.pid())), "{said}");
    assert_eq!(house.call("status").len(), 1);
}

#[test]
fn a_second_daemon_on_the_same_run_folder_is_refused_with_the_holders_pid() {
    let house = House::running();
    let other = House::new();
    let mut second = Command::new(super::support::bmid());
    second.env_clear().arg("--sim").arg("--state-dir").arg(other.path("state"));
    second.arg("--run-dir").arg(house.path("run")).arg("--socket").arg(other.path("other.sock"));
    let (code, _, said) = House::runs(&mut second);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", house.pid())) && said.contains("--run-dir"), "{said}");
    assert_eq!(house.call("status").len(), 1);
}

#[test]
fn it_ends_in_order_when_asked_and_starts_again_on_what_it_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut house = House::running();
        let engine = house.call("status")[0]["engine_id"].clone();
        let mut watcher = house.client();
        watcher.send(&call(1, "event.watch", "{}"));
        assert_eq!(house.ends(signal).code(), Some(0), "{}", house.log());
        assert!(!house.socket().exists());
        house.start(&mut house.bmid());
        assert_eq!(house.call("status")[0]["engine_id"], engine);
    }
}

#[test]
fn after_a_kill_it_starts_again_over_its_own_stale_socket() {
    let mut house = House::running();
    let engine = house.call("status")[0]["engine_id"].clone();
    assert_eq!(house.ends(Signal::SIGKILL).code(), None);
    assert!(house.socket().exists());
    // The kill left the socket there; `start` waits until somebody answers on it.
    house.start(&mut house.bmid());
    assert_eq!(house.call("status")[0]["engine_id"], engine);
}

#[test]
fn a_mistake_in_the_configuration_ends_it_with_code_2_before_anything_is_made() {
    let house = House::new();
    let file = house.path("bmid.toml");
    fs::write(&file, "reconcil_every = 3\n").expect("written");
    let (code, _, said) = House::runs(house.bmid().arg("--config").arg(&file));
    assert_eq!(code, Some(2), "{said}");
    for part in ["reconcil_every", "reconcile_every", file.to_str().expect("text")] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!house.path("state").exists());
    let (code, _, said) = House::runs(house.bmid().env("BMID_PORT", "many"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("BMID_PORT") && said.contains("many"), "{said}");
    assert_eq!(House::runs(house.bmid().arg("--no-such-flag")).0, Some(2));
}

#[test]
fn folders_that_cannot_be_used_are_named_with_what_to_do() {
    let house = House::new();
    fs::write(house.path("state"), "a file").expect("written");
    let (code, _, said) = House::runs(&mut house.bmid());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(house.path("state").to_str().expect("text")), "{said}");
    let other = House::new();
    fs::write(other.path("run"), "a file").expect("written");
    let (code, _, said) = House::runs(&mut other.bmid());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--run-dir"), "{said}");
}

#[test]
fn a_missing_socket_group_is_said_before_anybody_could_connect() {
    let house = House::new();
    let (code, _, said) = House::runs(house.bmid().env("BMID_SOCKET_GROUP", "no-such-group"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no-such-group") && said.contains("groupadd"), "{said}");
    assert!(!house.socket().exists());
}

#[test]
fn the_effective_configuration_can_be_looked_at_without_starting() {
    let house = House::new();
    let (code, out, _) = House::runs(house.bmid().arg("--check-config").env("BMID_PORT", "3261"));
    assert_eq!(code, Some(0));
    assert!(out.contains("BMID_PORT)\nport = 3261"), "{out}");
    assert!(out.contains("(flag --state-dir)"), "{out}");
    assert!(!house.path("state").exists());
}

#[test]
fn an_offline_check_says_whether_the_state_is_whole() {
    let check = |house: &House| {
        let mut command = std::process::Command::new(super::support::bmid());
        House::runs(command.env_clear().arg("--state-dir").arg(house.path("state")).arg("--check"))
    };
    let mut house = House::running();
    let (code, _, said) = check(&house);
    assert_eq!(code, Some(1), "it runs");
    assert!(said.contains(&format!("process {}", house.pid())), "{said}");
    house.ends(Signal::SIGTERM);
    let (code, out, said) = check(&house);
    assert_eq!((code, out.contains("whole")), (Some(0), true), "{out}{said}");
    let (code, _, said) = check(&House::new());
    assert_eq!((code, said.contains("--state-dir")), (Some(1), true), "{said}");
}

#[test]
fn a_key_that_is_not_the_states_ends_the_start_and_stays() {
    let mut house = House::running();
    house.ends(Signal::SIGTERM);
    let key = house.path("state/key");
    fs::write(&key, "short").expect("written");
    let (code, _, said) = House::runs(&mut house.bmid());
    assert_eq!((code, said.contains("state/key")), (Some(1), true), "{said}");
    assert_eq!(fs::metadata(&key).expect("there").size(), 5);
}

#[test]
fn a_client_of_another_release_gets_raw_answers_from_the_real_daemon() {
    let house = House::running();
    let mut client = Client::silent(&house.socket());
    let hello = bmi::protocol::Hello { protocol: 99, ..bmi::protocol::Hello::ours() };
    client.send(&bmi::protocol::ClientFrame::Hello(hello));
    assert!(matches!(client.next(), Some(bmi::protocol::ServerFrame::Hello(_))));
    client.send(&call(1, "status", "{}"));
    assert_eq!(client.called(1).1, None);
}

#[test]
fn it_has_the_open_files_that_it_may_have_and_gives_a_worker_more_than_the_host_would() {
    let mut house = House::new();
    let mut command = Command::new("prlimit");
    command.env_clear().env("PATH", "/usr/bin:/bin").arg("--nofile=1024:4096").arg(super::support::bmid());
    house.with_flags(&mut command);
    house.start(&mut command);
    let limits = fs::read_to_string(format!("/proc/{}/limits", house.pid())).expect("its limits");
    let files = limits.lines().find_map(|l| l.strip_prefix("Max open files")).expect("the line");
    let has: Vec<u64> = files.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    // In a container nobody may have more than it was given.
    let may = Command::new("prlimit").args(["--nofile=524288:524288", "true"]).output().expect("prlimit").status;
    assert_eq!(has, if may.success() { [65_536, 524_288] } else { [4_096, 4_096] });
}
