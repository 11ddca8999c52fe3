//! A machine that loses its power says no goodbye: tgtd finds out, and its disk is free without force.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::house::inside;
use crate::rig::Rig;
use crate::whole::ground;

/// Logs in with one request, as a node's iPXE does.
fn login(node: &serde_json::Value) -> TcpStream {
    let text = |key: &str| node[key].as_str().unwrap().to_owned();
    let keys = [
        format!("InitiatorName={}", text("initiator")),
        format!("TargetName={}", text("iqn")),
        "SessionType=Normal".to_owned(),
        "AuthMethod=None".to_owned(),
        "HeaderDigest=None".to_owned(),
        "DataDigest=None".to_owned(),
    ];
    let mut data: Vec<u8> = keys.iter().flat_map(|k| k.bytes().chain([0])).collect();
    let mut pdu = vec![0x43, 0x87, 0, 0];
    pdu.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    pdu.extend([0x80, 0x12, 0x34, 0x56, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    pdu.resize(48, 0);
    data.resize(data.len().next_multiple_of(4), 0);
    pdu.extend(data);
    let mut stream = TcpStream::connect(text("portal")).unwrap();
    stream.write_all(&pdu).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[36..38], [0, 0], "logged in");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([answer[6], answer[7]])).next_multiple_of(4)];
    stream.read_exact(&mut rest).unwrap();
    stream
}

/// Answers what tgtd asks, until tgtd hangs up; how many questions that were.
fn answer(mut stream: TcpStream) -> u32 {
    let mut asked = 0;
    let mut pdu = [0; 48];
    while stream.read_exact(&mut pdu).is_ok() {
        assert_eq!(pdu[0] & 0x3f, 0x20, "a NOP-In");
        asked += 1;
        // A NOP-Out with the question's tag.
        let mut reply = [0; 48];
        reply[..2].copy_from_slice(&[0x40, 0x80]);
        reply[8..16].copy_from_slice(&pdu[8..16]);
        reply[16..20].fill(0xff);
        reply[20..24].copy_from_slice(&pdu[20..24]);
        reply[27] = 2;
        reply[28..32].copy_from_slice(&pdu[24..28]);
        if stream.write_all(&reply).is_err() {
            break;
        }
    }
    asked
}

/// Takes as long as a machine has to answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_power_is_logged_out_and_one_that_answers_stays() {
    if !inside("power::a_machine_without_power_is_logged_out_and_one_that_answers_stays") {
        return;
    }
    let rig = Rig::real().await;
    ground(&rig).await;
    let mut nodes = Vec::new();
    for (name, mac) in [("dark", "52:54:00:00:00:01"), ("bright", "52:54:00:00:00:02")] {
        let line = format!("node provision {name} --image golden --mac {mac} --network net1");
        nodes.push(rig.run(&line).await.one().clone());
    }
    let dark = login(&nodes[0]);
    let bright = login(&nodes[1]);
    let answers = std::thread::spawn(move || answer(bright));
    rig.refuse("node deprovision dark").await;
    for _ in 0..300 {
        if rig.run("node show dark").await.one()["sessions"] == serde_json::json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    rig.run("node deprovision dark").await;
    assert_eq!(rig.run("node show bright").await.one()["sessions"].as_array().unwrap().len(), 1);
    rig.refuse("node deprovision bright").await;
    rig.run("node deprovision bright --force").await;
    let asked = answers.join().unwrap();
    assert!(asked >= 3, "it was asked {asked} times");
    drop(dark);
    rig.run("network rm net1").await;
}
