//! What a peer sends: any bytes as a frame of either side. Decoding ends, allocates no more than the bytes pay for, and what
//! does decode encodes to a frame that means the same.

#![no_main]

use bmi::protocol::{ClientFrame, Hello, ServerFrame, decode, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Hello>(bytes);
    if let Ok(frame) = decode::<ClientFrame>(bytes) {
        let again = encode(&frame).expect("what was read can be written");
        assert_eq!(again, bytes, "two byte strings mean one frame");
    }
    if let Ok(frame) = decode::<ServerFrame>(bytes) {
        encode(&frame).expect("what was read can be written");
    }
});
