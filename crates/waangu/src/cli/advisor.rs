//! What the advisor is asked.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct AdvisorOptions {
    /// What this tenant uses, beside the bounds of the tiers above its own.
    pub(crate) slug: Option<String>,
    /// Measure all tenants first; otherwise what the last look has found, an hour ago at most.
    #[arg(long)]
    pub(crate) look: bool,
}
