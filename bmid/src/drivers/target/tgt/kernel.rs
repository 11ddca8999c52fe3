//! LUNs whose disks are images in a pool, mapped by the kernel's client: to tgtd they are block devices.
//!
//! The map is made before tgtd is told of it, outside tgtd's loop, and outlives a tgtd that dies: the kernel owns the disk's lock
//! all the time. Must never hand tgtd a device without having seen what is behind it, and never unmap what somebody has open.

use std::path::Path;

use bmi::model::{Kind, RbdPlace};
use bmi::step::Lun;

use super::wire::Code;
use super::{At, pool};
use crate::drivers::DriverError;
use crate::drivers::krbd::{self, Krbd};

/// A backing as steps name it: the disk behind a device that the kernel has mapped, else the path itself.
pub(super) fn named(kernel: &Krbd, path: String) -> String {
    kernel.name(&path).unwrap_or(path)
}

/// Whether the disk is there and Ceph answers.
pub(super) fn exists(at: &At<'_>, lun: &Lun) -> Result<(), DriverError> {
    let (place, image) = parts(at, lun)?;
    at.pools()?.reach(place, image).map(drop)
}

/// Maps it and has tgtd open the device.
pub(super) fn open(at: &At<'_>, tid: u32, lun: &Lun) -> Result<(), DriverError> {
    let device = device(at, lun)?;
    // Past the page cache tgtd's own buffers for verifying and combining blocks do not fit without the guard's help.
    let opened = if pool::has_guard(at) {
        at.client.lun_device(tid, lun.number, &device)
    } else {
        at.client.lun_new(tid, lun.number, &device)
    };
    match opened {
        Ok(()) => {}
        Err(e) if e.code() == Some(Code::INVALID) => {
            let why = format!("tgtd cannot open {device}, which {} is mapped as; its log says why", lun.path);
            return Err(at.error(Kind::Outside, why).fix(
                "its unit must allow block-rbd, which counts from its start on: restart it while its machines are off",
            ));
        }
        Err(e) => return Err(at.failed(e)),
    }
    // What tgtd holds open cannot be unmapped any more: now it is certain what is behind it.
    if at.kernel.name(&device).as_deref() != Some(&lun.path) {
        at.client.lun_delete(tid, lun.number).map_err(|e| at.failed(e))?;
        let why = format!("{device} became another disk while tgtd opened it");
        return Err(at.error(Kind::Conflict, why).fix("who else maps and unmaps RBD images on this host?"));
    }
    Ok(())
}

fn device(at: &At<'_>, lun: &Lun) -> Result<String, DriverError> {
    let (place, image) = parts(at, lun)?;
    let pools = at.pools()?;
    let reach = pools.reach(place, image)?;
    let device = match at.kernel.mapped(&at.tried, &reach)? {
        Some(device) => device,
        None => {
            pools.ready(place, image, &|| at.kernel.clients())?;
            at.kernel.map(&at.tried, &reach)?
        }
    };
    Ok(device.display().to_string())
}

/// Unmaps it, unless another network's tgtd serves it still. True: it was mapped.
pub(super) fn release(at: &At<'_>, lun: &Lun) -> Result<bool, DriverError> {
    if !lun.pool.as_ref().is_some_and(RbdPlace::by_kernel) {
        return Ok(false);
    }
    let (place, image) = parts(at, lun)?;
    let disk = at.pools()?.disk(place, image)?;
    at.kernel.unmap(&at.tried, &disk, |device| elsewhere(at, device))
}

/// Unmaps what a target has turned away from. What cannot be unmapped now is when the disk goes: no reason to turn back.
pub(super) fn leave(at: &At<'_>, old: &Lun) -> bool {
    release(at, old).unwrap_or_else(|e| {
        tracing::warn!(disk = old.path, error = %e, "a disk that is not served any more stays mapped");
        false
    })
}

fn elsewhere(at: &At<'_>, device: &Path) -> bool {
    let has = |t: &super::show::Listed| t.luns.iter().any(|l| Path::new(&l.path) == device);
    (at.others)().iter().any(|tgtd| tgtd.listing().is_ok_and(|all| all.iter().any(has)))
}

fn parts<'a>(at: &At<'_>, lun: &'a Lun) -> Result<(&'a RbdPlace, &'a str), DriverError> {
    let image = lun.path.strip_prefix("rbd:").and_then(|spec| spec.rsplit_once('/')).map(|(_, image)| image);
    match (&lun.pool, image) {
        (Some(pool), Some(image)) => Ok((pool, image)),
        _ => Err(krbd::no_disk(&at.tried, &lun.path)),
    }
}
