//! Moving tenants.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TenantMove {
    /// The tenant.
    pub(crate) slug: String,
    /// The isolation model: shared, schema or dedicated (default: the one it has).
    #[arg(long, value_name = "TIER")]
    pub(crate) to: Option<String>,
    /// The cell (default: its own, if that may keep it, else as for a new tenant).
    #[arg(long, conflicts_with = "region")]
    pub(crate) cell: Option<String>,
    /// The region in which a cell is chosen.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Back to where the last move came from, while its rows there are kept. The rows are copied anew.
    #[arg(long, conflicts_with_all = ["to", "cell", "region"])]
    pub(crate) back: bool,
    /// Only say what would be done, with all checks and an estimate.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Longest time that writers wait at a stretch, such as 500ms or 1s.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = milliseconds)]
    pub(crate) max_pause: i32,
    /// Copy no more than so many MB in a second.
    #[arg(long, value_name = "MB/s", value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub(crate) rate: Option<i64>,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Option<String>,
    /// Don't wait for the end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Makes a repeated call safe.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

fn milliseconds(text: &str) -> Result<i32, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or("say 500ms or 1s")?, 1000),
    };
    let number: i32 = number.parse().map_err(|_no_number| "say 500ms or 1s")?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pause taken for a thousand times what was meant would keep people waiting.
    #[test]
    fn pauses_have_a_unit() {
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("2s"), Ok(2000));
        for wrong in ["500", "ms", "", "1m", "99999999s"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
    }
}
