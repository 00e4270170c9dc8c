//! Errors on the wire: `application/problem+json` (RFC 9457) with a stable `code`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waangu_kernel::Fault;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One problem, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI for the kind of problem; `docs/errors/<code>.md` explains it.
    #[serde(rename = "type")]
    pub kind: String,
    /// A summary that is the same each time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs to branch on.
    pub code: String,
    /// What happened this time.
    pub detail: String,
    /// The request field to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The request's id, to quote when asking for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Problem {
    /// Names the request.
    #[must_use]
    pub fn request(mut self, id: &impl ToString) -> Self {
        self.request = Some(id.to_string());
        self
    }

    /// The JSON text.
    pub fn to_json(&self) -> String {
        // Strings and a number: serialisation can't fail; an empty object would still be valid JSON.
        serde_json::to_string(self).unwrap_or_else(|_error| "{}".to_owned())
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        Self {
            kind: format!("urn:waangu:problem:{}", fault.code()),
            title: fault.def().title.to_owned(),
            status: fault.status(),
            code: fault.code().to_owned(),
            detail: fault.detail().to_owned(),
            field: fault.field_name().map(str::to_owned),
            request: None,
        }
    }
}
