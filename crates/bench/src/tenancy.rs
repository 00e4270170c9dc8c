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
mod paired;
mod plan;
mod relay;
mod sides;
mod stage;
mod statements;

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
}

impl Sizes {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                tenants: 100,
                rows: 200,
                rounds: 6,
                delayed_rounds: 4,
            },
            Effort::Full => Self {
                tenants: 1_000,
                rows: 1_000,
                rounds: 30,
                delayed_rounds: 10,
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
    stage.strike().await?;
    Ok(report)
}
