//! Rows as COPY takes them in binary (PostgreSQL documentation, COPY, "Binary Format"), put together from
//! values as a query gives them: what a type's send function writes is the same in both.

use std::num::TryFromIntError;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::Error;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// A value as it came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(
        _kind: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }
}

/// What comes before the first row: no flags, no extension.
pub(crate) fn begin(into: &mut BytesMut) {
    into.put_slice(SIGNATURE);
    into.put_i32(0);
    into.put_i32(0);
}

/// One row.
pub(crate) fn add(into: &mut BytesMut, row: &Row) -> Result<(), Error> {
    let large = |error: TryFromIntError| Error::Stream(format!("a row is too large: {error}"));
    into.put_i16(i16::try_from(row.len()).map_err(large)?);
    for column in 0..row.len() {
        match row.try_get::<_, Option<Raw<'_>>>(column)? {
            None => into.put_i32(-1),
            Some(Raw(value)) => {
                into.put_i32(i32::try_from(value.len()).map_err(large)?);
                into.put_slice(value);
            }
        }
    }
    Ok(())
}

/// What comes behind the last one.
pub(crate) fn end(into: &mut BytesMut) {
    into.put_i16(-1);
}
