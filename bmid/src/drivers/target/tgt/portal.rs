//! Portals: where a tgtd listens.
//!
//! tgtd lives on without a portal when it cannot bind one, so what it says is verified. Must never open a network's portal
//! and leave the one it was filled behind as the only one.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use bmi::model::Kind;
use bmi::step::target::fill_address;
use bmi::step::{ClosePortal, OpenPortal};

use super::At;
use super::client::{Failure, unless};
use super::wire::Code;
use crate::drivers::DriverError;

/// Opens the network's portal, verifies it, and closes the loopback one.
pub(super) fn open(at: &At<'_>, s: &OpenPortal) -> Result<bool, DriverError> {
    let real = put(at, s.address, s.port)?;
    let filled = take(at, fill_address(s.slot).into(), s.port)?;
    Ok(real || filled)
}

/// Back behind the loopback portal. Sessions through the other one stay.
pub(super) fn close(at: &At<'_>, s: &ClosePortal) -> Result<bool, DriverError> {
    let real = take(at, s.address, s.port)?;
    let filled = put(at, fill_address(s.slot).into(), s.port)?;
    Ok(real || filled)
}

fn listens(at: &At<'_>, address: IpAddr, port: u16) -> Result<bool, DriverError> {
    Ok(at.client.portals().map_err(|e| at.failed(e))?.contains(&(address, port)))
}

fn put(at: &At<'_>, address: IpAddr, port: u16) -> Result<bool, DriverError> {
    if listens(at, address, port)? {
        return Ok(false);
    }
    match at.client.portal_new(address, port) {
        Ok(()) if listens(at, address, port)? => Ok(true),
        Ok(()) => Err(did_not_come_up(at, address, port)),
        // Another call was quicker, perhaps; else tgtd's one word for everything, and we look ourselves.
        Err(e) if e.code() == Some(Code::INVALID) && listens(at, address, port)? => Ok(false),
        Err(Failure::Refused(_)) => Err(did_not_come_up(at, address, port)),
        Err(e) => Err(at.failed(e)),
    }
}

fn take(at: &At<'_>, address: IpAddr, port: u16) -> Result<bool, DriverError> {
    if !listens(at, address, port)? {
        return Ok(false);
    }
    // "Invalid" is also what it says when there is none.
    unless(at.client.portal_delete(address, port), &[Code::INVALID]).map_err(|e| at.failed(e))?;
    if listens(at, address, port)? {
        return Err(at.error(Kind::Outside, format!("tgtd still listens at {}", SocketAddr::new(address, port))));
    }
    Ok(true)
}

fn did_not_come_up(at: &At<'_>, address: IpAddr, port: u16) -> DriverError {
    let down = format!("the portal {} did not come up", SocketAddr::new(address, port));
    if UdpSocket::bind((address, 0)).is_err_and(|e| e.kind() == ErrorKind::AddrNotAvailable) {
        let why = format!("{down}: no interface of this host has {address}");
        return at
            .error(Kind::Unavailable, why)
            .fix("is the address on the interface? `bmictl network show` names both");
    }
    if TcpListener::bind((address, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse) {
        let why = format!("{down}: something else listens there");
        return at.error(Kind::Unavailable, why).fix(format!("`ss -ltnp sport = {port}` names it; stop it"));
    }
    at.error(Kind::Unavailable, format!("{down}; tgtd's log says why")).fix("is the address on the interface?")
}
