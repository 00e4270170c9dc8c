//! Options of bulk onboarding.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TenantImport {
    /// The file. Its first line names the columns: slug and country, and any of name, parent, profile,
    /// tier, modules (with `;` between them) and plan.
    pub(crate) file: PathBuf,
    /// Check each line as onboarding would, say where its tenant would live, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Check all lines first, and make nobody if one fails.
    #[arg(long)]
    pub(crate) all_or_nothing: bool,
    /// Lines at once.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = parallel)]
    pub(crate) parallel: usize,
}

fn parallel(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=64).contains(number));
    number.ok_or_else(|| "it is 1 to 64".to_owned())
}
