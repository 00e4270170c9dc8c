//! Faults: everything that can go wrong and that somebody outside may see.
//!
//! One [`ErrorDef`] decides code, status, blame and retry; it is also the page in `docs/errors/`.
//! A [`Fault`] carries two messages: one for the client, one for the operator's log. The operator's
//! never leaves the process.
//!
//! Left out: how a fault is put on the wire (`waangu-api` for problem+json, the CLI for one line).

use std::borrow::Cow;
use std::fmt;

mod catalogue;

pub use catalogue::*;

/// Who has to act for the error to go away; also the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller: change the request.
    Client,
    /// The platform's own code or its operator.
    Platform,
    /// A business module.
    Module,
    /// PostgreSQL, or the way to it.
    Database,
}

/// A documented kind of error. The code is stable: clients may branch on it.
#[derive(Debug)]
pub struct ErrorDef {
    /// Stable kebab-case code; a module's own are `module.code`.
    pub code: &'static str,
    /// HTTP status (RFC 9110 §15).
    pub status: u16,
    /// A short summary that doesn't change from case to case (RFC 9457 §3.1.3).
    pub title: &'static str,
    /// Why it happens.
    pub why: &'static str,
    /// What to do about it.
    pub mend: &'static str,
    /// Who has to act.
    pub blame: Blame,
}

impl ErrorDef {
    /// A client's mistake.
    pub const fn client(
        code: &'static str,
        status: u16,
        title: &'static str,
        why: &'static str,
        mend: &'static str,
    ) -> Self {
        Self {
            code,
            status,
            title,
            why,
            mend,
            blame: Blame::Client,
        }
    }

    /// A failure that somebody else than the client has to mend.
    pub const fn server(
        blame: Blame,
        code: &'static str,
        status: u16,
        title: &'static str,
        why: &'static str,
        mend: &'static str,
    ) -> Self {
        Self {
            code,
            status,
            title,
            why,
            mend,
            blame,
        }
    }

    /// One occurrence, with the sentence that the client sees.
    pub fn fault(&'static self, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault(Box::new(Occurrence {
            def: self,
            detail: detail.into(),
            field: None,
            cause: None,
        }))
    }

    /// The error's page in `docs/errors/`, in Markdown.
    pub fn page(&self) -> String {
        let blame = match self.blame {
            Blame::Client => "the caller",
            Blame::Platform => "the platform's operator",
            Blame::Module => "the module's author or operator",
            Blame::Database => "the database's operator",
        };
        let retry = if self.retryable() {
            "The same request may be repeated."
        } else {
            "Repeating the same request will not help."
        };
        format!(
            "# {code}\n\nHTTP {status}: {title}.\n\n**Why.** {why}\n\n**What to do.** {mend}\n\n\
             {retry} Acts: {blame}.\n",
            code = self.code,
            status = self.status,
            title = self.title,
            why = self.why,
            mend = self.mend,
        )
    }

    /// Whether the same request may succeed later unchanged.
    pub const fn retryable(&self) -> bool {
        matches!(self.status, 429 | 502 | 503 | 504)
    }
}

/// One occurrence of an [`ErrorDef`]. Boxed, because `Result`s that carry it are everywhere.
pub struct Fault(Box<Occurrence>);

struct Occurrence {
    def: &'static ErrorDef,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    cause: Option<String>,
}

impl Fault {
    /// Names the request field that is to blame.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Keeps the operator's message: goes to the log, never to the client.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The kind.
    pub fn def(&self) -> &'static ErrorDef {
        self.0.def
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.def.code
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.def.status
    }

    /// The client's message.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The field to blame, if one is.
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The operator's message, if there is one.
    pub fn operator_cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.def.code, self.0.detail)?;
        match &self.0.cause {
            Some(cause) => write!(f, " (cause: {cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// A client's text, safe to repeat in a message: printable, at most 60 characters.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(60)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
