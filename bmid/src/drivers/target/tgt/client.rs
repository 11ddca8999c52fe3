//! What can be asked of one tgtd, typed. Knows no steps.
//!
//! Must never show a secret: errors name what was tried on what, not what was sent.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bmi::model::{Id, Kind};

use super::show::{self, BadListing, Connection, Listed};
use super::socket::{self, NoAnswer};
use super::wire::{BadValue, Code, Mode, Op, Payload, Request};
use crate::drivers::DriverError;

/// How often a listing is asked for again because a target came or went between its two halves.
const LISTINGS: u32 = 5;

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// tgtd said no.
    #[error("{0}")]
    Refused(Code),
    /// It was not sent.
    #[error("{0}")]
    Unfit(BadValue),
    /// No answer.
    #[error(transparent)]
    NoAnswer(NoAnswer),
    /// The answer is not believed.
    #[error(transparent)]
    Disbelieved(BadListing),
}

impl From<BadValue> for Failure {
    fn from(e: BadValue) -> Failure {
        Failure::Unfit(e)
    }
}

impl Failure {
    /// tgtd's word, if it had one.
    #[must_use]
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Failure::Refused(code) => Some(*code),
            _ => None,
        }
    }
}

/// Takes some refusals for success: what was asked for was so already.
pub(super) fn unless(result: Result<(), Failure>, already: &[Code]) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.code().is_some_and(|c| already.contains(&c)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// One network's tgtd.
#[derive(Debug, Clone)]
pub(super) struct Client {
    network: Id,
    socket: PathBuf,
    limit: Duration,
}

impl Client {
    /// The tgtd of `network`, at `socket`, with a limit on each request.
    #[must_use]
    pub(super) fn new(network: Id, socket: PathBuf, limit: Duration) -> Client {
        Client { network, socket, limit }
    }

    /// With another limit.
    #[must_use]
    pub(super) fn limit(self, limit: Duration) -> Client {
        Client { limit, ..self }
    }

    /// A failure while trying `tried`, told whole.
    pub(super) fn fault(&self, tried: impl Into<String>, failure: Failure) -> DriverError {
        let network = self.network;
        let (kind, why, fix) = match &failure {
            Failure::Refused(code) => (Kind::Outside, code.to_string(), String::new()),
            Failure::Unfit(bad) => (Kind::Invalid, bad.to_string(), String::new()),
            Failure::Disbelieved(bad) => (
                Kind::Outside,
                bad.to_string(),
                "if it lasts, that target's initiator writes lines of its own into the listing (by its alias): end its session"
                    .to_owned(),
            ),
            Failure::NoAnswer(no) => {
                let (kind, fix) = match no {
                    NoAnswer::Absent { .. } => {
                        let why = format!("tgtd of network {network} is not running ({no})");
                        let fix = "bmid starts it again by itself; `bmictl status` says why it cannot";
                        return with_cause(DriverError::new(Kind::Unavailable, tried, why).fix(fix), failure);
                    }
                    NoAnswer::Stranger { .. } => (Kind::Outside, "run both with uid 0 and gid 0"),
                    NoAnswer::Closed => (Kind::Unavailable, "it died or was stopped; bmid starts and fills it again"),
                    NoAnswer::Slow(_) => (Kind::Timeout, "`bmictl status` says what its process does; is its datastore's file system within reach?"),
                    NoAnswer::Garbage(_) => (Kind::Outside, "something else listens at its socket; look with `ss -xlp`"),
                    NoAnswer::Io(_) => (Kind::Unavailable, ""),
                };
                (kind, format!("tgtd of network {network}: {no}"), fix.to_owned())
            }
        };
        with_cause(DriverError::new(kind, tried, why).fix(fix), failure)
    }

    fn call(&self, request: &Request) -> Result<String, Failure> {
        let bytes = request.encode()?;
        match socket::ask(&self.socket, &bytes, self.limit) {
            Ok((Code(0), text)) => Ok(text),
            Ok((code, _)) => Err(Failure::Refused(code)),
            Err(e) => Err(Failure::NoAnswer(e)),
        }
    }

    fn tell(&self, request: &Request) -> Result<(), Failure> {
        self.call(request).map(drop)
    }
}

fn with_cause(mut e: DriverError, failure: Failure) -> DriverError {
    e.source = Some(Box::new(failure));
    e
}

/// Targets.
impl Client {
    /// Numbers and names of all targets: 0.3 ms at 1,000.
    pub(super) fn targets(&self) -> Result<Vec<(u32, String)>, Failure> {
        Ok(show::targets(&self.call(&Request::new(Mode::Lld, Op::Show))?))
    }

    /// All targets whole: some 10 ms at 1,000, in which tgtd does nothing else.
    pub(super) fn listing(&self) -> Result<Vec<Listed>, Failure> {
        let mut tries = 1;
        loop {
            let names = self.targets()?;
            let text = self.call(&Request::new(Mode::Target, Op::Show).all())?;
            match show::listing(&text, &names) {
                Ok(listed) => return Ok(listed),
                Err(bad) if tries == LISTINGS => return Err(Failure::Disbelieved(bad)),
                Err(_) => tries += 1,
            }
        }
    }

    /// A target without LUNs that lets nobody in.
    pub(super) fn target_new(&self, tid: u32, iqn: &str) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Target, Op::New).tid(tid).with(Payload::of("targetname", iqn)?))
    }

    /// Takes a target and its LUNs away; under a session only by force.
    pub(super) fn target_delete(&self, tid: u32, force: bool) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Target, Op::Delete).tid(tid).force(force))
    }

    /// Whether a target takes logins. What is logged in stays.
    pub(super) fn target_ready(&self, tid: u32, ready: bool) -> Result<(), Failure> {
        let state = Payload::of("state", if ready { "ready" } else { "offline" })?;
        self.tell(&Request::new(Mode::Target, Op::Update).tid(tid).with(state))
    }

    /// Lets an initiator in.
    pub(super) fn acl_bind(&self, tid: u32, initiator: &str) -> Result<(), Failure> {
        let name = Payload::of("initiator-name", initiator)?;
        self.tell(&Request::new(Mode::Target, Op::Bind).tid(tid).with(name))
    }

    /// Lets an initiator in no more, be it listed by name or by address.
    pub(super) fn acl_unbind(&self, tid: u32, initiator: &str) -> Result<(), Failure> {
        let unbind = Request::new(Mode::Target, Op::Unbind).tid(tid);
        let by_name = self.tell(&unbind.clone().with(Payload::of("initiator-name", initiator)?));
        match by_name {
            Err(e) if e.code() == Some(Code::ACL_MISSING) => {
                self.tell(&unbind.with(Payload::of("initiator-address", initiator)?))
            }
            done => done,
        }
    }
}

/// What a LUN stands on, as far as initiators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// A file: what tgtd says by itself.
    File,
    /// A block device of a pool: blocks of 4 KiB, not of an object's 4 MiB.
    Device,
    /// tgtd's own module for pools: such blocks, which may be given back (UNMAP).
    Module,
}

/// LUNs.
impl Client {
    /// Opens a backing as a LUN. Writes go to the page cache; an initiator's flush reaches the disk (fdatasync).
    pub(super) fn lun_new(&self, tid: u32, lun: u8, path: &str) -> Result<(), Failure> {
        let backing = Payload::of("path", path)?.and("bstype", "rdwr")?;
        self.tell(&Request::new(Mode::Device, Op::New).tid(tid).lun(lun).with(backing))
    }

    /// Opens a block device as a LUN, past the host's page cache: what is behind it keeps its own.
    pub(super) fn lun_device(&self, tid: u32, lun: u8, device: &str) -> Result<(), Failure> {
        let backing = Payload::of("path", device)?.and("bstype", "rdwr")?.and("bsoflags", "direct")?;
        self.tell(&Request::new(Mode::Device, Op::New).tid(tid).lun(lun).with(backing))
    }

    /// Has tgtd's rbd module take an image as a LUN. Ask Ceph before, and tell the guard the image's size: it would else be opened in tgtd's loop.
    pub(super) fn lun_rbd(&self, tid: u32, lun: u8, image: &str, options: &str) -> Result<(), Failure> {
        let backing = Payload::of("path", image)?.and("bstype", "rbd")?.and("bsopts", options)?;
        self.tell(&Request::new(Mode::Device, Op::New).tid(tid).lun(lun).with(backing))
    }

    /// What initiators see of the disk, in one request: its identity, and what it stands on.
    pub(super) fn lun_mark(&self, tid: u32, lun: u8, serial: &str, scsi_id: &str, on: On) -> Result<(), Failure> {
        let marks = Payload::of("scsi_id", scsi_id)?.and("scsi_sn", serial)?;
        let marks = match on {
            On::File => marks,
            On::Device => marks.and("lbppbe", "3")?,
            On::Module => marks.and("lbppbe", "3")?.and("thin_provisioning", "1")?,
        };
        self.tell(&Request::new(Mode::Device, Op::Update).tid(tid).lun(lun).with(marks))
    }

    /// Closes a LUN.
    pub(super) fn lun_delete(&self, tid: u32, lun: u8) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Device, Op::Delete).tid(tid).lun(lun))
    }
}

/// Accounts. tgtd never tells a secret, so whether one is as it should be cannot be asked.
impl Client {
    /// A CHAP account, bound to nothing.
    pub(super) fn account_new(&self, user: &str, secret: &str) -> Result<(), Failure> {
        let account = Payload::of("user", user)?.and("password", secret)?;
        self.tell(&Request::new(Mode::Account, Op::New).with(account))
    }

    /// Takes an account away, and its binding.
    pub(super) fn account_delete(&self, user: &str) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Account, Op::Delete).with(Payload::of("user", user)?))
    }

    /// Asks initiators of a target for an account. Never bind two: tgtd crashes when the first of them goes.
    pub(super) fn account_bind(&self, tid: u32, user: &str) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Account, Op::Bind).tid(tid).with(Payload::of("user", user)?))
    }
}

/// Connections and portals.
impl Client {
    /// Who is logged in to a target: 0.1 ms.
    pub(super) fn connections(&self, tid: u32) -> Result<Vec<Connection>, Failure> {
        Ok(show::connections(&self.call(&Request::new(Mode::Connection, Op::Show).tid(tid))?))
    }

    /// Cuts a connection.
    pub(super) fn connection_close(&self, tid: u32, sid: u64, cid: u32) -> Result<(), Failure> {
        self.tell(&Request::new(Mode::Connection, Op::Delete).tid(tid).connection(sid, cid))
    }

    /// The portals that are open.
    pub(super) fn portals(&self) -> Result<Vec<(IpAddr, u16)>, Failure> {
        let all = show::portals(&self.call(&Request::new(Mode::Portal, Op::Show))?);
        Ok(all.into_iter().filter_map(|(address, port)| Some((address.parse().ok()?, port))).collect())
    }

    /// Opens a portal.
    pub(super) fn portal_new(&self, address: IpAddr, port: u16) -> Result<(), Failure> {
        self.portal(Op::New, address, port)
    }

    /// Closes a portal; sessions through it stay.
    pub(super) fn portal_delete(&self, address: IpAddr, port: u16) -> Result<(), Failure> {
        self.portal(Op::Delete, address, port)
    }

    fn portal(&self, op: Op, address: IpAddr, port: u16) -> Result<(), Failure> {
        let portal = Payload::of("portal", &SocketAddr::new(address, port).to_string())?;
        self.tell(&Request::new(Mode::Portal, op).with(portal))
    }
}
