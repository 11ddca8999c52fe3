//! Another secret for a target's account.
//!
//! tgtd asks for it at login alone, so live sessions go on. The target must not be set offline for it: tgtd then drops
//! commands of live sessions without an answer, and machines hang. Must never leave the target open to logins without an
//! account: nobody is on its list while the account is away, which shows in the listing, so that a step that was cut short
//! is completed.

use bmi::model::Kind;
use bmi::step::SwapAccount;

use super::At;
use super::client::{Failure, unless};
use super::wire::Code;
use crate::drivers::{DriverError, Unseal};

/// Puts the account in place. tgtd never tells a secret, so whether it was so already cannot be known.
pub(super) fn swap(at: &At<'_>, s: &SwapAccount, unseal: &dyn Unseal) -> Result<bool, DriverError> {
    let secret = unseal.open(&s.to.secret)?;
    let names = at.client.targets().map_err(|e| at.failed(e))?;
    if !names.iter().any(|(tid, iqn)| *tid == s.tid && *iqn == s.iqn) {
        let why = format!("tgtd has no target {} of number {}", s.iqn, s.tid);
        return Err(at.error(Kind::NotFound, why).fix("`bmictl reconcile` makes targets that are missing"));
    }
    replace(at, s, &secret).map(|()| true).map_err(|e| at.failed(e))
}

fn replace(at: &At<'_>, s: &SwapAccount, secret: &str) -> Result<(), Failure> {
    unless(at.client.acl_unbind(s.tid, &s.initiator), &[Code::ACL_MISSING])?;
    // Both have one name as a rule, and two accounts must never be bound at once.
    for user in [&s.from.user, &s.to.user] {
        unless(at.client.account_delete(user), &[Code::NO_USER])?;
    }
    at.client.account_new(&s.to.user, secret)?;
    at.client.account_bind(s.tid, &s.to.user)?;
    unless(at.client.acl_bind(s.tid, &s.initiator), &[Code::ACL_EXISTS]).map(drop)
}
