//! How a command fails: one line on stderr, and an exit code that scripts can tell apart.

use std::fmt::Display;
use std::process::ExitCode;

use waangu_api::ClientError;

use crate::output::talk;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Exit code 1: it failed.
    pub(crate) fn failed(text: impl Display) -> Self {
        Self {
            code: 1,
            text: text.to_string(),
        }
    }

    /// Exit code 2: the command's words are off.
    pub(crate) fn usage(text: impl Display) -> Self {
        Self {
            code: 2,
            text: text.to_string(),
        }
    }

    /// Exit code 3: it was refused.
    pub(crate) fn refused(text: impl Display) -> Self {
        Self {
            code: 3,
            text: text.to_string(),
        }
    }

    /// The same, saying first what it is about.
    pub(crate) fn at(self, what: &str) -> Self {
        Self {
            text: format!("{what}: {}", self.text),
            ..self
        }
    }

    /// Prints the reason.
    pub(crate) fn report(&self) -> ExitCode {
        talk(&format!("error: {}", self.text));
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(problem) if problem.status == 404 => 4,
            ClientError::Refused(problem) if problem.status < 500 => 3,
            ClientError::Refused(_) | ClientError::Unreachable(_) => 1,
        };
        Self {
            code,
            text: error.to_string(),
        }
    }
}

impl From<waangu_kernel::Fault> for Failure {
    fn from(fault: waangu_kernel::Fault) -> Self {
        Self::failed(match fault.operator_cause() {
            Some(cause) => format!("{fault} ({cause})"),
            None => fault.to_string(),
        })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

impl From<waangu_pgserver::Error> for Failure {
    fn from(error: waangu_pgserver::Error) -> Self {
        Self::failed(error)
    }
}

/// Names the file that an I/O error is about: "permission denied" alone helps nobody.
pub(crate) trait Of<T> {
    /// Turns an I/O error into a failure that names `what`.
    fn of(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Of<T> for Result<T, E> {
    fn of(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(format!("{what}: {error}")))
    }
}
