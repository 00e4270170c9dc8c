//! The bench `fleet`: many tenants, beside the same work by other means on the same server.
//!
//! Method: one module of 20 tables for all ([`ledger20`](crate::peers::ledger20)); ours and the peers'
//! work takes turns on one durable PostgreSQL, in short rounds; as many clients for ours as workers for
//! theirs; ratios are those of medians over rounds.

mod compare;
mod onboarding;
pub(crate) mod stage;

use crate::Context;
use crate::failure::Failure;
use crate::report::Report;

/// Measures all of it.
pub(crate) async fn measure(context: &Context) -> Result<Report, Failure> {
    let mut report = Report::default();
    onboarding::measure(context, &mut report).await?;
    Ok(report)
}
