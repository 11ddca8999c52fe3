//! Blocks that a machine has written many times by one command, on a disk in a pool, by both ways that one is exported.

use std::fs;

use super::initiator::{BLOCK, MOST};
use super::pools::{House, stored};
use crate::drivers::storage::rbd::tests::ceph::{ceph, own_kernel};

/// Blocks of an object of a pool.
const OBJECT: u64 = 8_192;

/// Writes that the kernel has sent to the one disk of a pool that it has mapped.
fn sent(house: &House) -> u64 {
    let devices = fs::read_dir("/sys/bus/rbd/devices").unwrap().map(|e| e.unwrap().path());
    let of_pool = |p: &std::path::PathBuf| fs::read_to_string(p.join("pool")).unwrap().trim() == house.pool();
    let mut of_pool = devices.filter(of_pool);
    let (device, None) = (of_pool.next().unwrap(), of_pool.next()) else { panic!("more than one") };
    let stat = fs::read_to_string(format!("/sys/block/rbd{}/stat", device.file_name().unwrap().display())).unwrap();
    stat.split_whitespace().nth(4).unwrap().parse().unwrap()
}

#[test]
fn a_block_that_is_written_many_times_is_few_questions_and_reaches_its_blocks_alone() {
    let house = House::new("same");
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    let mut machine = house.session(1);
    let mut pattern = [0; BLOCK];
    pattern.iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8 ^ (n >> 8) as u8);
    // The end of one object, two whole ones, the beginning of a fourth.
    let (first, blocks) = (OBJECT - 3, 2 * OBJECT + 5);
    let (before, behind) = (first - 1, first + blocks);
    machine.write(before, &[1; BLOCK]).unwrap();
    machine.write(behind, &[2; BLOCK]).unwrap();
    for block in [pattern, [0; BLOCK]] {
        let was = if own_kernel() { sent(&house) } else { 0 };
        machine.same(first, blocks as u32, &block).unwrap();
        if own_kernel() {
            let writes = sent(&house) - was;
            assert!((1..100).contains(&writes), "{blocks} blocks are {writes} writes");
        }
        let around = machine.read(before, 5).unwrap();
        assert_eq!(around, [[1; BLOCK], block, block, block, block].concat(), "{}", house.tgtd.log());
        let around = machine.read(behind - 2, 4).unwrap();
        assert_eq!(around, [block, block, [2; BLOCK], [0; BLOCK]].concat());
        let step = (MOST / BLOCK) as u64;
        // A session of this kind reads as little at once as it writes; a hundredth shows what is inside.
        for at in (first..behind - step).step_by(161) {
            let read = machine.read(at, step as u32).unwrap();
            assert!(read.chunks(BLOCK).all(|b| b == block), "of {first} to {behind}, at {at}");
        }
    }
    if !own_kernel() {
        let left = stored(&house.image(0));
        assert!(left <= 2 << 22, "zeros take no room, block by block they take {blocks} blocks: {left}");
    }
}

#[test]
fn a_block_that_cannot_be_written_many_times_fails_its_command_and_nothing_else() {
    let house = House::new("none");
    assert!(house.apply(house.target(1, house.lun(0))).unwrap());
    let mut machine = house.session(1);
    machine.write(0, &[3; BLOCK]).unwrap();
    // Behind tgtd's back, to which it is as large as it was.
    ceph().tool(&["rbd", "resize", &house.image(0), "--size", "8M", "--allow-shrink", "--no-progress"]);
    let e = machine.same(4 * OBJECT, 300, &[7; BLOCK]).unwrap_err();
    assert!(e.to_string().contains("status 0x2"), "{e}");
    // Its end alone is missing.
    assert!(machine.same(2 * OBJECT - 100, 300, &[7; BLOCK]).is_err());
    machine.same(1, 300, &[4; BLOCK]).unwrap();
    assert_eq!(machine.read(0, 3).unwrap(), [[3; BLOCK], [4; BLOCK], [4; BLOCK]].concat(), "{}", house.tgtd.log());
}
