//! Golden bytes of the frames that are frozen, and what a decoder must refuse.

use super::*;
use proptest::prelude::*;

#[test]
fn hello_and_call_have_their_frozen_bytes() {
    let hello = ClientFrame::Hello(Hello { magic: MAGIC, protocol: 1, release: "r".into() });
    assert_eq!(encode(&hello).expect("encodes"), b"\0\0\0\0bmi\n\x01\0\0\0\x01\0\0\0\0\0\0\0r");
    let call = ClientFrame::Call(Call { id: 2, method: "m".into(), params: "{}".into(), op_id: None });
    assert_eq!(
        encode(&call).expect("encodes"),
        b"\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0m\x02\0\0\0\0\0\0\0{}\0"
    );
    let json = ServerFrame::Json { id: 2, text: "1".into() };
    assert_eq!(encode(&json).expect("encodes"), b"\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x001");
    let end = ServerFrame::CallEnd { id: 2, error: None };
    assert_eq!(encode(&end).expect("encodes"), b"\x02\0\0\0\x02\0\0\0\0\0\0\0\0");
}

#[test]
fn bytes_left_over_are_refused() {
    let mut bytes = encode(&ClientFrame::Cancel(1)).expect("encodes");
    bytes.push(0);
    assert_eq!(decode::<ClientFrame>(&bytes).map_err(|f| f.kind), Err(Kind::Protocol));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = decode::<ClientFrame>(&bytes);
        let _ = decode::<ServerFrame>(&bytes);
    }
}
