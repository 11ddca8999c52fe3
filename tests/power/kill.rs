//! SIGKILL at any moment: nothing acknowledged is missing, nothing is torn, the store opens.

use crate::child::{Writer, open, prove, serve};

const NAME: &str = "kill::killed_at_any_moment_nothing_acknowledged_is_missing";

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_missing() {
    if serve().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos() | 1;
    println!("seed {seed}");
    let mut random = seed;
    let mut acked = Vec::new();
    for round in 0..20 {
        let mut writer = Writer::start(NAME, &state);
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        if round % 4 == 3 {
            // Sometimes while it starts, sometimes before it has said anything.
            std::thread::sleep(std::time::Duration::from_micros(u64::from(random % 60_000)));
        } else {
            writer.hear(usize::try_from(random % 400).unwrap());
        }
        acked.extend(writer.kill());
        prove(&state, &acked);
    }
    assert!(acked.len() > 100, "the child hardly wrote anything");
    assert!(open(&state).unwrap().aside.is_empty());
}

#[test]
fn a_store_held_by_another_process_is_refused_with_its_pid() {
    if serve().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start("kill::a_store_held_by_another_process_is_refused_with_its_pid", dir.path());
    writer.hear(1);
    let Err(bmid::store::OpenError::Held { pid }) = open(dir.path()) else { panic!("the store opened twice") };
    assert_eq!(pid, writer.pid());
    writer.kill();
    assert!(!open(dir.path()).unwrap().fresh);
}
