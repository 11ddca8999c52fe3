//! What tgtd answers, or something that took its place: any bytes as a reply, any text as its listings.

#![no_main]

use bmid::drivers::target::tgt::{show, wire};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = wire::decode_header(bytes);
    let _ = wire::decode(bytes);
    let text = String::from_utf8_lossy(bytes);
    let names = show::targets(&text);
    let _ = show::connections(&text);
    let _ = show::portals(&text);
    let _ = show::listing(&text, &names);
});
