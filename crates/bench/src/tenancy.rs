//! The bench `tenancy`: what isolation costs, against the same SQL without it and against what people
//! write today, and whether it holds when requests fail, are cancelled or panic.
//!
//! Method:
//! - one durable PostgreSQL on loopback, made for the run; all sides work on the same rows;
//! - paired: the sides take turns on short batches of the same plan, in alternating order; a ratio is
//!   the median of the ratios of the rounds, so that a noisy neighbour hits both;
//! - one client, one connection in use: the numbers are latencies, and throughput is their inverse;
//! - beside the time stands the time on the CPU of the backends (`/proc/PID/schedstat`), which is
//!   steadier.
//!
//! Left out: the gateway and HTTP; many clients at once.

mod cpu;
mod dedicated;
mod paired;
mod plan;
mod relay;
mod sides;
mod stage;
mod statements;
mod subtree;
mod wrong;

use crate::failure::Failure;
use crate::report::Report;
use crate::{Context, Effort};

use stage::Stage;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tenants: i64,
    /// Rows of each tenant.
    rows: i64,
    /// Rounds of each comparison on loopback.
    rounds: usize,
    /// Rounds of each comparison over the slow network.
    delayed_rounds: usize,
    /// Reads that must all be in the right tenant.
    reads: u64,
    /// The same for a session's setting, which shows its leak sooner.
    peer_reads: u64,
    /// The same for django-tenants.
    django_requests: u32,
    /// How many tenants have a database of their own.
    databases: &'static [i64],
}

impl Sizes {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                tenants: 100,
                rows: 200,
                rounds: 6,
                delayed_rounds: 4,
                reads: 20_000,
                peer_reads: 20_000,
                django_requests: 2_000,
                databases: &[1, 20],
            },
            Effort::Full => Self {
                tenants: 1_000,
                rows: 1_000,
                rounds: 30,
                delayed_rounds: 10,
                // A little more, for those of requests that panic.
                reads: 1_010_000,
                peer_reads: 200_000,
                django_requests: 20_000,
                databases: &[1, 100, 1_000],
            },
        }
    }
}

/// Measures all of it.
pub(crate) async fn measure(context: &Context) -> Result<Report, Failure> {
    let sizes = Sizes::of(context.effort);
    let mut report = Report::default();
    let stage = Stage::build(context, sizes, &mut report).await?;
    statements::measure(context, &stage, sizes, &mut report).await?;
    Box::pin(subtree::measure(context, &stage, sizes, &mut report)).await?;
    wrong::measure(context, &stage, sizes, &mut report).await?;
    stage.strike().await?;
    dedicated::measure(context, sizes, &mut report).await?;
    Ok(report)
}
