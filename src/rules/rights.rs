//! Who may do what (DESIGN section 8). The right stands beside the operation; this is the one place that judges it.

use crate::model::{Caller, Fault, Kind, Owner};

/// The right an operation needs (DESIGN section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Any local caller.
    Everyone,
    /// Somebody who acts for a project.
    Member,
    /// An admin.
    Admin,
}

/// Whether `caller` has `right`; the refusal names what would give it.
pub fn judge(caller: &Caller, right: Right, command: &str) -> Result<(), Fault> {
    let allowed = match right {
        Right::Everyone => true,
        Right::Member | Right::Admin => caller.admin,
    };
    if allowed {
        return Ok(());
    }
    Err(Fault::new(Kind::Forbidden, format!("{} is no bmi admin", caller.name))
        .trying(command)
        .fix("run it as root or as a member of group bmi-admin"))
}

/// The caller acting for `project`. Only an admin may choose one.
pub fn acting(mut caller: Caller, project: Option<Owner>) -> Result<Caller, Fault> {
    match project {
        Some(p) if p != caller.project && !caller.admin => {
            Err(Fault::new(Kind::Forbidden, format!("{} may not act for project {p}", caller.name))
                .fix("leave --project out"))
        }
        Some(p) => {
            caller.project = p;
            Ok(caller)
        }
        None => Ok(caller),
    }
}
