//! What is sealed stays sealed: a CHAP secret is in the answer that hands it out and in no file of bmid.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::house::House;

/// bmictl's answer as JSON; it must succeed.
fn ask(house: &House, line: &str) -> serde_json::Value {
    let mut command = Command::new(super::support::bmictl());
    command.env_clear().arg("--socket").arg(house.socket()).args(line.split_whitespace()).args(["-f", "json"]);
    let (code, out, said) = House::runs(&mut command);
    assert_eq!(code, Some(0), "{line}: {said}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{line}: {e}: {out}"))
}

/// Files beneath a folder that hold these bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found.extend(holding(&path, bytes));
        } else if kind.is_file() && fs::read(&path).expect("readable").windows(bytes.len()).any(|part| part == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn no_file_of_bmid_and_no_word_it_says_holds_a_secret() {
    let mut house = House::new();
    let mut bmid = house.bmid();
    fs::write(house.path("bmid.toml"), "log = \"trace\"\n").expect("written");
    house.start(bmid.arg("--config").arg(house.path("bmid.toml")));
    let golden = house.path("golden.raw");
    fs::write(&golden, vec![7u8; 1 << 20]).expect("written");
    ask(&house, &format!("image import {} --name golden --format raw", golden.display()));
    ask(&house, "network create net1 --interface eth1 --address 10.9.0.1/24");
    let made =
        ask(&house, "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap=out-of-band");
    let mut secrets = vec![made["chap_secret"].as_str().expect("the secret").to_owned()];
    let rotated = ask(&house, "node chap-secret web1 --rotate");
    secrets.push(rotated["chap_secret"].as_str().expect("the new secret").to_owned());
    let dump = house.path("dump.jsonl");
    ask(&house, &format!("state dump {}", dump.display()));
    assert!(house.ends(Signal::SIGTERM).success());
    for secret in secrets {
        assert_eq!(holding(&house.path(""), secret.as_bytes()), Vec::<String>::new());
    }
    let user = made["chap_user"].as_str().expect("the account").as_bytes();
    assert!(!holding(&house.path(""), user).is_empty(), "what is no secret is found this way");
}
