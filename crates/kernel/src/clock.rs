//! Time as a parameter, so that tests own it and nothing reads the ambient clock.

use std::fmt::Debug;

use time::OffsetDateTime;

/// Tells the time. Passed down from `main`; `clippy.toml` bans every other source.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current instant in UTC.
    fn now(&self) -> OffsetDateTime;

    /// Whole seconds since 1970-01-01T00:00:00Z, the unit of JWT times (RFC 7519 §2, NumericDate).
    fn unix_seconds(&self) -> i64 {
        self.now().unix_timestamp()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system clock"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}
