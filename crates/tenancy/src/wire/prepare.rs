//! Prepared statements, and the types of their parameters and columns.

use std::sync::Arc;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{Message, ParameterDescriptionBody, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tokio_postgres::types::{Field, FromSql, Kind, Oid, ToSql, Type};

use super::{Error, Piece, Row, Wire};

/// What the type with a number is. All names in full: the session's search path is the tenant's.
const TYPE: &str = "select t.typname::text, n.nspname::text, t.typtype, t.typelem, t.typbasetype
     , t.typrelid, coalesce(r.rngsubtype, 0::oid)
  from pg_catalog.pg_type t
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) t.typnamespace
  left join pg_catalog.pg_range r on r.rngtypid operator(pg_catalog.=) t.oid
 where t.oid operator(pg_catalog.=) $1";

const LABELS: &str = "select e.enumlabel::text from pg_catalog.pg_enum e
 where e.enumtypid operator(pg_catalog.=) $1 order by e.enumsortorder";

const FIELDS: &str = "select a.attname::text, a.atttypid from pg_catalog.pg_attribute a
 where a.attrelid operator(pg_catalog.=) $1
   and not a.attisdropped and a.attnum operator(pg_catalog.>) 0::smallint
 order by a.attnum";

/// How deep a type may be made of others.
const DEPTH: u8 = 8;

/// A statement that PostgreSQL has parsed on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Box<str>,
    params: Box<[Type]>,
    columns: Arc<[Column]>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(super) name: Box<str>,
    pub(super) kind: Type,
}

/// A statement that is run once, and its parameters with their types.
pub(crate) type Once<'a> = (&'a str, &'a [(&'a (dyn ToSql + Sync), Type)]);

/// What the server says of a statement; types by number.
pub(crate) struct Described {
    name: Box<str>,
    params: Vec<Oid>,
    columns: Vec<(Box<str>, Oid)>,
}

impl Prepared {
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn params(&self) -> &[Type] {
        &self.0.params
    }

    pub(crate) fn columns(&self) -> &Arc<[Column]> {
        &self.0.columns
    }
}

impl Wire {
    /// Encodes the parsing of a statement, and says under which name.
    pub(crate) fn parse(&mut self, sql: &str) -> Result<Box<str>, Error> {
        self.names = self.names.wrapping_add(1);
        let name = format!("s{}", self.names).into_boxed_str();
        self.encode_parse(&name, sql, &[])?;
        Ok(name)
    }

    fn encode_parse(&mut self, name: &str, sql: &str, types: &[Type]) -> Result<(), Error> {
        let types = types.iter().map(Type::oid);
        let done = frontend::parse(name, sql, types, &mut self.out)
            .and_then(|()| frontend::describe(b'S', name, &mut self.out));
        // A text with a zero byte, for one.
        done.map_err(|error| {
            self.out.clear();
            Error::Value(error.into())
        })
    }

    /// Prepares a statement.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Error> {
        let name = self.parse(sql)?;
        self.send().await?;
        let described = self.description(name).await;
        let described = self.finish_after(described).await?;
        self.known(described).await
    }

    /// Reads what the server says of a statement that [`Wire::parse`] named.
    pub(crate) async fn description(&mut self, name: Box<str>) -> Result<Described, Error> {
        let Message::ParseComplete = self.next().await? else {
            return Err(Error::unexpected());
        };
        let Message::ParameterDescription(params) = self.next().await? else {
            return Err(Error::unexpected());
        };
        let columns = match self.next().await? {
            Message::RowDescription(columns) => Some(columns),
            Message::NoData => None,
            _ => return Err(Error::unexpected()),
        };
        Described::read(name, &params, columns.as_ref())
    }

    /// Finds out what the types are. Those that came with PostgreSQL are known.
    pub(crate) async fn known(&mut self, described: Described) -> Result<Prepared, Error> {
        let mut params = Vec::with_capacity(described.params.len());
        for oid in described.params {
            params.push(self.kind(oid, DEPTH).await?);
        }
        let mut columns = Vec::with_capacity(described.columns.len());
        for (name, oid) in described.columns {
            let kind = self.kind(oid, DEPTH).await?;
            columns.push(Column { name, kind });
        }
        Ok(Prepared(Arc::new(Inner {
            name: described.name,
            params: params.into(),
            columns: columns.into(),
        })))
    }

    async fn kind(&mut self, oid: Oid, depth: u8) -> Result<Type, Error> {
        match Type::from_oid(oid) {
            Some(kind) => Ok(kind),
            // Boxed, because a type can be made of others.
            None => Box::pin(self.look_up(oid, depth)).await,
        }
    }

    async fn look_up(&mut self, oid: Oid, depth: u8) -> Result<Type, Error> {
        let rows = self.ask(TYPE, oid).await?;
        let (Some(row), Some(depth)) = (rows.first(), depth.checked_sub(1)) else {
            return Err(Error::unexpected());
        };
        let (name, schema): (String, String) = (of(row, 0)?, of(row, 1)?);
        let form: i8 = of(row, 2)?;
        let (element, base): (Oid, Oid) = (of(row, 3)?, of(row, 4)?);
        let (relation, range): (Oid, Oid) = (of(row, 5)?, of(row, 6)?);
        let kind = match u8::try_from(form).unwrap_or(0) {
            b'e' => {
                let labels = self.ask(LABELS, oid).await?;
                Kind::Enum(
                    labels
                        .iter()
                        .map(|row| of(row, 0))
                        .collect::<Result<_, _>>()?,
                )
            }
            b'p' => Kind::Pseudo,
            _ if base != 0 => Kind::Domain(self.kind(base, depth).await?),
            _ if element != 0 => Kind::Array(self.kind(element, depth).await?),
            _ if relation != 0 => Kind::Composite(self.fields(relation, depth).await?),
            _ if range != 0 => Kind::Range(self.kind(range, depth).await?),
            _ => Kind::Simple,
        };
        Ok(Type::new(name, oid, kind, schema))
    }

    async fn fields(&mut self, relation: Oid, depth: u8) -> Result<Vec<Field>, Error> {
        let mut fields = Vec::new();
        for row in self.ask(FIELDS, relation).await? {
            let kind = self.kind(of(&row, 1)?, depth).await?;
            fields.push(Field::new(of(&row, 0)?, kind));
        }
        Ok(fields)
    }

    /// Asks the catalogue about one number.
    async fn ask(&mut self, sql: &str, oid: Oid) -> Result<Vec<Row>, Error> {
        let rows = self.once(&[(sql, &[(&oid, Type::OID)])]).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Runs statements in one flight, and leaves none prepared. Their columns are of types that came
    /// with PostgreSQL.
    pub(crate) async fn once(&mut self, calls: &[Once<'_>]) -> Result<Vec<Vec<Row>>, Error> {
        for (sql, params) in calls {
            let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
            let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
            self.encode_parse("", sql, &types)?;
            self.encode("", &types, &values)?;
        }
        self.send().await?;
        let rows = self.answers_once(calls.len()).await;
        self.finish_after(rows).await
    }

    async fn answers_once(&mut self, count: usize) -> Result<Vec<Vec<Row>>, Error> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let described = self.description(Box::default()).await?;
            let column = |(name, oid)| {
                let kind = Type::from_oid(oid).ok_or_else(Error::unexpected)?;
                Ok(Column { name, kind })
            };
            let columns: Result<Vec<_>, Error> =
                described.columns.into_iter().map(column).collect();
            let columns: Arc<[Column]> = columns?.into();
            let mut rows = Vec::new();
            while let Piece::Row(row) = self.piece(&columns).await? {
                rows.push(row);
            }
            all.push(rows);
        }
        Ok(all)
    }
}

impl Described {
    fn read(
        name: Box<str>,
        params: &ParameterDescriptionBody,
        columns: Option<&RowDescriptionBody>,
    ) -> Result<Self, Error> {
        let columns = columns.map_or(Ok(Vec::new()), |columns| {
            let column = |field: postgres_protocol::message::backend::Field<'_>| {
                Ok((field.name().into(), field.type_oid()))
            };
            columns.fields().map(column).collect()
        });
        Ok(Self {
            name,
            params: params.parameters().collect()?,
            columns: columns?,
        })
    }
}

fn of<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Error> {
    row.try_get(at).map_err(|_known_types| Error::unexpected())
}
