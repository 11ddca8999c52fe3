//! What machines say to the server of boot files: any bytes as a connection. It ends, answers with what HTTP knows, and never with a
//! byte of a file that is not one of its own.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use bmid::http::Fed;

const SECRET: &[u8] = b"nobody-may-read-this";

fn fed() -> &'static Fed {
    static FED: OnceLock<Fed> = OnceLock::new();
    FED.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("bmid-fuzz-http.{}", std::process::id()));
        let write = |name: &str, text: &[u8]| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("tftp/boot.ipxe", b"#!ipxe\n");
        write("tftp/mac/52-54-00-00-00-01.ipxe", b"#!ipxe\n");
        for name in ["secret", "tftp/secret", "tftp/mac/secret", "tftp/mac/secret.ipxe", "mac/52-54-00-00-00-02.ipxe"] {
            write(name, SECRET);
        }
        Fed::new(&folder.join("tftp")).expect("a server")
    })
}

libfuzzer_sys::fuzz_target!(|said: &[u8]| {
    let answer = fed().answer(said);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!answer.windows(SECRET.len()).any(|w| w == SECRET));
});
