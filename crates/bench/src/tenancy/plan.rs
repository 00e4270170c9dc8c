//! What a transaction does, the same on every side.

use tokio_postgres::types::ToSql;

/// Rows of a range read.
pub(super) const RANGE: i64 = 50;

/// One statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Point,
    Range,
    Insert,
    Update,
}

impl Work {
    pub(super) const ALL: [Self; 4] = [Self::Point, Self::Range, Self::Insert, Self::Update];

    /// Whether it gives rows.
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::Point | Self::Range)
    }

    /// As a module writes it: no statement names a tenant.
    pub(super) fn ours(self) -> &'static str {
        match self {
            Self::Point => "select id, name, amount from item where id = $1",
            Self::Range => "select id, name, amount from item where id >= $1 order by id limit 50",
            Self::Insert => "insert into item (id, name, amount) values ($1, $2, $3)",
            Self::Update => "update item set amount = amount + $2 where id = $1",
        }
    }

    /// The tenant is the first parameter.
    pub(super) fn bare(self) -> &'static str {
        match self {
            Self::Point => "select id, name, amount from item where tenant_id = $1 and id = $2",
            Self::Range => {
                "select id, name, amount from item where tenant_id = $1 and id >= $2 \
                 order by id limit 50"
            }
            Self::Insert => {
                "insert into item (tenant_id, id, name, amount) values ($1, $2, $3, $4)"
            }
            Self::Update => "update item set amount = amount + $3 where tenant_id = $1 and id = $2",
        }
    }

    /// The policy chooses rows; an insert has to say whose row it is.
    pub(super) fn today(self) -> &'static str {
        match self {
            Self::Insert => self.bare(),
            Self::Point | Self::Range | Self::Update => self.ours(),
        }
    }
}

/// A kind of transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) works: &'static [Work],
    /// Least part of the bare throughput that is good enough.
    pub(super) goal: f64,
}

/// The five kinds that are measured.
pub(super) const SHAPES: [Shape; 5] = [
    Shape {
        name: "point read",
        works: &[Work::Point],
        goal: 0.90,
    },
    Shape {
        name: "range read (50 rows)",
        works: &[Work::Range],
        goal: 0.90,
    },
    Shape {
        name: "insert",
        works: &[Work::Insert],
        goal: 0.90,
    },
    Shape {
        name: "update",
        works: &[Work::Update],
        goal: 0.90,
    },
    Shape {
        name: "10 statements",
        works: &[
            Work::Point,
            Work::Range,
            Work::Point,
            Work::Update,
            Work::Point,
            Work::Insert,
            Work::Range,
            Work::Update,
            Work::Point,
            Work::Insert,
        ],
        goal: 0.95,
    },
];

impl Shape {
    /// Whether it only reads.
    pub(super) fn reads(&self) -> bool {
        self.works.iter().all(|work| work.reads())
    }
}

/// One statement with its values.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) work: Work,
    pub(super) id: i64,
    name: &'static str,
    amount: i64,
}

impl Call {
    fn new(work: Work, id: i64) -> Self {
        Self {
            work,
            id,
            name: "made by the bench",
            amount: 1,
        }
    }

    /// Parameters of [`Work::ours`].
    pub(super) fn ours(&self) -> Vec<&(dyn ToSql + Sync)> {
        match self.work {
            Work::Point | Work::Range => vec![&self.id],
            Work::Insert => vec![&self.id, &self.name, &self.amount],
            Work::Update => vec![&self.id, &self.amount],
        }
    }

    /// Parameters of [`Work::bare`].
    pub(super) fn bare<'a>(&'a self, tenant: &'a i64) -> Vec<&'a (dyn ToSql + Sync)> {
        let mut all: Vec<&(dyn ToSql + Sync)> = vec![tenant];
        all.extend(self.ours());
        all
    }

    /// Parameters of [`Work::today`].
    pub(super) fn today<'a>(&'a self, tenant: &'a i64) -> Vec<&'a (dyn ToSql + Sync)> {
        match self.work {
            Work::Insert => self.bare(tenant),
            Work::Point | Work::Range | Work::Update => self.ours(),
        }
    }

    /// Rows that it must give or touch.
    pub(super) fn rows(&self) -> usize {
        match self.work {
            Work::Range => 50,
            Work::Point | Work::Insert | Work::Update => 1,
        }
    }
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) tenant: i64,
    pub(super) calls: Vec<Call>,
}

/// Draws transactions: tenants and rows at random, new ids in order.
#[derive(Debug)]
pub(super) struct Planner {
    state: u64,
    tenants: i64,
    rows: i64,
    next_id: i64,
}

impl Planner {
    pub(super) fn new(tenants: i64, rows: i64, seed: u64) -> Self {
        Self {
            // The state may not be zero, and seeds may lie close together.
            state: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            tenants,
            rows,
            next_id: rows,
        }
    }

    /// So many transactions of a shape.
    pub(super) fn batch(&mut self, shape: &Shape, count: usize) -> Vec<Planned> {
        (0..count)
            .map(|_| Planned {
                tenant: self.below(self.tenants) + 1,
                calls: shape.works.iter().map(|work| self.call(*work)).collect(),
            })
            .collect()
    }

    fn call(&mut self, work: Work) -> Call {
        let id = match work {
            Work::Insert => {
                self.next_id += 1;
                self.next_id
            }
            Work::Point | Work::Update => self.below(self.rows) + 1,
            Work::Range => self.below(self.rows - RANGE) + 1,
        };
        Call::new(work, id)
    }

    /// From 0 to `limit - 1`; xorshift64 (Marsaglia 2003), the same in every run.
    pub(super) fn below(&mut self, limit: i64) -> i64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let drawn = i64::try_from(self.state >> 1).unwrap_or(0);
        drawn % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan outside of the rows that exist would measure misses.
    #[test]
    fn drawn_rows_exist_and_new_ones_do_not() {
        let mut planner = Planner::new(3, 60, 0);
        for planned in planner.batch(&SHAPES[4], 200) {
            assert!((1..=3).contains(&planned.tenant));
            for call in planned.calls {
                match call.work {
                    Work::Range => assert!((1..=11).contains(&call.id)),
                    Work::Insert => assert!(call.id > 60),
                    Work::Point | Work::Update => assert!((1..=60).contains(&call.id)),
                }
            }
        }
    }
}
