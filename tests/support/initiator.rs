//! A machine's end of iSCSI in a few lines: logs in, reads, writes, flushes and gives back, one command at a time. For tests that
//! have to know which byte was acknowledged when. It must never try anything again by itself.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::io::{self, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Most bytes of one write: what every target takes along with the command.
pub const MOST: usize = 8192;

/// A session with one target.
pub struct Session {
    stream: TcpStream,
    command: u32,
    seen: u32,
    tag: u32,
}

const SELF: u32 = u32::MAX;

impl Session {
    /// Logs in, within `limit`; each answer has to come in that time, too.
    pub fn open(portal: SocketAddr, iqn: &str, initiator: &str, limit: Duration) -> io::Result<Session> {
        let stream = TcpStream::connect_timeout(&portal, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let mut session = Session { stream, command: 1, seen: 0, tag: 0 };
        let keys = [
            format!("InitiatorName={initiator}"),
            format!("TargetName={iqn}"),
            "SessionType=Normal\0AuthMethod=None\0HeaderDigest=None\0DataDigest=None".to_owned(),
        ];
        let data: Vec<u8> = keys.iter().flat_map(|k| k.bytes().chain([0])).collect();
        let mut head = [0u8; 48];
        // Straight from the negotiation of operation to full feature.
        head[..2].copy_from_slice(&[0x43, 0x87]);
        // A session of its own: two of one name replace one another.
        head[8..14].copy_from_slice(&[0x80, 0x12, 0x34, 0x57, 0, 1]);
        head[24..28].copy_from_slice(&1u32.to_be_bytes());
        session.send(head, &data)?;
        let (answer, _) = session.receive()?;
        match u16::from_be_bytes([answer[36], answer[37]]) {
            0 => {
                // The first command of a session is refused with word of a reset: TEST UNIT READY takes that upon it.
                let _ = session.run([0; 16], &[], 0);
                Ok(session)
            }
            status => Err(Error::other(format!("login refused: {status:#06x}"))),
        }
    }

    /// How long an answer may take from now on.
    pub fn patience(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Reads blocks.
    pub fn read(&mut self, lba: u64, blocks: u32) -> io::Result<Vec<u8>> {
        self.run(cdb(0x88, lba, blocks), &[], blocks as usize * BLOCK)
    }

    /// Writes blocks, at most [`MOST`] bytes. It is acknowledged, not flushed.
    pub fn write(&mut self, lba: u64, data: &[u8]) -> io::Result<()> {
        assert!(data.len() <= MOST, "one write takes {MOST} bytes");
        self.run(cdb(0x8a, lba, (data.len() / BLOCK) as u32), data, 0).map(drop)
    }

    /// Has all that was written reach the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.run(cdb(0x91, 0, 0), &[], 0).map(drop)
    }

    /// Gives blocks back.
    pub fn unmap(&mut self, lba: u64, blocks: u32) -> io::Result<()> {
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
        let mut cdb = [0u8; 16];
        (cdb[0], cdb[8]) = (0x42, 24);
        self.run(cdb, &list, 0).map(drop)
    }

    /// Writes one block many times.
    pub fn same(&mut self, lba: u64, blocks: u32, block: &[u8; BLOCK]) -> io::Result<()> {
        self.run(cdb(0x93, lba, blocks), block, 0).map(drop)
    }

    /// One command; what it read.
    fn run(&mut self, cdb: [u8; 16], out: &[u8], expected: usize) -> io::Result<Vec<u8>> {
        self.tag += 1;
        let mut head = [0u8; 48];
        let way = if out.is_empty() { 0x40 } else { 0x20 };
        (head[0], head[1]) = (0x01, 0x81 | if out.is_empty() && expected == 0 { 0 } else { way });
        head[9] = 1;
        head[16..20].copy_from_slice(&self.tag.to_be_bytes());
        head[20..24].copy_from_slice(&((out.len() + expected) as u32).to_be_bytes());
        head[24..28].copy_from_slice(&self.command.to_be_bytes());
        head[32..48].copy_from_slice(&cdb);
        self.command += 1;
        self.send(head, out)?;
        let mut read = vec![0; expected];
        loop {
            let (answer, data) = self.receive()?;
            match answer[0] & 0x3f {
                0x21 => return status(answer[3], &data).map(|()| read),
                0x25 => {
                    let at = u32::from_be_bytes([answer[40], answer[41], answer[42], answer[43]]) as usize;
                    read[at..at + data.len()].copy_from_slice(&data);
                    // The status may come along with the last of the data.
                    if answer[1] & 1 != 0 {
                        return status(answer[3], &[]).map(|()| read);
                    }
                }
                // Asked whether it is still there.
                0x20 if answer[20..24] != SELF.to_be_bytes() => self.here(&answer)?,
                0x20 => {}
                other => return Err(Error::other(format!("an answer of kind {other:#x}"))),
            }
        }
    }

    fn here(&mut self, asked: &[u8; 48]) -> io::Result<()> {
        let mut head = [0u8; 48];
        (head[0], head[1]) = (0x40, 0x80);
        head[8..16].copy_from_slice(&asked[8..16]);
        head[16..20].copy_from_slice(&SELF.to_be_bytes());
        head[20..24].copy_from_slice(&asked[20..24]);
        head[24..28].copy_from_slice(&self.command.to_be_bytes());
        self.send(head, &[])
    }

    fn send(&mut self, mut head: [u8; 48], data: &[u8]) -> io::Result<()> {
        head[4..8].copy_from_slice(&(data.len() as u32).to_be_bytes());
        head[28..32].copy_from_slice(&self.seen.to_be_bytes());
        let mut all = head.to_vec();
        all.extend(data);
        all.resize(48 + data.len().next_multiple_of(4), 0);
        self.stream.write_all(&all)
    }

    fn receive(&mut self) -> io::Result<([u8; 48], Vec<u8>)> {
        let mut head = [0u8; 48];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data)?;
        data.truncate(length);
        let carries_status = head[0] & 0x3f != 0x25 || head[1] & 1 != 0;
        if carries_status {
            self.seen = u32::from_be_bytes([head[24], head[25], head[26], head[27]]).wrapping_add(1);
        }
        Ok((head, data))
    }
}

/// A command with 16 bytes.
fn cdb(what: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0u8; 16];
    cdb[0] = what;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn status(status: u8, sense: &[u8]) -> io::Result<()> {
    match status {
        0 => Ok(()),
        other => Err(Error::other(format!("status {other:#x}, sense {:02x?}", sense.get(2..).unwrap_or_default()))),
    }
}
