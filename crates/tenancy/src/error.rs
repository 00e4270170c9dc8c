//! The one place where driver errors of the data plane become faults.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::error::{DbError, SqlState};
use waangu_kernel::{Fault, fault};

/// SQLSTATE of `waangu.enter`: the tenant is frozen or not here; retry on a fresh placement.
pub(crate) const NOT_HERE: &str = "WG001";

/// SQLSTATE of `waangu.protect`: a module's migration breaks a rule.
const RULE_BROKEN: &str = "WG002";

/// What came instead of an answer; kept beside its fault, so that a module can recognise its own
/// constraints.
pub(crate) enum Said {
    /// PostgreSQL refused.
    Refused(Box<Refusal>),
    /// The statement can't be sent with these parameters.
    Misfit(String),
    /// The connection is gone.
    Lost(String),
}

/// What PostgreSQL said, as far as somebody makes use of it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) state: SqlState,
    pub(crate) message: String,
    pub(crate) constraint: Option<String>,
}

pub(crate) fn from_driver(error: impl Into<Said>) -> Fault {
    let said = error.into();
    let fault = match &said {
        Said::Refused(refusal) => refused(refusal),
        Said::Misfit(_) => fault::INTERNAL.fault("a parameter does not fit its statement"),
        Said::Lost(_) => {
            fault::DATABASE_UNAVAILABLE.fault("the tenant's database can't be reached")
        }
    };
    fault.cause(said)
}

fn refused(refusal: &Refusal) -> Fault {
    match refusal.state.code() {
        NOT_HERE => fault::TENANT_MOVING.fault("the tenant's data is changing its place"),
        RULE_BROKEN => fault::MODULE_MANIFEST_INVALID.fault(refusal.message.clone()),
        // 53: out of resources, 57: shut down or cancelled from outside, 08: connection, 40: rolled
        // back for another's sake (deadlock), 55P03: a lock was not to be had in time.
        code if matches!(code.get(..2), Some("53" | "57" | "08" | "40")) || code == "55P03" => {
            fault::DATABASE_UNAVAILABLE.fault("the tenant's database can't take this now")
        }
        _ => fault::INTERNAL.fault("the database refused a statement of the platform"),
    }
}

impl From<tokio_postgres::Error> for Said {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Lost(match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            });
        };
        Self::Refused(Box::new(Refusal {
            state: db.code().clone(),
            message: db.message().to_owned(),
            constraint: db.constraint().map(ToOwned::to_owned),
        }))
    }
}

pub(crate) fn unavailable(cause: impl fmt::Display) -> Fault {
    fault::DATABASE_UNAVAILABLE
        .fault("the tenant's database can't be reached")
        .cause(cause)
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Misfit(text) | Self::Lost(text) => f.write_str(text),
        }
    }
}

/// [`sql_state`] and [`constraint`] read it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.state.code())?;
        match &self.constraint {
            Some(name) => write!(f, " constraint={name}"),
            None => Ok(()),
        }
    }
}

/// The SQLSTATE behind a fault of this crate, if PostgreSQL sent one.
pub fn sql_state(fault: &Fault) -> Option<&str> {
    let cause = fault.operator_cause()?;
    let (_, rest) = cause.rsplit_once(" [")?;
    rest.split_once(']').map(|(code, _)| code)
}

/// Whether the fault says that the server itself can't be reached, rather than that it refused one
/// statement.
pub fn is_unreachable(fault: &Fault) -> bool {
    fault.code() == fault::DATABASE_UNAVAILABLE.code
        && sql_state(fault).is_none_or(|state| state.starts_with("57P") || state.starts_with("08"))
}

/// Whether `waangu.enter` said that the tenant is at home elsewhere, not only frozen.
pub(crate) fn is_elsewhere(fault: &Fault) -> bool {
    sql_state(fault) == Some(NOT_HERE)
        && fault
            .operator_cause()
            .is_some_and(|cause| cause.starts_with("tenant is not here"))
}

/// The name of the constraint behind a fault of this crate, if one was violated.
pub fn constraint(fault: &Fault) -> Option<&str> {
    fault
        .operator_cause()?
        .rsplit_once(" constraint=")
        .map(|(_, name)| name)
}

/// Whether the error is this SQLSTATE.
pub(crate) fn is_state(error: &tokio_postgres::Error, state: &SqlState) -> bool {
    error.as_db_error().map(DbError::code) == Some(state)
}
