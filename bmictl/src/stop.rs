//! How a command ends before its answer is whole.

use std::io;

use bmi::model::{Fault, Kind};

/// Why a command stops.
#[derive(Debug)]
pub enum Stop {
    /// It failed; this is told.
    Fault(Fault),
    /// It ends with this exit code and all that is to be said has been said.
    Quiet(u8),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl Stop {
    /// A failed write to standard output. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn output(error: &io::Error) -> Stop {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::Quiet(0);
        }
        Stop::Fault(Fault::new(Kind::Outside, error.to_string()).trying("write the answer to standard output"))
    }
}

/// The kind a failed system call on the caller's own files means.
pub(crate) fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::Forbidden,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        _ => Kind::Outside,
    }
}
