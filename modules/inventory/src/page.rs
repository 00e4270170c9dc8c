//! Lists, a page at a time.
//!
//! A page begins after the last row of the one before it (keyset), so that its cost does not grow
//! with its number and rows that come and go shift nothing. Cursors are opaque to clients.

use serde::Serialize;
use waangu_sdk::{Fault, Row};

use crate::fields::invalid;

const DEFAULT: i64 = 50;
const MAX: i64 = 200;

/// One page.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    /// Where the next page begins, for `after`; null on the last page.
    next: Option<String>,
}

/// How many items were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(i64);

impl Limit {
    /// Checks the parameter `limit`.
    pub(crate) fn new(asked: Option<i64>) -> Result<Self, Fault> {
        match asked.unwrap_or(DEFAULT) {
            limit @ 1..=MAX => Ok(Self(limit)),
            _ => Err(invalid("limit", format!("must be 1 to {MAX}"))),
        }
    }

    /// How many items are shown.
    pub(crate) fn shown(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// How many rows to read: one more than are shown tells whether there is a next page.
    pub(crate) fn rows(self) -> i64 {
        self.0 + 1
    }
}

impl<T> Page<T> {
    /// Makes a page of the rows that were read.
    pub(crate) fn new(
        rows: &[Row],
        limit: Limit,
        item: impl Fn(&Row) -> Result<T, Fault>,
        cursor: impl Fn(&T) -> String,
    ) -> Result<Self, Fault> {
        let shown = limit.shown();
        let items: Vec<T> = rows
            .iter()
            .take(shown)
            .map(item)
            .collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > shown).map(cursor);
        Ok(Self { items, next })
    }
}
