//! qcow2, versions 2 and 3: header, and every table that says where bytes are.
//!
//! A converter reads clusters behind the end of a file as zeros, without a word: so each cluster's place is checked here.

use super::{Bad, Source, be32, be64, fits, part, within};

/// Bits 9 to 55: where a table or a cluster lies.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED: u64 = 1 << 4;

struct Header {
    cluster_bits: u32,
    size: u64,
    l1_entries: u64,
    l1_offset: u64,
    extended: bool,
}

/// The size of the disk in a qcow2 that needs nothing else and is whole.
pub(super) fn check(src: &dyn Source, max: u64) -> Result<u64, Bad> {
    let header = header(src)?;
    fits(header.size, max)?;
    tables(src, &header)?;
    Ok(header.size)
}

fn header(src: &dyn Source) -> Result<Header, Bad> {
    let mut h = part(src, "header", 0, 72)?;
    let version = be32(&h, 4);
    let incompatible = match version {
        2 => 0,
        3 => {
            h = part(src, "header", 0, 104)?;
            be64(&h, 72)
        }
        v => {
            let why = format!("it is a qcow of version {v}; 2 and 3 are known");
            return Err(Bad::unfit(why, "convert it: `qemu-img convert -O qcow2 OLD NEW`"));
        }
    };
    alone(&h, incompatible)?;
    let cluster_bits = be32(&h, 20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(Bad::corrupt(format!(
            "its header says clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 are allowed"
        )));
    }
    let cluster = 1u64 << cluster_bits;
    if version == 3 && !(104..=cluster).contains(&u64::from(be32(&h, 100))) {
        return Err(Bad::corrupt(format!("its header says it is {} bytes long", be32(&h, 100))));
    }
    within(src, "refcount table", be64(&h, 48), u64::from(be32(&h, 56)) * cluster)?;
    Ok(Header {
        cluster_bits,
        size: be64(&h, 24),
        l1_entries: u64::from(be32(&h, 36)),
        l1_offset: be64(&h, 40),
        extended: incompatible & EXTENDED != 0,
    })
}

/// Refuses a disk whose bytes are partly elsewhere or sealed.
fn alone(h: &[u8], incompatible: u64) -> Result<(), Bad> {
    if be64(h, 8) != 0 {
        let fix = "make it independent first: `qemu-img convert -O qcow2 OVERLAY WHOLE`, and import that";
        return Err(Bad::unfit("it is an overlay: its other bytes are in a backing file", fix));
    }
    if be32(h, 32) != 0 {
        let fix = "decrypt it first with `qemu-img convert`, and import the result";
        return Err(Bad::unfit("it is encrypted", fix));
    }
    if incompatible & DATA_FILE != 0 {
        let fix = "make it whole first: `qemu-img convert -O qcow2 IT WHOLE`, and import that";
        return Err(Bad::unfit("its bytes are in an external data file", fix));
    }
    if incompatible & CORRUPT != 0 {
        return Err(Bad::corrupt("its header says that it is corrupt"));
    }
    let unknown = incompatible & !(DIRTY | COMPRESSION | EXTENDED);
    if unknown != 0 {
        let why = format!("it needs features that are not known here (bits {unknown:#x})");
        return Err(Bad::unfit(why, "convert it with `qemu-img convert -O qcow2` and its defaults"));
    }
    Ok(())
}

/// Walks all tables. Two entries of the first level that share a table are refused, so no more is read than the file has.
fn tables(src: &dyn Source, h: &Header) -> Result<(), Bad> {
    let cluster = 1u64 << h.cluster_bits;
    let per_table = cluster / if h.extended { 16 } else { 8 };
    let needed = h.size.div_ceil(cluster).div_ceil(per_table);
    if h.l1_entries < needed {
        let why = format!("its table has {} entries, and its disk of {} bytes needs {needed}", h.l1_entries, h.size);
        return Err(Bad::corrupt(why));
    }
    // qemu's own bound. Beyond it nothing is a disk.
    if needed > (32 << 20) / 8 || !h.l1_offset.is_multiple_of(cluster) {
        return Err(Bad::corrupt(format!("its first table of {needed} entries at {} makes no sense", h.l1_offset)));
    }
    within(src, "first table", h.l1_offset, h.l1_entries * 8)?;
    let l1 = part(src, "first table", h.l1_offset, usize::try_from(needed * 8).unwrap_or(usize::MAX))?;
    let mut seen = Vec::new();
    for (n, entry) in l1.chunks_exact(8).enumerate() {
        let offset = be64(entry, 0) & OFFSET;
        if offset != 0 {
            if !offset.is_multiple_of(cluster) {
                return Err(Bad::corrupt(format!("its table {n} is not aligned")));
            }
            seen.push((offset, n as u64));
        }
    }
    seen.sort_unstable();
    if let Some(twice) = seen.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(Bad::corrupt(format!("its tables {} and {} are the same", twice[0].1, twice[1].1)));
    }
    for (offset, n) in seen {
        let table = part(src, "second table", offset, usize::try_from(cluster).unwrap_or(usize::MAX))?;
        table_entries(src, h, n * per_table, &table)?;
    }
    Ok(())
}

/// Checks where the clusters of one table lie; `first` is the number of its first cluster.
fn table_entries(src: &dyn Source, h: &Header, first: u64, table: &[u8]) -> Result<(), Bad> {
    let cluster = 1u64 << h.cluster_bits;
    for (n, entry) in table.chunks_exact(if h.extended { 16 } else { 8 }).enumerate() {
        let entry = be64(entry, 0);
        let at = (first + n as u64).saturating_mul(cluster);
        if at >= h.size || entry & !(1 << 63) == 0 {
            continue;
        }
        if entry & COMPRESSED != 0 {
            let bits = 62 - (h.cluster_bits - 8);
            let offset = entry & ((1 << bits) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> bits) + 1;
            let len = sectors * 512 - offset % 512;
            // Lengths are whole sectors, and the last may stand half outside the file.
            within(src, "compressed data", offset, len.saturating_sub(511))?;
        } else if entry & OFFSET != 0 && (h.extended || entry & ZERO == 0) {
            within(src, "data", entry & OFFSET, cluster.min(h.size - at))?;
        }
    }
    Ok(())
}
