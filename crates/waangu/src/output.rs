//! Results on stdout, as a table for people or JSON for programs; talk on stderr.

use std::io::{ErrorKind, Write as _};

use clap::ValueEnum;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::failure::{Failure, Of as _};

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints a result in the form that was asked for.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    header: &[&str],
    rows: Vec<Vec<String>>,
) -> Result<(), Failure> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(value).of("result")?),
        Format::Table => line(&table(header, rows)),
    }
}

/// A table as text.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header)
        .add_rows(rows);
    table.to_string()
}

/// One line of result. A reader that has heard enough (`| head`) is no failure of ours; a full disk is.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.of("standard output"),
    }
}

/// One line of talk. Nobody may be listening any more; work goes on without.
pub(crate) fn talk(text: &str) {
    let _unheard = writeln!(std::io::stderr(), "{text}");
}
