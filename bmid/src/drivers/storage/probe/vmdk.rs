//! VMDK in one file: the monolithic sparse and the stream-optimised kind.
//!
//! A VMDK may be a mere text that names other files; such a one is refused before any tool could follow the names.

use super::{Bad, Source, fits, le32, le64, part, within};

const SECTOR: u64 = 512;
/// Stands where a table's place is known only at the end of the file.
const AT_END: u64 = u64::MAX;
/// Blocks are compressed.
const COMPRESSED: u32 = 1 << 16;
/// Each compressed block has its number and its length before it.
const MARKERS: u32 = 1 << 17;
const FIX: &str = "make it one whole file first: `qemu-img convert -O qcow2 IT WHOLE`, and import that";

/// The size of the disk in a VMDK that needs no other file and is whole.
pub(super) fn check(src: &dyn Source, max: u64) -> Result<u64, Bad> {
    let mut h = part(src, "header", 0, 512.min(usize::try_from(src.size()).unwrap_or(512)))?;
    if !h.starts_with(b"KDMV") {
        return Err(Bad::unfit("it is a description of a disk whose bytes are in other files", FIX));
    }
    if h.len() < 512 {
        return Err(Bad::corrupt("it ends inside its header"));
    }
    if le64(&h, 56) == AT_END {
        // The footer, a second header, stands before the end-of-stream marker.
        let at = src.size().saturating_sub(2 * SECTOR);
        h = part(src, "footer", at, 512)?;
        if !h.starts_with(b"KDMV") || le64(&h, 56) == AT_END {
            return Err(Bad::corrupt(
                "it is truncated: a stream-optimised VMDK ends with a footer, and this one has none",
            ));
        }
    }
    let sectors = le64(&h, 12);
    let Some(size) = sectors.checked_mul(SECTOR).filter(|s| *s > 0) else {
        return Err(Bad::unfit("its header names no disk of its own", FIX));
    };
    fits(size, max)?;
    description(src, &h)?;
    tables(src, &h, sectors)?;
    Ok(size)
}

/// The text inside: it must not name a parent or extents elsewhere.
fn description(src: &dyn Source, h: &[u8]) -> Result<(), Bad> {
    let (at, sectors) = (le64(h, 28), le64(h, 36));
    if at == 0 {
        return Ok(());
    }
    if sectors > 2_048 {
        return Err(Bad::corrupt(format!("its description has {sectors} sectors")));
    }
    let at = at.saturating_mul(SECTOR);
    let text = part(src, "description", at, usize::try_from(sectors * SECTOR).unwrap_or(usize::MAX))?;
    let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
    if text.contains("parentfilenamehint") {
        return Err(Bad::unfit("it is an overlay: its other bytes are in a parent file", FIX));
    }
    if !text.contains("monolithicsparse") && !text.contains("streamoptimized") {
        return Err(Bad::unfit("its bytes are in more than this one file", FIX));
    }
    Ok(())
}

/// Every block must lie in the file: converters read what is behind its end as zeros.
fn tables(src: &dyn Source, h: &[u8], sectors: u64) -> Result<(), Bad> {
    let (grain, per_table) = (le64(h, 20), u64::from(le32(h, 44)));
    let flags = le32(h, 8);
    if !(1..=128 * 1_024).contains(&grain) || !(1..=512).contains(&per_table) {
        return Err(Bad::corrupt(format!("its header says blocks of {grain} sectors, {per_table} a table")));
    }
    let count = sectors.div_ceil(grain).div_ceil(per_table);
    if count > (32 << 20) / 4 {
        return Err(Bad::corrupt(format!("its directory would have {count} entries")));
    }
    let directory =
        part(src, "directory", le64(h, 56).saturating_mul(SECTOR), usize::try_from(count * 4).unwrap_or(usize::MAX))?;
    let entries = directory.chunks_exact(4).map(|e| u64::from(le32(e, 0)));
    let mut places: Vec<(u64, u64)> = entries.zip(0..).filter(|(place, _)| *place > 1).collect();
    places.sort_unstable();
    if places.windows(2).any(|w| w[0].0 == w[1].0) {
        return Err(Bad::corrupt("two entries of its directory are the same"));
    }
    for (place, n) in places {
        let table = part(src, "table", place * SECTOR, usize::try_from(per_table * 4).unwrap_or(usize::MAX))?;
        for (entry, block) in table.chunks_exact(4).map(|e| u64::from(le32(e, 0))).zip(n * per_table..) {
            let at = block * grain;
            if entry > 1 && at < sectors {
                let len = match (flags & COMPRESSED != 0, flags & MARKERS != 0) {
                    (true, true) => 12 + u64::from(le32(&part(src, "data", entry * SECTOR, 12)?, 8)),
                    (true, false) => 1,
                    (false, _) => grain.min(sectors - at) * SECTOR,
                };
                within(src, "data", entry * SECTOR, len)?;
            }
        }
    }
    Ok(())
}
