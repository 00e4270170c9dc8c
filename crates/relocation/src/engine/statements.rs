//! The statements that change many rows of the target at once, and their parameters: one array for each
//! column, as text, because that is what every type's input function takes.

use std::error::Error as StdError;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use crate::Error;
use crate::place::quoted;
use crate::table::{Table, list};

/// Rows, column by column.
pub(super) struct Columns {
    pub(super) texts: Vec<Texts>,
    pub(super) count: usize,
    pub(super) bytes: usize,
}

pub(super) fn across<T>(
    rows: impl IntoIterator<Item = Vec<T>>,
    width: usize,
    text: impl Fn(T) -> Option<Bytes>,
) -> Columns {
    let mut columns: Vec<Texts> = (0..width).map(|_| Texts(Vec::new())).collect();
    let (mut count, mut bytes) = (0, 0);
    for row in rows {
        count += 1;
        for (column, value) in columns.iter_mut().zip(row) {
            let value = text(value);
            bytes += value.as_ref().map_or(0, Bytes::len);
            column.0.push(value);
        }
    }
    Columns {
        texts: columns,
        count,
        bytes,
    }
}

pub(super) fn delete_sql(table: &Table) -> String {
    let (from, matching) = (unnested(table.key.len()), matching(table));
    format!(
        "delete from {} t using {from} where {matching}",
        table.target
    )
}

pub(super) fn update_sql(
    table: &Table,
    columns: &[String],
    places: &[usize],
) -> Result<String, Error> {
    let mut sets = Vec::new();
    for (place, index) in places.iter().zip(table.key.len()..) {
        let short = || Error::Stream("a row is wider than its table".to_owned());
        let column = columns.get(*place).ok_or_else(short)?;
        let kind = table.type_of(column);
        sets.push(format!("{} = u.c{index}::{kind}", quoted(column)));
    }
    let from = unnested(table.key.len() + places.len());
    Ok(format!(
        "update {} t set {} from {from} where {}",
        table.target,
        sets.join(", "),
        matching(table)
    ))
}

pub(super) fn insert_sql(table: &Table, columns: &[String]) -> String {
    let kinds = columns.iter().enumerate();
    let values: Vec<String> = kinds
        .map(|(index, column)| format!("u.c{index}::{}", table.type_of(column)))
        .collect();
    format!(
        "insert into {} ({}) select {} from {}",
        table.target,
        list(columns.iter()),
        values.join(", "),
        unnested(columns.len())
    )
}

/// The parameters as rows of text. As text, because it is what every type's input function takes.
fn unnested(width: usize) -> String {
    let params: Vec<String> = (1..=width).map(|n| format!("${n}::text[]")).collect();
    let names: Vec<String> = (0..width).map(|n| format!("c{n}")).collect();
    format!("unnest({}) as u ({})", params.join(", "), names.join(", "))
}

/// `t.key = u.c0 and …`.
fn matching(table: &Table) -> String {
    let parts = table.key.iter().enumerate();
    let parts: Vec<String> = parts
        .map(|(index, column)| {
            let kind = table.type_of(column);
            format!("t.{} = u.c{index}::{kind}", quoted(column))
        })
        .collect();
    parts.join(" and ")
}

/// `text[]`, in PostgreSQL's binary form, without looking at what the texts are.
#[derive(Debug)]
pub(super) struct Texts(Vec<Option<Bytes>>);

impl ToSql for Texts {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        // One dimension, nulls possible, the element's type, how many, counted from one.
        out.put_i32(1);
        out.put_i32(1);
        out.put_u32(Type::TEXT.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for text in &self.0 {
            let Some(text) = text else {
                out.put_i32(-1);
                continue;
            };
            out.put_i32(i32::try_from(text.len())?);
            out.extend_from_slice(text);
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT_ARRAY
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    tokio_postgres::types::to_sql_checked!();
}
