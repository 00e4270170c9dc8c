//! A row of an answer.

use std::fmt;
use std::io;
use std::sync::Arc;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::DataRowBody;
use tokio_postgres::types::{FromSql, WrongType};

use super::error::Error;
use super::prepare::Column;

/// A row that a statement gave.
///
/// Its columns are found when they are asked for, because most rows are read once, from left to right.
#[derive(Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    body: DataRowBody,
}

/// A column was asked for that is not there, or as something that it is not.
#[derive(Debug)]
pub struct ColumnError {
    column: String,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// What chooses a column: its number, from 0, or its name.
pub trait RowIndex: Copy + fmt::Display + sealed::Find {}

impl RowIndex for usize {}
impl RowIndex for &str {}

mod sealed {
    use super::Row;

    pub trait Find {
        fn find(&self, row: &Row) -> Option<usize>;
    }

    impl Find for usize {
        fn find(&self, row: &Row) -> Option<usize> {
            (*self < row.columns.len()).then_some(*self)
        }
    }

    impl Find for &str {
        fn find(&self, row: &Row) -> Option<usize> {
            let here = |column: &super::Column| *column.name == **self;
            row.columns.iter().position(here)
        }
    }
}

impl Row {
    pub(super) fn new(columns: &Arc<[Column]>, body: DataRowBody) -> Result<Self, Error> {
        if body.ranges().size_hint().0 != columns.len() {
            return Err(Error::unexpected());
        }
        Ok(Self {
            columns: Arc::clone(columns),
            body,
        })
    }

    /// A column's value.
    ///
    /// # Errors
    /// When there is no such column, or its value is of another type, or NULL where none is expected.
    pub fn try_get<'a, I, T>(&'a self, index: I) -> Result<T, ColumnError>
    where
        I: RowIndex,
        T: FromSql<'a>,
    {
        let failed = |cause| ColumnError {
            column: index.to_string(),
            cause,
        };
        let found = index.find(self);
        let (at, column) = found
            .and_then(|at| Some((at, self.columns.get(at)?)))
            .ok_or_else(|| failed("there is no such column".into()))?;
        if !T::accepts(&column.kind) {
            return Err(failed(Box::new(WrongType::new::<T>(column.kind.clone()))));
        }
        let value = self.value(at).map_err(|error| failed(error.into()))?;
        T::from_sql_nullable(&column.kind, value).map_err(failed)
    }

    /// A column's value, for whoever has just written the query: tests.
    ///
    /// # Panics
    /// When [`Row::try_get`] has an error.
    #[expect(clippy::panic, reason = "as the name of its other half says")]
    #[track_caller]
    pub fn get<'a, I, T>(&'a self, index: I) -> T
    where
        I: RowIndex,
        T: FromSql<'a>,
    {
        match self.try_get(index) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    fn value(&self, at: usize) -> io::Result<Option<&[u8]>> {
        let range = self.body.ranges().nth(at)?.flatten();
        Ok(range.and_then(|range| self.body.buffer().get(range)))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.columns.iter().map(|column| &column.name);
        f.write_str("Row")?;
        f.debug_list().entries(names).finish()
    }
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.cause)
    }
}

impl std::error::Error for ColumnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}
