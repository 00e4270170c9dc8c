//! The messages of PostgreSQL's `pgoutput`, protocol version 1 (documentation §55.9).
//!
//! Ours because the crates that have it bring a replication client of their own; nine kinds of
//! message are less than either. Anything unknown is an error, never skipped.

use bytes::{Buf, Bytes};

use crate::Error;

/// One column's value, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Null.
    Null,
    /// Large and unchanged, so not sent.
    Unchanged,
    /// As the type's output function writes it.
    Text(Bytes),
}

/// A table, as the stream names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns, generated ones left out.
    pub columns: Vec<String>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction, all of which follows.
    Begin {
        /// Position of its commit record.
        commit: u64,
        /// Low half of its number.
        xid: u32,
    },
    /// Its end.
    Commit {
        /// Position of its commit record.
        commit: u64,
        /// Position behind it.
        end: u64,
    },
    /// What a number means from here on.
    Relation(u32, Relation),
    /// A row is new.
    Insert(u32, Vec<Value>),
    /// A row has changed; with its old key if that has changed.
    Update(u32, Option<Vec<Value>>, Vec<Value>),
    /// A row has gone; its key.
    Delete(u32, Vec<Value>),
    /// Tables were emptied, whoever's rows they held.
    Truncate,
    /// Something written by `pg_logical_emit_message`.
    Note(String, Bytes),
    /// Says nothing about rows.
    Other,
}

/// Reads one message.
///
/// # Errors
/// `Stream` when it is cut short or unknown.
pub fn decode(mut data: Bytes) -> Result<Message, Error> {
    let data = &mut data;
    Ok(match u8(data)? {
        b'B' => {
            let commit = u64(data)?;
            u64(data)?;
            Message::Begin {
                commit,
                xid: u32(data)?,
            }
        }
        b'C' => {
            u8(data)?;
            Message::Commit {
                commit: u64(data)?,
                end: u64(data)?,
            }
        }
        b'R' => {
            let id = u32(data)?;
            Message::Relation(id, relation(data)?)
        }
        b'I' => {
            let id = u32(data)?;
            u8(data)?;
            Message::Insert(id, tuple(data)?)
        }
        b'U' => {
            let id = u32(data)?;
            let mut kind = u8(data)?;
            let mut old = None;
            if kind != b'N' {
                old = Some(tuple(data)?);
                kind = u8(data)?;
            }
            if kind != b'N' {
                return Err(Error::Stream("an update without its new row".to_owned()));
            }
            Message::Update(id, old, tuple(data)?)
        }
        b'D' => {
            let id = u32(data)?;
            u8(data)?;
            Message::Delete(id, tuple(data)?)
        }
        b'T' => Message::Truncate,
        b'M' => {
            u8(data)?;
            u64(data)?;
            let prefix = text(data)?;
            let length = u32(data)?;
            Message::Note(prefix, take(data, length)?)
        }
        b'O' | b'Y' => Message::Other,
        other => return Err(Error::Stream(format!("unknown message {other}"))),
    })
}

fn relation(data: &mut Bytes) -> Result<Relation, Error> {
    let (schema, table) = (text(data)?, text(data)?);
    u8(data)?;
    let count = u16(data)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        u8(data)?;
        columns.push(text(data)?);
        u64(data)?;
    }
    Ok(Relation {
        schema,
        table,
        columns,
    })
}

fn tuple(data: &mut Bytes) -> Result<Vec<Value>, Error> {
    let count = u16(data)?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match u8(data)? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let length = u32(data)?;
                Value::Text(take(data, length)?)
            }
            other => return Err(Error::Stream(format!("unknown kind of value {other}"))),
        });
    }
    Ok(values)
}

fn take(data: &mut Bytes, length: u32) -> Result<Bytes, Error> {
    let length = usize::try_from(length).map_err(|_too_long| short())?;
    if data.remaining() < length {
        return Err(short());
    }
    Ok(data.split_to(length))
}

fn text(data: &mut Bytes) -> Result<String, Error> {
    let end = data.iter().position(|byte| *byte == 0).ok_or_else(short)?;
    let name = data.split_to(end);
    data.advance(1);
    String::from_utf8(name.to_vec()).map_err(|error| Error::Stream(error.to_string()))
}

fn u8(data: &mut Bytes) -> Result<u8, Error> {
    data.try_get_u8().map_err(|_short| short())
}

fn u16(data: &mut Bytes) -> Result<u16, Error> {
    data.try_get_u16().map_err(|_short| short())
}

fn u32(data: &mut Bytes) -> Result<u32, Error> {
    data.try_get_u32().map_err(|_short| short())
}

fn u64(data: &mut Bytes) -> Result<u64, Error> {
    data.try_get_u64().map_err(|_short| short())
}

fn short() -> Error {
    Error::Stream("a message is cut short".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message read past its end, or half, would become a wrong row.
    #[test]
    fn a_message_cut_anywhere_is_an_error() {
        let mut update = vec![
            b'U', 0, 0, 0, 9, b'K', 0, 1, b't', 0, 0, 0, 1, b'7', b'N', 0, 3,
        ];
        update.extend([b'n', b'u', b't', 0, 0, 0, 2, b'4', b'2']);
        let whole = decode(Bytes::from(update.clone())).expect("a message");
        let text = |text: &'static str| Value::Text(Bytes::from(text));
        let expected = vec![Value::Null, Value::Unchanged, text("42")];
        assert_eq!(whole, Message::Update(9, Some(vec![text("7")]), expected));
        for end in 0..update.len() {
            let cut = Bytes::copy_from_slice(update.get(..end).unwrap_or_default());
            assert!(decode(cut).is_err(), "cut at {end}");
        }
        assert!(decode(Bytes::from_static(b"?")).is_err());
    }
}
