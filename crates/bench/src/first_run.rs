//! The bench `first-run`: what somebody meets on the first day. Start and stop of a whole platform, the
//! memory it takes when nobody uses it, and onboarding of tenants in each isolation model, beside what
//! people do by hand on the same server.
//!
//! Left out: throughput, many tenants, several clients at once. Those are benches of their own.

mod by_hand;
mod onboarding;
mod rounds;
mod starts;

use crate::failure::Failure;
use crate::report::Report;
use crate::{Context, Effort};

/// Arguments of a start without state: the system chooses the port.
const FRESH: &[&str] = &["--demo", "--http-port", "0"];

/// Arguments of a start with state: the port is the one used before.
const AGAIN: &[&str] = &["--demo"];

/// What a fair comparison would also want, and this bench does not give.
const NOT_MEASURED: [&str; 3] = [
    "onboarding on several fresh clusters: all samples are of one platform, run once",
    "CPU seconds and statement totals of each act: on a busy machine compare the load averages",
    "onboarding by several clients at once, and the 1,000th tenant against the first",
];

/// How often each thing is measured.
#[derive(Debug, Clone, Copy)]
struct Counts {
    starts: usize,
    /// In each tier.
    tenants: usize,
}

impl Counts {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                starts: 2,
                tenants: 10,
            },
            Effort::Full => Self {
                starts: 5,
                tenants: 50,
            },
        }
    }
}

/// Measures all of it.
pub(crate) async fn measure(context: &Context) -> Result<Report, Failure> {
    let counts = Counts::of(context.effort);
    let mut report = Report {
        not_measured: NOT_MEASURED.map(str::to_owned).to_vec(),
        ..Report::default()
    };
    starts::measure(context, counts.starts, &mut report).await?;
    onboarding::measure(context, counts.tenants, &mut report).await?;
    Ok(report)
}
