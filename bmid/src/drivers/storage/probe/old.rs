//! VirtualBox's VDI and Hyper-V's old VHD: one header each.

use super::{Bad, Source, be32, be64, le32, le64, part, within};

pub(super) const VDI_SIGNATURE: u32 = 0xbeda_107f;

const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;

/// The size of the disk in a VDI that needs no parent and is whole.
pub(super) fn check_vdi(src: &dyn Source) -> Result<u64, Bad> {
    let h = part(src, "header", 0, 512)?;
    if le32(&h, 0x44) != 0x0001_0001 {
        let why = format!("it is a VDI of version {:#x}; 0x10001 is known", le32(&h, 0x44));
        return Err(Bad::unfit(why, "convert it with `VBoxManage clonemedium` or `qemu-img convert`"));
    }
    let kind = le32(&h, 0x4c);
    let linked = h[0x1a8..0x1c8].iter().any(|b| *b != 0);
    if linked || !matches!(kind, 1 | 2) {
        let fix = "make it independent first: `VBoxManage clonemedium`, and import that";
        return Err(Bad::unfit("it is a differencing disk: its other bytes are in a parent file", fix));
    }
    let (size, block) = (le64(&h, 0x170), u64::from(le32(&h, 0x178)));
    let (blocks, allocated) = (u64::from(le32(&h, 0x180)), u64::from(le32(&h, 0x184)));
    if block == 0 || size.div_ceil(block) != blocks || allocated > blocks {
        let why = format!("its header says {size} bytes in {blocks} blocks of {block}, {allocated} of them there");
        return Err(Bad::corrupt(why));
    }
    within(src, "block table", u64::from(le32(&h, 0x154)), blocks * 4)?;
    within(src, "data", u64::from(le32(&h, 0x158)), allocated * block)?;
    Ok(size)
}

/// The size of the disk in a dynamic VHD: a footer at the end with a copy of it at the start.
pub(super) fn check_vhd(src: &dyn Source) -> Result<u64, Bad> {
    let head = part(src, "header", 0, 512)?;
    match be32(&head, 60) {
        FIXED | DYNAMIC => {}
        4 => {
            let fix = "merge it with its parent first, or convert it with `qemu-img convert`";
            return Err(Bad::unfit("it is a differencing disk: its other bytes are in a parent file", fix));
        }
        other => return Err(Bad::corrupt(format!("its header says kind {other}"))),
    }
    let end = part(src, "footer", src.size().saturating_sub(512), 512)?;
    if !end.starts_with(b"conectix") {
        return Err(Bad::corrupt("it is truncated: a VHD ends with a footer, and this one has none"));
    }
    Ok(be64(&head, 48))
}

/// A fixed VHD is a raw disk with a footer behind it; its size without that, or none if it is none.
pub(super) fn check_fixed_vhd(src: &dyn Source) -> Result<Option<u64>, Bad> {
    let Some(disk) = src.size().checked_sub(512) else { return Ok(None) };
    let end = part(src, "footer", disk, 512)?;
    // A raw disk may hold a VHD's file at its end: only a footer that fits exactly is one.
    let ours = end.starts_with(b"conectix") && be32(&end, 60) == FIXED && be64(&end, 48) == disk;
    Ok(ours.then_some(disk))
}
