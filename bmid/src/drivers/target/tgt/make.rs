//! Makes a target whole, or completes one that is there.
//!
//! The ordinary case asks for no listing. Must never bind the ACL before everything else is so, and never take a LUN from
//! under a session.

use bmi::model::Kind;
use bmi::step::{Lun, MakeTarget};

use super::At;
use super::client::{Failure, unless};
use super::show::Listed;
use super::swap;
use super::wire::Code;
use crate::drivers::{DriverError, Unseal};

/// Brings the target to what the step says; whether anything changed.
pub(super) fn make(at: &At<'_>, s: &MakeTarget, unseal: &dyn Unseal) -> Result<bool, DriverError> {
    let secret = s.account.as_ref().map(|a| unseal.open(&a.secret)).transpose()?;
    let making = Making { at, s, secret };
    match at.client.target_new(s.tid, &s.iqn) {
        Ok(()) => making.fresh(),
        Err(e) if e.code() == Some(Code::TARGET_EXISTS) => making.existing(),
        Err(e) => Err(at.failed(e)),
    }
}

struct Making<'a> {
    at: &'a At<'a>,
    s: &'a MakeTarget,
    secret: Option<String>,
}

impl Making<'_> {
    /// The target was just made and lets nobody in.
    fn fresh(&self) -> Result<bool, DriverError> {
        let filled = self.fill();
        if filled.as_ref().is_err_and(|e| e.kind != Kind::Timeout) {
            // Nothing half-made stays while tgtd answers; one that hangs is not waited for again. If this fails the error above still tells the matter.
            let _ = self.at.client.target_delete(self.s.tid, true);
            if let Some(account) = &self.s.account {
                let _ = self.at.client.account_delete(&account.user);
            }
        }
        filled.map(|()| true)
    }

    fn fill(&self) -> Result<(), DriverError> {
        for lun in &self.s.luns {
            swap::put(self.at, self.s.tid, lun)?;
        }
        self.account().map_err(|e| self.at.failed(e))?;
        self.let_in()
    }

    fn account(&self) -> Result<(), Failure> {
        let (Some(account), Some(secret)) = (&self.s.account, &self.secret) else { return Ok(()) };
        let client = &self.at.client;
        if !unless(client.account_new(&account.user, secret), &[Code::USER_EXISTS])? {
            // Left over, and nobody can say with which secret.
            unless(client.account_delete(&account.user), &[Code::NO_USER])?;
            client.account_new(&account.user, secret)?;
        }
        client.account_bind(self.s.tid, &account.user)
    }

    fn let_in(&self) -> Result<(), DriverError> {
        let bound = self.at.client.acl_bind(self.s.tid, &self.s.initiator);
        unless(bound, &[Code::ACL_EXISTS]).map(drop).map_err(|e| self.at.failed(e))
    }

    /// The number or the name is taken.
    fn existing(&self) -> Result<bool, DriverError> {
        let (at, s) = (self.at, self.s);
        let all = match at.listing() {
            Ok(all) => all,
            Err(e @ Failure::Disbelieved(_)) => return self.anew(e),
            Err(e) => return Err(at.failed(e)),
        };
        if let Some(there) = all.iter().find(|t| t.tid == s.tid) {
            if there.iqn == s.iqn {
                return self.repair(there, &Repairs::of(there, s));
            }
            let why = format!("number {} belongs to target {} in that tgtd", s.tid, there.iqn);
            return Err(at.error(Kind::Conflict, why).fix("`bmictl reconcile` clears targets that nobody has"));
        }
        if let Some(elsewhere) = all.iter().find(|t| t.iqn == s.iqn) {
            // Everything in this tgtd is ours, so that is this target under a number it no longer has.
            at.quiet(elsewhere.tid, &elsewhere.iqn, false)?;
            let gone = at.client.target_delete(elsewhere.tid, false);
            unless(gone, &[Code::NO_TARGET]).map_err(|e| at.failed(e))?;
        }
        at.client.target_new(s.tid, &s.iqn).map_err(|e| at.failed(e))?;
        self.fresh()
    }

    /// What the target has cannot be known, because an initiator of another forges the listing. One that nobody is logged in
    /// to can be made again instead of compared.
    fn anew(&self, why: Failure) -> Result<bool, DriverError> {
        let (at, s) = (self.at, self.s);
        let names = at.client.targets().map_err(|e| at.failed(e))?;
        let ours = names.iter().any(|(tid, iqn)| *tid == s.tid && *iqn == s.iqn);
        if !ours || !at.client.connections(s.tid).map_err(|e| at.failed(e))?.is_empty() {
            return Err(at.failed(why));
        }
        at.quiet(s.tid, &s.iqn, false)?;
        at.client.target_delete(s.tid, false).map_err(|e| at.failed(e))?;
        at.client.target_new(s.tid, &s.iqn).map_err(|e| at.failed(e))?;
        self.fresh()
    }

    fn repair(&self, there: &Listed, r: &Repairs<'_>) -> Result<bool, DriverError> {
        if r.nothing() {
            return Ok(false);
        }
        let (at, tid) = (self.at, self.s.tid);
        // Set offline only where nobody is logged in: tgtd drops commands of live sessions of an offline target without an
        // answer. Where somebody may be, an empty ACL keeps logins out and lets sessions go on.
        if !r.close.is_empty() {
            at.quiet(tid, &self.s.iqn, false)?;
        }
        for name in &there.initiators {
            unless(at.client.acl_unbind(tid, name), &[Code::ACL_MISSING]).map_err(|e| at.failed(e))?;
        }
        for &lun in &r.close {
            swap::close(at, tid, lun)?;
        }
        for lun in &r.open {
            swap::put(at, tid, lun)?;
        }
        for lun in &r.mark {
            swap::mark(at, tid, lun)?;
        }
        for user in &r.forget {
            unless(at.client.account_delete(user), &[Code::NO_USER]).map_err(|e| at.failed(e))?;
        }
        if r.account {
            self.account().map_err(|e| at.failed(e))?;
        }
        self.let_in()?;
        at.client.target_ready(tid, true).map_err(|e| at.failed(e))?;
        Ok(true)
    }
}

/// What a target lacks or has too much. An account's secret cannot be compared: tgtd never tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repairs<'a> {
    pub(super) close: Vec<u8>,
    pub(super) open: Vec<&'a Lun>,
    pub(super) mark: Vec<&'a Lun>,
    pub(super) forget: Vec<&'a str>,
    pub(super) account: bool,
    pub(super) lock_out: Vec<&'a str>,
    pub(super) let_in: bool,
    pub(super) wake: bool,
}

impl<'a> Repairs<'a> {
    pub(super) fn of(there: &'a Listed, want: &'a MakeTarget) -> Repairs<'a> {
        let mut r = Repairs { wake: !there.ready, ..Repairs::default() };
        for lun in &there.luns {
            if !want.luns.iter().any(|w| w.number == lun.number) {
                r.close.push(lun.number);
            }
        }
        for want in &want.luns {
            match there.luns.iter().find(|l| l.number == want.number) {
                None => r.open.push(want),
                Some(l) if l.path != want.path || !l.online => {
                    r.close.push(want.number);
                    r.open.push(want);
                }
                Some(l) if l.serial != want.serial || l.scsi_id != want.scsi_id => r.mark.push(want),
                Some(_) => {}
            }
        }
        let user = want.account.as_ref().map(|a| a.user.as_str());
        r.forget.extend(there.accounts.iter().map(String::as_str).filter(|&a| Some(a) != user));
        r.account = user.is_some_and(|u| !there.accounts.iter().any(|a| a == u));
        r.lock_out.extend(there.initiators.iter().map(String::as_str).filter(|&i| i != want.initiator));
        r.let_in = !there.initiators.contains(&want.initiator);
        r
    }

    pub(super) fn nothing(&self) -> bool {
        *self == Repairs::default()
    }
}
