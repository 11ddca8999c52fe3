//! The bytes of the log: a head, then frames, each with the commits that became durable together. Pure: nothing here may read
//! or write a file.
//!
//! ```text
//! head    "bmidlog\n"  version u32  nonce 16  crc u32                          padded to a block
//! frame   "frm1"  length u32  first commit u64  commits u32  crc u32  commits  padded to a block
//! commit  changes u32, each: key length u16, key, value length + 1 u32 (0: deleted), value
//! ```
//!
//! All numbers are little-endian. A frame's checksum begins with the nonce of its file, which nobody outside knows, so that
//! no row's bytes can pass for a frame. A frame is written only when the one before it is durable: what does not hold is
//! the torn end of the log if nothing newer follows it, and damage if something does.

use std::collections::BTreeMap;

use sled::IVec;

/// The version of all this. A log of a newer one is refused.
pub(in crate::store) const VERSION: u8 = 1;
/// Frames begin at multiples of this: no write touches a block in which something durable lies.
pub(in crate::store) const BLOCK: usize = 512;
/// Random bytes of a file's head.
pub(in crate::store) type Nonce = [u8; 16];
/// Keys and their new values; none: deleted.
pub(in crate::store) type Changes = BTreeMap<IVec, Option<IVec>>;

const MAGIC: &[u8; 8] = b"bmidlog\n";
const FRAME: &[u8; 4] = b"frm1";
/// Bytes before a frame's commits.
pub(in crate::store) const FRAME_HEAD: usize = 24;
const HEAD: usize = 32;

/// Why a log's bytes are not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLog {
    /// A newer release wrote it.
    #[error("the log has version {found}, this release knows {known}", known = VERSION)]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Its bytes are not what was written.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

/// One commit that was read.
pub(in crate::store) type Commit = (u64, Changes);

/// The head of a new file.
pub(in crate::store) fn head(nonce: &Nonce) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&u32::from(VERSION).to_le_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out.resize(BLOCK, 0);
    out
}

/// The nonce in a file's head.
pub(in crate::store) fn nonce(bytes: &[u8]) -> Result<Nonce, BadLog> {
    let bad = |why: &str| BadLog::Damaged(why.to_owned());
    let head = bytes.get(..HEAD).ok_or_else(|| bad("it is shorter than its head"))?;
    if head[..8] != *MAGIC {
        return Err(bad("it does not begin as a log does"));
    }
    let found = number(&head[8..12]);
    // Every version has its checksum there, so that a damaged head does not pass for that of a newer release.
    if number(&head[28..32]) != crc32fast::hash(&head[..28]) || found == 0 {
        return Err(bad("the checksum of its head does not hold"));
    }
    if found > u32::from(VERSION) {
        return Err(BadLog::Newer { found });
    }
    let mut nonce = Nonce::default();
    nonce.copy_from_slice(&head[12..28]);
    Ok(nonce)
}

/// How long a commit is among others.
pub(in crate::store) fn length(changes: &Changes) -> usize {
    4 + changes.iter().map(|(k, v)| 6 + k.len() + v.as_ref().map_or(0, |v| v.len())).sum::<usize>()
}

/// A commit's bytes behind room for a frame's head, so that a frame of one commit needs no copy.
pub(in crate::store) fn encode(changes: &Changes) -> Vec<u8> {
    let mut out = Vec::with_capacity(padded(FRAME_HEAD + length(changes)));
    out.resize(FRAME_HEAD, 0);
    out.extend_from_slice(&small(changes.len()).to_le_bytes());
    for (key, value) in changes {
        // Keys are below 2 KiB and values below 5: see tables.rs.
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(&value.as_ref().map_or(0, |v| small(v.len() + 1)).to_le_bytes());
        out.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    out
}

/// Makes commits one frame: the first one's bytes with those of the others behind them.
pub(in crate::store) fn seal(nonce: &Nonce, first: u64, commits: Vec<Vec<u8>>) -> Vec<u8> {
    let count = small(commits.len());
    let mut commits = commits.into_iter();
    let mut out = commits.next().unwrap_or_else(|| vec![0; FRAME_HEAD]);
    for more in commits {
        out.extend_from_slice(more.get(FRAME_HEAD..).unwrap_or_default());
    }
    let length = small(out.len() - FRAME_HEAD);
    out[..4].copy_from_slice(FRAME);
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&first.to_le_bytes());
    out[16..20].copy_from_slice(&count.to_le_bytes());
    let crc = checksum(nonce, &out);
    out[20..24].copy_from_slice(&crc.to_le_bytes());
    out.resize(padded(out.len()), 0);
    out
}

fn checksum(nonce: &Nonce, frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(nonce);
    crc.update(&frame[..20]);
    crc.update(&frame[FRAME_HEAD..]);
    crc.finalize()
}

/// Rounded up to whole blocks.
pub(in crate::store) fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

/// Counts and lengths in a commit are far below this; a value that could be longer was refused when its row was put.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// A frame that holds, at the beginning of `bytes`.
struct Frame<'a> {
    first: u64,
    count: u32,
    body: &'a [u8],
}

fn frame<'a>(nonce: &Nonce, bytes: &'a [u8]) -> Option<Frame<'a>> {
    let head = bytes.get(..FRAME_HEAD).filter(|h| h[..4] == *FRAME)?;
    let length = usize::try_from(number(&head[4..8])).ok()?;
    let whole = bytes.get(..FRAME_HEAD.checked_add(length)?)?;
    if checksum(nonce, whole) != number(&head[20..24]) {
        return None;
    }
    let first = u64::from(number(&head[12..16])) << 32 | u64::from(number(&head[8..12]));
    Some(Frame { first, count: number(&head[16..20]), body: &whole[FRAME_HEAD..] })
}

/// The commits of a whole file after commit `reached`, in order. The torn end of a log is left out.
pub(in crate::store) fn read(bytes: &[u8], reached: u64) -> Result<Vec<Commit>, BadLog> {
    let nonce = nonce(bytes)?;
    let mut out = Vec::new();
    let (mut at, mut last) = (BLOCK, None);
    while let Some(frame) = bytes.get(at..).and_then(|rest| frame(&nonce, rest)) {
        // What lies behind the end is of an earlier round, and older; a hole in the numbers is for the search below.
        if frame.count == 0 || last.is_some_and(|l: u64| frame.first != l + 1) {
            break;
        }
        let bad = |why: &str| BadLog::Damaged(format!("at byte {at}: {why}"));
        let mut body = frame.body;
        for commit in frame.first..frame.first.saturating_add(u64::from(frame.count)) {
            let changes = take_commit(&mut body).ok_or_else(|| bad("a commit in a frame that holds does not"))?;
            if commit > reached {
                out.push((commit, changes));
            }
            last = Some(commit);
        }
        if !body.is_empty() {
            return Err(bad("a frame holds more than its commits"));
        }
        at += padded(FRAME_HEAD + frame.body.len());
    }
    nothing_newer(&nonce, bytes, at, last.map_or(reached, |l| l.max(reached)))?;
    Ok(out)
}

/// Behind the end there may be older frames, of the file's earlier use, and none that is newer.
fn nothing_newer(nonce: &Nonce, bytes: &[u8], end: usize, last: u64) -> Result<(), BadLog> {
    let mut at = end;
    while let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) {
        if let Some(found) = frame(nonce, rest).filter(|f| f.count > 0 && f.first > last) {
            return Err(BadLog::Damaged(format!(
                "at byte {end} nothing follows commit {last}, and at byte {at} there is commit {}",
                found.first
            )));
        }
        at += BLOCK;
    }
    Ok(())
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

fn take_commit(body: &mut &[u8]) -> Option<Changes> {
    let count = number(take(body, 4)?);
    let mut out = Changes::new();
    for _ in 0..count {
        let length = usize::try_from(number(take(body, 2)?)).ok()?;
        let key = IVec::from(take(body, length)?);
        let value = match usize::try_from(number(take(body, 4)?)).ok()? {
            0 => None,
            length => Some(IVec::from(take(body, length - 1)?)),
        };
        // A map's keys are in order and there once: anything else was not written by us.
        if out.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        out.insert(key, value);
    }
    Some(out)
}

/// The fuzzer's ways in. Reads `tail` as what lies in a file behind its head; gives how many commits it holds.
pub fn read_log(tail: &[u8]) -> Result<usize, BadLog> {
    read(&[&head(&Nonce::default()), tail].concat(), 0).map(|commits| commits.len())
}

/// Reads bytes as the commits of a frame that holds, and writes what was read again.
pub fn recode_log(count: u32, commits: &[u8]) -> Result<Vec<u8>, BadLog> {
    let nonce = Nonce::default();
    let mut frame = seal(&nonce, 1, vec![[&[0; FRAME_HEAD], commits].concat()]);
    frame.truncate(FRAME_HEAD + commits.len());
    frame[16..20].copy_from_slice(&count.max(1).to_le_bytes());
    let crc = checksum(&nonce, &frame);
    frame[20..24].copy_from_slice(&crc.to_le_bytes());
    let read = read(&[head(&nonce), frame].concat(), 0)?;
    Ok(read.iter().flat_map(|(_, changes)| encode(changes).split_off(FRAME_HEAD)).collect())
}
