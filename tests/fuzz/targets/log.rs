//! The store's log as it lies on the disk, damaged: any bytes behind its head, and any bytes in a frame that holds. Reading
//! ends with commits or a reason, and commits that were read are written as they were.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = bmid::store::read_log(bytes);
    let Some((count, commits)) = bytes.split_first() else { return };
    if let Ok(again) = bmid::store::recode_log(u32::from(*count), commits) {
        assert!(again == commits, "two byte strings mean the same commits");
    }
});
