//! Raw calls by the real client: files go along, an admin acts for another project, a stream answers each line.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::house::House;

fn bmictl(house: &House, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(super::support::bmictl());
    House::runs(command.env_clear().arg("--socket").arg(house.socket()).args(args))
}

#[test]
fn a_raw_call_brings_its_files_and_acts_for_the_project_it_names() {
    let house = House::running();
    let (golden, out) = (house.path("golden.raw"), house.path("out.raw"));
    fs::write(&golden, vec![9u8; 1 << 20]).expect("written");
    let import = format!(r#"{{"source": {:?}, "name": "golden", "format": "raw"}}"#, golden.display().to_string());
    let (code, _, said) = bmictl(&house, &["call", "image.import", &import, "--project", "lab"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, none, _) = bmictl(&house, &["call", "image.ls"]);
    assert_eq!(none.trim(), "[]", "it belongs to another project");
    let (_, lab, _) = bmictl(&house, &["call", "image.ls", r#"{"context": {"owner": "lab", "is_admin": true}}"#]);
    assert!(lab.contains("golden"), "{lab}");

    let mut stream = Command::new(super::support::bmictl());
    stream.env_clear().arg("--socket").arg(house.socket()).args(["call", "--stream", "--project", "lab"]);
    let mut child = stream.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bmictl starts");
    let export = format!(r#"{{"image": "golden", "target": {:?}, "format": "raw"}}"#, out.display().to_string());
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, r#"{{"jsonrpc": "2.0", "id": 1, "method": "image.export", "params": {export}}}"#).expect("sent");
    let dash = r#"{"source": "-", "name": "x"}"#;
    writeln!(input, r#"{{"jsonrpc": "2.0", "id": 2, "method": "image.import", "params": {dash}}}"#).expect("sent");
    drop(input);
    let answered = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(answered.stdout).expect("text");
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert!(lines[0]["result"].is_object(), "{text}");
    assert!(lines[1]["error"]["message"].as_str().is_some_and(|m| m.contains("standard input")), "{text}");
    assert_eq!(fs::read(&out).expect("written").len(), 1 << 20);
}

#[test]
fn a_dump_into_a_pipe_that_nobody_reads_any_more_ends_quietly() {
    let house = House::running();
    let line = format!(
        "{} --socket {} state dump - | true; echo ${{PIPESTATUS[0]}}",
        super::support::bmictl().display(),
        house.socket().display()
    );
    for _ in 0..5 {
        let (_, code, said) = House::runs(Command::new("bash").args(["-c", &line]));
        assert_eq!((code.trim(), said.as_str()), ("0", ""), "head and its like are no failure");
    }
}
