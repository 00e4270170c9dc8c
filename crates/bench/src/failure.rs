//! Why something could not be measured: one line for people.

use std::fmt::{self, Display};

use waangu_api::ClientError;

/// A measurement that did not take place.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// In these words.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

/// Says of what an error is.
pub(crate) trait Of<T> {
    /// The error, with its subject before it.
    fn of(self, subject: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Of<T> for Result<T, E> {
    fn of(self, subject: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{subject}: {error}")))
    }
}
