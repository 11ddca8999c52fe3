//! Power lost at any moment: the file system under the store is shut down without flushing its log, and mounted again.

use crate::child::{Writer, open, prove, serve};
use crate::disk::Disk;

#[test]
fn power_lost_in_a_fresh_store_takes_nothing_acknowledged() {
    if serve().is_some() {
        return;
    }
    for round in 0..5 {
        let mut disk = Disk::new();
        let state = disk.path().join("state");
        let mut writer = Writer::start("loss::power_lost_in_a_fresh_store_takes_nothing_acknowledged", &state);
        writer.hear([1, 2, 20, 150, 400][round]);
        disk.lose_power();
        let acked = writer.kill();
        disk.unmount();
        disk.mount();
        prove(&state, &acked);
        assert!(open(&state).unwrap().aside.is_empty());
        disk.unmount();
    }
}

#[test]
fn power_lost_again_and_again_takes_nothing_acknowledged() {
    if serve().is_some() {
        return;
    }
    let mut disk = Disk::new();
    let state = disk.path().join("state");
    let mut acked = Vec::new();
    for round in 0..8 {
        let mut writer = Writer::start("loss::power_lost_again_and_again_takes_nothing_acknowledged", &state);
        writer.hear(50 + 37 * round);
        disk.lose_power();
        acked.extend(writer.kill());
        disk.unmount();
        disk.mount();
        prove(&state, &acked);
    }
    assert!(open(&state).unwrap().aside.is_empty());
    disk.unmount();
}

#[test]
fn power_lost_while_the_store_is_made_leaves_one_that_opens() {
    if serve().is_some() {
        return;
    }
    for round in 0..6u64 {
        let mut disk = Disk::new();
        let state = disk.path().join("state");
        let writer = Writer::start("loss::power_lost_while_the_store_is_made_leaves_one_that_opens", &state);
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        disk.lose_power();
        let acked = writer.kill();
        disk.unmount();
        disk.mount();
        prove(&state, &acked);
        assert!(open(&state).unwrap().aside.is_empty());
        disk.unmount();
    }
}
