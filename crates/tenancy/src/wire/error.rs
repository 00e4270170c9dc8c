//! What can go wrong on a connection.

use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{ErrorFields, ErrorResponseBody};
use postgres_protocol::message::frontend::BindError;
use tokio_postgres::error::SqlState;

use crate::error::{Refusal, Said};

/// So many bytes of a refusal's text are kept.
const LONGEST: usize = 2048;

/// Why a connection did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Error {
    /// PostgreSQL refused; the connection can go on.
    Refused(Box<Refusal>),
    /// The connection is gone, or in a state that nobody knows.
    Lost(io::Error),
    /// A parameter does not fit its statement; nothing was sent.
    Value(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What PostgreSQL has refused.
    pub(super) fn refusal(body: &ErrorResponseBody) -> Self {
        match read(body.fields()) {
            Ok(refusal) => Self::Refused(Box::new(refusal)),
            Err(error) => Self::Lost(error),
        }
    }

    pub(super) fn ended() -> Self {
        Self::Lost(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server has closed the connection",
        ))
    }

    pub(crate) fn unexpected() -> Self {
        Self::Lost(io::Error::new(
            io::ErrorKind::InvalidData,
            "the server sent a message that does not belong here",
        ))
    }

    /// Whether PostgreSQL refused, and the connection can go on.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// What PostgreSQL said, if it refused.
    pub(crate) fn refused(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Lost(_) | Self::Value(_) => None,
        }
    }

    /// Whether PostgreSQL refused with this SQLSTATE.
    pub(crate) fn is_state(&self, state: &SqlState) -> bool {
        self.refused()
            .is_some_and(|refusal| refusal.state == *state)
    }
}

fn read(mut fields: ErrorFields<'_>) -> io::Result<Refusal> {
    let mut refusal = Refusal {
        state: SqlState::from_code("XX000"),
        message: String::new(),
        constraint: None,
    };
    while let Some(field) = fields.next()? {
        // A query writes what it likes into its error: up to a gigabyte, which would go to the log.
        let bytes = field.value_bytes();
        let value = || String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(bytes));
        match field.type_() {
            b'C' => refusal.state = SqlState::from_code(&value()),
            b'M' => refusal.message = value().into_owned(),
            b'n' => refusal.constraint = Some(value().into_owned()),
            _ => {}
        }
    }
    Ok(refusal)
}

impl From<Error> for Said {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Refused(refusal),
            Error::Lost(error) => Self::Lost(error.to_string()),
            Error::Value(error) => Self::Misfit(error.to_string()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Conversion(error) => Self::Value(error),
            BindError::Serialization(error) => Self::Value(error.into()),
        }
    }
}
