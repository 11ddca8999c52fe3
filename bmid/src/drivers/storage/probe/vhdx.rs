//! VHDX, Hyper-V's current format: region table, metadata, block table.

use super::{Bad, Source, fits, le32, le64, part, within};

/// GUIDs as they stand in a file: the first three groups are little-endian.
const METADATA: [u8; 16] =
    [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
const BLOCKS: [u8; 16] =
    [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08];
const PARAMETERS: [u8; 16] =
    [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b];
const DISK_SIZE: [u8; 16] =
    [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];
const SECTOR: [u8; 16] =
    [0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f];

const REGION_TABLE: u64 = 192 << 10;
const HAS_PARENT: u32 = 2;

/// The size of the disk in a VHDX that needs no parent and is whole.
pub(super) fn check(src: &dyn Source, max: u64) -> Result<u64, Bad> {
    let regions = part(src, "region table", REGION_TABLE, 64 << 10)?;
    if !regions.starts_with(b"regi") {
        return Err(Bad::corrupt("it has no region table"));
    }
    let region = |guid: [u8; 16], what: &str| -> Result<(u64, u64), Bad> {
        let count = usize::try_from(le32(&regions, 8).min(2_047)).unwrap_or(0);
        let found = regions[16..].chunks_exact(32).take(count).find(|e| e[..16] == guid);
        let entry = found.ok_or_else(|| Bad::corrupt(format!("it has no {what}")))?;
        let (offset, len) = (le64(entry, 16), u64::from(le32(entry, 24)));
        within(src, what, offset, len)?;
        Ok((offset, len))
    };
    let Disk { size, block, sector } = metadata(src, region(METADATA, "metadata")?)?;
    fits(size, max)?;
    let (offset, len) = region(BLOCKS, "block table")?;
    let needed = size.div_ceil(block);
    if len / 8 < needed || needed > (1 << 24) {
        return Err(Bad::corrupt(format!("its block table has {} entries, and its disk needs {needed}", len / 8)));
    }
    let table = part(src, "block table", offset, usize::try_from(len.min(needed * 16 + 8)).unwrap_or(usize::MAX))?;
    // Behind so many blocks stands one entry for a bitmap of sectors.
    let ratio = (1 << 23) * sector / block;
    for (entry, n) in table.chunks_exact(8).map(|e| le64(e, 0)).zip(0u64..) {
        let at = (n - n / (ratio + 1)) * block;
        let bitmap = n % (ratio + 1) == ratio;
        // State 6 is a block that is there, 7 one that is partly so; the place counts in MiB.
        if matches!(entry & 7, 6 | 7) && (bitmap || at < size) {
            let len = if bitmap { 1 << 20 } else { block.min(size - at) };
            within(src, "data", (entry >> 20).saturating_mul(1 << 20), len)?;
        }
    }
    Ok(size)
}

struct Disk {
    size: u64,
    block: u64,
    sector: u64,
}

fn metadata(src: &dyn Source, (start, len): (u64, u64)) -> Result<Disk, Bad> {
    let table = part(src, "metadata", start, 64 << 10)?;
    if !table.starts_with(b"metadata") {
        return Err(Bad::corrupt("its metadata is not metadata"));
    }
    let item = |guid: [u8; 16], what: &str| -> Result<Vec<u8>, Bad> {
        let count = usize::from(u16::from_le_bytes([table[10], table[11]])).min(2_047);
        let found = table[32..].chunks_exact(32).take(count).find(|e| e[..16] == guid);
        let entry = found.ok_or_else(|| Bad::corrupt(format!("its metadata has no {what}")))?;
        let offset = u64::from(le32(entry, 16));
        if offset + 4 > len {
            return Err(Bad::corrupt(format!("its {what} lies outside its metadata")));
        }
        part(src, what, start.saturating_add(offset), 8)
    };
    let parameters = item(PARAMETERS, "file parameters")?;
    if le32(&parameters, 4) & HAS_PARENT != 0 {
        let fix = "merge it with its parent first, or convert it with `qemu-img convert`";
        return Err(Bad::unfit("it is a differencing disk: its other bytes are in a parent file", fix));
    }
    let block = u64::from(le32(&parameters, 0));
    if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
        return Err(Bad::corrupt(format!("its header says blocks of {block} bytes")));
    }
    let sector = u64::from(le32(&item(SECTOR, "sector size")?, 0));
    if !matches!(sector, 512 | 4_096) {
        return Err(Bad::corrupt(format!("its header says sectors of {sector} bytes")));
    }
    Ok(Disk { size: le64(&item(DISK_SIZE, "disk size")?, 0), block, sector })
}
