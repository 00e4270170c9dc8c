//! What somebody with too much right and too little time does to a database.

mod platform;
mod tables;

/// One statement, and the drift that it makes.
pub(super) struct Break {
    pub(super) sql: &'static str,
    pub(super) object: &'static str,
    /// A part of what is reported.
    pub(super) found: &'static str,
    /// How many findings it makes.
    pub(super) count: usize,
}

const fn breaks(sql: &'static str, object: &'static str, found: &'static str) -> Break {
    several(1, sql, object, found)
}

const fn several(
    count: usize,
    sql: &'static str,
    object: &'static str,
    found: &'static str,
) -> Break {
    Break {
        sql,
        object,
        found,
        count,
    }
}

const PRODUCT: &str = "table stock.product";
const MOVEMENT: &str = "append-only table stock.movement";
const STOCK: &str = "schema stock";
const LOGIN: &str = "login waangu_stock";

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Break> {
    [tables::BREAKS, platform::BREAKS].into_iter().flatten()
}
