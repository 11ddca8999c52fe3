//! CHAP secrets that no script carries: handed out once, to whoever asked, and found nowhere else.

use std::path::Path;

use bmi::model::{Caller, Id, Kind};
use bmi::protocol::Envelope;
use serde_json::Value;

use crate::rig::Rig;

const WEB1: &str = "node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap=out-of-band";

fn secret(item: &Value) -> Option<&str> {
    item["chap_secret"].as_str()
}

fn with_id(byte: u8) -> Envelope {
    Envelope { op_id: Some(Id([byte; 16])), ..Envelope::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_out_of_band_secret_is_in_the_answer_to_provision_and_never_again() {
    let rig = Rig::new().await;
    rig.ground().await;
    let made = rig.ask(Rig::root(), with_id(1), WEB1).await.unwrap();
    let first = secret(made.one()).expect("the secret").to_owned();
    assert_eq!(first.len(), 16);
    let node = made.one()["id"].as_str().unwrap();
    assert_eq!(made.one()["chap_user"], format!("node-{node}"));

    let again = rig.ask(Rig::root(), with_id(1), WEB1).await.unwrap();
    assert_eq!(secret(again.one()), None, "the same operation again does not tell it");
    assert_eq!(again.one()["chap_shown_to"], "root", "but when and to whom it was told");
    assert!(again.one()["chap_shown_at"].is_string());
    assert_eq!(secret(rig.run(WEB1).await.one()), None, "nor does the same command under another id");
    let shown = rig.run("node show web1").await;
    assert_eq!((secret(shown.one()), &shown.one()["chap_shown_to"]), (None, &Value::from("root")));

    let refused = rig.refuse("node chap-secret web1").await;
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.why.contains("root") && refused.why.contains("20"), "to whom and when: {refused}");
    assert!(refused.fix.contains("--rotate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_nobody_waited_for_is_handed_out_when_asked_for_and_to_one_asker_alone() {
    let rig = Rig::new().await;
    rig.ground().await;
    rig.ask(Rig::root(), Envelope { no_wait: true, ..with_id(2) }, WEB1).await.unwrap();
    rig.until("node show web1", |n| n["state"] == "ready").await;
    let late = rig.ask(Rig::root(), with_id(2), WEB1).await.unwrap();
    assert_eq!(secret(late.one()), None, "whoever repeats the operation is not the one who began it");
    assert_eq!(late.one()["chap_shown_at"], Value::Null, "and nobody has it yet");

    let check = Envelope { check: true, ..Envelope::default() };
    assert!(rig.ask(Rig::root(), check.clone(), "node chap-secret web1").await.unwrap().items.is_empty());
    let caller = |name: &str| Caller { name: name.to_owned(), ..Rig::root() };
    let (a, b) = tokio::join!(
        rig.ask(caller("ann"), Envelope::default(), "node chap-secret web1"),
        rig.ask(caller("bob"), Envelope::default(), "node chap-secret web1"),
    );
    let got = [a, b].into_iter().filter(|r| r.as_ref().is_ok_and(|r| secret(r.one()).is_some())).count();
    assert_eq!(got, 1, "one of two who ask at once");
    let to = rig.run("node show web1").await.one()["chap_shown_to"].as_str().unwrap().to_owned();
    assert!(["ann", "bob"].contains(&to.as_str()), "{to}");
    let events = rig.run("event ls").await;
    let told = events.items.iter().filter(|e| e["method"] == "node.chap_secret" && e["outcome"] == "noticed").count();
    assert_eq!(told, 1, "the trail says that it was shown");

    let new = rig.ask(Rig::root(), with_id(3), "node chap-secret web1 --rotate").await.unwrap();
    assert!(new.end.changed);
    let rotated = secret(new.one()).expect("the new secret").to_owned();
    let again = rig.ask(Rig::root(), with_id(3), "node chap-secret web1 --rotate").await.unwrap();
    assert_eq!(secret(again.one()), None, "a repeated rotation neither rotates nor tells");
    let next = rig.run("node chap-secret web1 --rotate").await;
    assert_ne!(secret(next.one()), Some(rotated.as_str()));
    let stranger = Caller { project: "other".parse().unwrap(), ..Rig::root() };
    let node = next.one()["id"].as_str().unwrap();
    for line in [format!("node chap-secret {node} --rotate"), format!("node boot-script {node}")] {
        let refused = rig.ask(stranger.clone(), Envelope::default(), &line).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden, "{line}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_script_may_be_read_as_often_as_the_script() {
    let rig = Rig::new().await;
    rig.ground().await;
    let plain = "node provision plain --image golden --mac 52:54:00:00:00:02 --network net1";
    rig.run(plain).await;
    let none = rig.refuse("node chap-secret plain").await;
    assert_eq!(none.kind, Kind::Conflict);
    assert!(none.fix.contains("--chap"), "{none}");
    let made = rig.run("node provision web1 --image golden --mac 52:54:00:00:00:01 --network net1 --chap").await;
    assert_eq!(secret(made.one()), None, "the machine reads it itself");
    let first = secret(rig.run("node chap-secret web1").await.one()).unwrap().to_owned();
    assert_eq!(secret(rig.run("node chap-secret web1").await.one()), Some(first.as_str()));
    let script = rig.run("node boot-script web1").await.one()["script"].as_str().unwrap().to_owned();
    assert!(script.contains(&first));
    let second = secret(rig.run("node chap-secret web1 --rotate").await.one()).unwrap().to_owned();
    let script = rig.run("node boot-script web1").await.one()["script"].as_str().unwrap().to_owned();
    assert!(script.contains(&second) && !script.contains(&first), "the script has the new one");
}

/// Everything bmid wrote and everything it answers, except the answer that hands the secret out. Secrets are not sealed in
/// this rig, so the rows that must hold them are told apart: they hold it as the numbers of its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn no_listing_event_operation_or_outside_object_holds_a_secret() {
    let rig = Rig::new().await;
    rig.ground().await;
    let made = rig.ask(Rig::root(), with_id(4), WEB1).await.unwrap();
    let mut secrets = vec![secret(made.one()).unwrap().to_owned()];
    let again = "node chap-secret web1 --rotate";
    secrets.push(secret(rig.run(again).await.one()).unwrap().to_owned());
    let dump = rig.dir.join("dump.jsonl");
    let mut told = String::new();
    for line in [
        "node ls --all",
        "node show web1",
        "target ls",
        "target show web1",
        "op ls --all",
        "event ls",
        "status",
        "doctor",
        "volume ls --all",
        "node boot-script web1",
        &format!("state dump {}", dump.display()),
    ] {
        told += &format!("{line}: {:?}\n", rig.run(line).await.items);
    }
    told += &format!("{:?}\n", rig.ask(Rig::root(), with_id(4), WEB1).await.unwrap().items);
    told += &std::fs::read_to_string(&dump).unwrap();
    told += &contents(&rig.dir.join("world"));
    for secret in &secrets {
        assert!(!told.contains(secret), "{secret} stands in {told}");
    }
}

/// All files beneath a folder, as text.
fn contents(dir: &Path) -> String {
    let mut out = String::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            out += &contents(&entry.path());
        } else {
            out += &String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap());
        }
    }
    out
}
