//! The bytes of tgtd's management socket: requests out, replies in. Pure.
//!
//! Must never let a value through that would end its field (`k=v,k=v` knows no quoting), send one of the requests that are
//! known to crash tgtd (a mode and operation that need a payload, without one), or trust a length that a reply names.

use std::fmt;

/// Bytes of a request before its payload.
pub const HEADER: usize = 120;
/// Bytes of a payload without its NUL; with one more tgtd drops the connection without a word.
pub const MAX_PAYLOAD: usize = 8_191;
/// Bytes of a reply's header.
pub const REPLY_HEADER: usize = 8;
/// The largest reply that is read: some 25 times what 5,000 targets with a session each need.
pub const MAX_REPLY: usize = 64 << 20;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// Targets.
    Target = 1,
    /// LUNs.
    Device = 2,
    /// Portals.
    Portal = 3,
    /// Drivers; showing them names all targets, cheaply.
    Lld = 4,
    /// Connections.
    Connection = 6,
    /// CHAP accounts.
    Account = 7,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// Make.
    New = 0,
    /// Take away.
    Delete = 1,
    /// Show.
    Show = 2,
    /// Bind an initiator's name or an account to a target.
    Bind = 3,
    /// Take the binding back.
    Unbind = 4,
    /// Change.
    Update = 5,
}

/// The payload's text, checked pair by pair. Has no `Debug`: a secret may be in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload {
    text: String,
}

impl Payload {
    /// A payload of one pair.
    pub fn of(key: &'static str, value: &str) -> Result<Payload, BadValue> {
        Payload::default().and(key, value)
    }

    /// Adds a pair. A value may not be empty or hold a comma, a control character or a NUL.
    pub fn and(mut self, key: &'static str, value: &str) -> Result<Payload, BadValue> {
        let why = if value.is_empty() {
            Why::Empty
        } else if value.contains(',') {
            Why::Comma
        } else if value.chars().any(char::is_control) {
            Why::Control
        } else if self.text.len() + key.len() + value.len() + 2 > MAX_PAYLOAD {
            Why::Long
        } else {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            self.text.push_str(key);
            self.text.push('=');
            self.text.push_str(value);
            return Ok(self);
        };
        Err(BadValue { key, why })
    }
}

/// Why a value cannot be sent. Names the key alone: the value may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue {
    key: &'static str,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Empty,
    Comma,
    Control,
    Long,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Empty => "is empty",
            Why::Comma => "holds a comma, which ends a value in tgtd's requests",
            Why::Control => "holds a control character",
            Why::Long => "makes the request longer than the 8191 bytes that tgtd takes",
        };
        write!(f, "the value of `{}` {why}", self.key)
    }
}

impl std::error::Error for BadValue {}

/// One request. Fields that its mode does not use stay zero.
#[derive(Clone)]
pub struct Request {
    mode: Mode,
    op: Op,
    tid: i32,
    sid: u64,
    lun: u64,
    cid: u32,
    force: bool,
    payload: Option<Payload>,
}

impl Request {
    /// A request without payload.
    #[must_use]
    pub fn new(mode: Mode, op: Op) -> Request {
        Request { mode, op, tid: 0, sid: 0, lun: 0, cid: 0, force: false, payload: None }
    }

    /// About all targets.
    #[must_use]
    pub fn all(mut self) -> Request {
        self.tid = -1;
        self
    }

    /// About one target. Numbers above `i32::MAX` do not exist for tgtd; they become one that nothing has.
    #[must_use]
    pub fn tid(mut self, tid: u32) -> Request {
        self.tid = i32::try_from(tid).unwrap_or(i32::MAX);
        self
    }

    /// About one LUN.
    #[must_use]
    pub fn lun(mut self, lun: u8) -> Request {
        self.lun = u64::from(lun);
        self
    }

    /// About one connection of a session.
    #[must_use]
    pub fn connection(mut self, sid: u64, cid: u32) -> Request {
        self.sid = sid;
        self.cid = cid;
        self
    }

    /// Also if it is in use.
    #[must_use]
    pub fn force(mut self, force: bool) -> Request {
        self.force = force;
        self
    }

    /// With a payload.
    #[must_use]
    pub fn with(mut self, payload: Payload) -> Request {
        self.payload = Some(payload);
        self
    }

    /// Whether tgtd crashes on this request without a payload.
    #[must_use]
    fn needs_payload(&self) -> bool {
        matches!(
            (self.mode, self.op),
            (Mode::Target | Mode::Account | Mode::Portal | Mode::Device, Op::New)
                | (_, Op::Bind | Op::Unbind | Op::Update)
                | (Mode::Account | Mode::Portal, Op::Delete)
        )
    }

    /// The bytes to send.
    pub fn encode(&self) -> Result<Vec<u8>, BadValue> {
        let text = self.payload.as_ref().map_or("", |p| p.text.as_str());
        if text.is_empty() && self.needs_payload() {
            return Err(BadValue { key: "payload", why: Why::Empty });
        }
        // `Payload::and` keeps the text within MAX_PAYLOAD.
        let len = HEADER + if text.is_empty() { 0 } else { text.len() + 1 };
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&(self.mode as u32).to_le_bytes());
        out.extend_from_slice(&(self.op as u32).to_le_bytes());
        let mut lld = [0; 64];
        lld[..5].copy_from_slice(b"iscsi");
        out.extend_from_slice(&lld);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&self.tid.to_le_bytes());
        out.extend_from_slice(&self.sid.to_le_bytes());
        out.extend_from_slice(&self.lun.to_le_bytes());
        out.extend_from_slice(&self.cid.to_le_bytes());
        // host number, device type (disk), direction of the account (incoming), padding
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&u32::from(self.force).to_le_bytes());
        if !text.is_empty() {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        Ok(out)
    }
}

/// tgtd's word on why it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// No such target.
    pub const NO_TARGET: Code = Code(4);
    /// No such LUN.
    pub const NO_LUN: Code = Code(5);
    /// No such session.
    pub const NO_SESSION: Code = Code(6);
    /// No such connection.
    pub const NO_CONNECTION: Code = Code(7);
    /// The number or the name is taken.
    pub const TARGET_EXISTS: Code = Code(9);
    /// The LUN is taken.
    pub const LUN_EXISTS: Code = Code(10);
    /// That initiator is let in already.
    pub const ACL_EXISTS: Code = Code(12);
    /// That initiator was not let in.
    pub const ACL_MISSING: Code = Code(13);
    /// That account exists, or is bound already.
    pub const USER_EXISTS: Code = Code(14);
    /// No such account, or it is not bound.
    pub const NO_USER: Code = Code(15);
    /// What tgtd says to everything it cannot do: a backing it cannot open, a portal it cannot bind.
    pub const INVALID: Code = Code(17);
    /// A session is on the target.
    pub const TARGET_ACTIVE: Code = Code(19);
    /// Commands are on their way to the LUN.
    pub const LUN_ACTIVE: Code = Code(20);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            1 => "unknown error",
            2 => "out of memory",
            3 => "no such driver",
            4 => "no such target",
            5 => "no such LUN",
            6 => "no such session",
            7 => "no such connection",
            8 => "no such binding",
            9 => "a target of that number or name exists",
            10 => "that LUN exists",
            11 => "that binding exists",
            12 => "that initiator is let in already",
            13 => "that initiator was not let in",
            14 => "that account exists or is bound already",
            15 => "no such account, or it is not bound",
            16 => "too many accounts",
            17 => "invalid request",
            18 => "an outgoing account exists",
            19 => "the target has a session",
            20 => "the LUN is in use",
            21 => "the driver is in use",
            22 => "not supported",
            23 => "unknown parameter",
            24 => "an initiator prevents the removal",
            _ => "unknown error",
        };
        write!(f, "tgtd says: {text} (error {})", self.0)
    }
}

/// Why bytes are not a reply of tgtd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// Too few bytes.
    #[error("it ended after {0} bytes")]
    Short(usize),
    /// The length it names cannot be.
    #[error("it claims a length of {0} bytes")]
    Length(u32),
}

/// A reply's first eight bytes: the error (0 is none) and how many bytes of text follow.
pub fn decode_header(bytes: &[u8]) -> Result<(Code, usize), BadReply> {
    let (Some(code), Some(len)) = (word(bytes, 0), word(bytes, 4)) else {
        return Err(BadReply::Short(bytes.len()));
    };
    let whole = len as usize;
    if !(REPLY_HEADER..=MAX_REPLY).contains(&whole) {
        return Err(BadReply::Length(len));
    }
    Ok((Code(code), whole - REPLY_HEADER))
}

/// A whole reply: its error and its text. Bytes that are not UTF-8 become replacement characters.
pub fn decode(bytes: &[u8]) -> Result<(Code, String), BadReply> {
    let (code, len) = decode_header(bytes)?;
    let text = bytes.get(REPLY_HEADER..REPLY_HEADER + len).ok_or(BadReply::Short(bytes.len()))?;
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    Ok((code, String::from_utf8_lossy(&text[..end]).into_owned()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
