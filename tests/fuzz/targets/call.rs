//! A raw call's parameters: any text as JSON for any method. Reading ends, and what is read is written as JSON that reads as
//! the same request.

#![no_main]

use bmi::ops::{OPS, Request};

fn read(method: &str, text: &str) -> Option<Request> {
    let mut json = serde_json::Deserializer::from_str(text);
    let request = Request::from_call(method, &mut json)?.ok()?;
    json.end().ok()?;
    Some(request)
}

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let sheet = OPS[usize::from(input.0) % OPS.len()].sheet;
    let method = sheet.method();
    if let Some(request) = read(&method, input.1) {
        assert_eq!(request.sheet().method(), method);
        let written = serde_json::to_value(&request).expect("what was read can be written");
        let body = written.as_object().and_then(|o| o.values().next()).expect("a request is its name and its body");
        assert_eq!(read(&method, &body.to_string()), Some(request), "{method} {body}");
    }
});
