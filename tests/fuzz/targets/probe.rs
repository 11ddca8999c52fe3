//! A stranger's disk image: any bytes to the probe that decides what a file is before a converter may see it. It ends, and what
//! it takes for a disk is no larger than it was allowed.

#![no_main]

use bmid::drivers::storage::probe::probe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    const MOST: u64 = 1 << 30;
    if let Ok(found) = probe(bytes, MOST) {
        assert!(found.size <= MOST, "a disk of {} bytes was let through", found.size);
    }
});
