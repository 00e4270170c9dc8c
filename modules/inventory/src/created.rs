//! The answer to a POST that has created something.

use serde::Serialize;
use waangu_sdk::{IntoResponse, Json, Response, StatusCode};

/// Where the gateway shows this module.
const PREFIX: &str = "/api/inventory";

/// `201 Created`, with `Location` where what was created has an address of its own.
#[derive(Debug)]
pub(crate) struct Created<T> {
    location: Option<String>,
    body: T,
}

impl<T> Created<T> {
    /// Something with an address, which is given as the module sees it.
    pub(crate) fn at(path: impl AsRef<str>, body: T) -> Self {
        Self {
            location: Some(format!("{PREFIX}{}", path.as_ref())),
            body,
        }
    }

    /// Several things at once.
    pub(crate) fn together(body: T) -> Self {
        Self {
            location: None,
            body,
        }
    }
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let body = Json(self.body);
        match self.location {
            Some(location) => (StatusCode::CREATED, [("location", location)], body).into_response(),
            None => (StatusCode::CREATED, body).into_response(),
        }
    }
}
