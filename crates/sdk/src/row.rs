//! Reading rows without a panic.

use waangu_kernel::{Fault, fault};
use waangu_tenancy::{FromSql, Row};

/// A column's value.
///
/// # Errors
/// `internal` when the row has no such column, or one of another type: a defect of the module.
pub fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, Fault> {
    row.try_get(name).map_err(|error| {
        fault::INTERNAL
            .fault("a row has another shape than the module expects")
            .cause(format!("column `{name}`: {error}"))
    })
}
