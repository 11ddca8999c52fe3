//! A refusal or failure as it is told to people and machines: what was tried on what, why it failed, what to do.
//!
//! The one place where a kind becomes a class and a class an exit code. Never puts a secret into a text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, by name. Append only: the position is what crosses the wire, the name is what JSON shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A value is outside what is allowed.
    Invalid,
    /// No such object, or none the caller may see.
    NotFound,
    /// A live object holds that unique key already.
    Duplicate,
    /// The object's state does not allow it.
    Conflict,
    /// Another operation holds the object.
    Busy,
    /// The caller may not.
    Forbidden,
    /// A quota would be exceeded.
    Quota,
    /// It took longer than allowed; what happened is not sure yet.
    Timeout,
    /// Something outside (tgtd, a datastore, a tool) is missing or does not answer.
    Unavailable,
    /// No space left.
    Full,
    /// An import or another client-fed operation lost its input; the same command resumes it.
    Interrupted,
    /// Cancelled by somebody.
    Cancelled,
    /// Bytes are not what they were said to be.
    Corrupt,
    /// A limit of this software is reached.
    Limit,
    /// The two ends do not speak the same protocol.
    Protocol,
    /// No daemon answers.
    NoDaemon,
    /// A defect of bmid.
    Internal,
    /// Something outside refused or failed.
    Outside,
}

/// Which exit code a kind leads to (DESIGN section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Exit code 1.
    Failed,
    /// Exit code 2.
    Usage,
    /// Exit code 3.
    NotFound,
    /// Exit code 4.
    Conflict,
    /// Exit code 5.
    Denied,
    /// Exit code 6.
    Quota,
    /// Exit code 7.
    Timeout,
    /// Exit code 8.
    NoDaemon,
}

impl Kind {
    /// The one mapping of kinds to classes.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Kind::Invalid => Class::Usage,
            Kind::NotFound => Class::NotFound,
            Kind::Duplicate | Kind::Conflict | Kind::Busy => Class::Conflict,
            Kind::Forbidden => Class::Denied,
            Kind::Quota => Class::Quota,
            Kind::Timeout => Class::Timeout,
            Kind::NoDaemon => Class::NoDaemon,
            Kind::Unavailable
            | Kind::Full
            | Kind::Interrupted
            | Kind::Cancelled
            | Kind::Corrupt
            | Kind::Limit
            | Kind::Protocol
            | Kind::Internal
            | Kind::Outside => Class::Failed,
        }
    }

    /// Whether trying the same again later can succeed without anybody changing the request.
    #[must_use]
    pub fn retry(self) -> bool {
        matches!(self, Kind::Busy | Kind::Timeout | Kind::Unavailable | Kind::Full | Kind::Interrupted | Kind::NoDaemon)
    }

    /// The name JSON shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::NotFound => "not_found",
            Kind::Duplicate => "duplicate",
            Kind::Conflict => "conflict",
            Kind::Busy => "busy",
            Kind::Forbidden => "forbidden",
            Kind::Quota => "quota",
            Kind::Timeout => "timeout",
            Kind::Unavailable => "unavailable",
            Kind::Full => "full",
            Kind::Interrupted => "interrupted",
            Kind::Cancelled => "cancelled",
            Kind::Corrupt => "corrupt",
            Kind::Limit => "limit",
            Kind::Protocol => "protocol",
            Kind::NoDaemon => "no_daemon",
            Kind::Internal => "internal",
            Kind::Outside => "outside",
        }
    }
}

impl Class {
    /// The exit code of bmictl.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::NotFound => 3,
            Class::Conflict => 4,
            Class::Denied => 5,
            Class::Quota => 6,
            Class::Timeout => 7,
            Class::NoDaemon => 8,
        }
    }

    /// The name JSON shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Failed => "failed",
            Class::Usage => "usage",
            Class::NotFound => "not_found",
            Class::Conflict => "conflict",
            Class::Denied => "denied",
            Class::Quota => "quota",
            Class::Timeout => "timeout",
            Class::NoDaemon => "no_daemon",
        }
    }
}

/// A failure told whole. `tried`, `why` and `fix` are sentences without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind of failure.
    pub kind: Kind,
    /// What was tried on what: `provision node web1 from image debian`.
    pub tried: String,
    /// Why it failed.
    pub why: String,
    /// What to do about it; empty when nothing sensible can be said.
    pub fix: String,
    /// The causes beneath, outermost first, and what else failed while cleaning up.
    pub causes: Vec<String>,
}

impl Fault {
    /// A failure of `kind`, because of `why`; say what was tried with [`Fault::trying`].
    #[must_use]
    pub fn new(kind: Kind, why: impl Into<String>) -> Fault {
        Fault { kind, tried: String::new(), why: why.into(), fix: String::new(), causes: Vec::new() }
    }

    /// What was tried on what. The innermost statement stays: callers further out add nothing over it.
    #[must_use]
    pub fn trying(mut self, what: impl Into<String>) -> Fault {
        if self.tried.is_empty() {
            self.tried = what.into();
        }
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, what: impl Into<String>) -> Fault {
        self.fix = what.into();
        self
    }

    /// A cause beneath.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Fault {
        self.causes.push(cause.into());
        self
    }

    /// Nothing of that name, or none the caller may see (never told apart).
    #[must_use]
    pub fn not_found(noun: &str, what: impl fmt::Display) -> Fault {
        Fault::new(Kind::NotFound, format!("there is no {noun} {what}"))
            .fix(format!("`bmictl {noun} ls` lists what there is"))
    }

    /// A value outside what is allowed.
    #[must_use]
    pub fn invalid(why: impl Into<String>) -> Fault {
        Fault::new(Kind::Invalid, why)
    }

    /// The object's state does not allow it.
    #[must_use]
    pub fn conflict(why: impl Into<String>) -> Fault {
        Fault::new(Kind::Conflict, why)
    }

    /// A defect of bmid: something that should be impossible.
    #[must_use]
    pub fn internal(why: impl Into<String>) -> Fault {
        Fault::new(Kind::Internal, why)
            .fix("this is a defect of bmid; `bmictl state check` tells whether records are affected")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tried.is_empty() {
            f.write_str(&self.why)?;
        } else {
            write!(f, "cannot {}: {}", self.tried, self.why)?;
        }
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
