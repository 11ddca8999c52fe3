//! Frames that a machine tags itself.

use std::net::UdpSocket;
use std::time::Duration;

use super::bench::{attack, on};
use super::wire::at;

#[test]
fn frames_that_carry_another_vlans_number_go_nowhere() {
    attack("isolation::tagged::frames_that_carry_another_vlans_number_go_nowhere", |bench| {
        let script = bench.run_folder().join("tagged.py");
        std::fs::write(&script, include_str!("tagged.py")).unwrap();
        let send = |machine: &str, frames: &str| {
            let (sent, said) = on(machine, &format!("python3 {} {frames}", script.display()));
            assert!(sent, "{said}");
        };
        let hears = || {
            let socket = UdpSocket::bind("0.0.0.0:9999").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        };
        // A machine of B, and the engine itself, which has an ear on every network.
        let (b, engine) = (at("b", hears), hears());
        let next = |from: &UdpSocket| {
            let mut room = [0; 100];
            let n = from.recv(&mut room).unwrap_or_else(|e| panic!("nothing is heard: {e}"));
            String::from_utf8_lossy(&room[..n]).into_owned()
        };
        let tags = ["200", "100,200", "200,200", "0,200", "200,100", "100,100"];
        send("a", &format!("'' plain {}", tags.map(|t| format!("{t} hostile-{t}")).join(" ")));
        assert_eq!(next(&engine), "plain", "what A sends as it should is heard on A");
        send("b2", "'' friendly");
        assert_eq!(next(&b), "friendly", "what A tagged for B is not heard on B");
        let told = next(&engine);
        assert_eq!(told, "friendly", "nor by the engine");
    });
}
