//! A module's connection to PostgreSQL, as far as a tenant's transaction needs one.
//!
//! Why not the driver that administers: it ends each message with a Sync of its own and hands every
//! answer from task to task. Here a whole transaction is one piece of writing with one Sync, which
//! PostgreSQL answers with one piece, and whoever asks reads the socket itself.
//!
//! Invariants:
//! - what is between two Syncs fails or succeeds as one: after the first error PostgreSQL skips the
//!   rest ([PostgreSQL documentation, §55.2.4](https://www.postgresql.org/docs/current/protocol-flow.html));
//! - statements go by the extended protocol, one to a message; there is no other way here;
//! - nothing is written before all of it could be encoded;
//! - a connection is [quiet](Wire::is_quiet) only if each answer was read up to the end, and the last
//!   said that no transaction is open; a dropped future leaves it as it is, and it is not used again;
//! - a password never leaves: SCRAM, or a server that asks for none.
//!
//! Left out: TLS and Unix sockets (as yet), COPY FROM STDIN (refused under row-level security), and
//! notices and notifications, which nobody here waits for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio_postgres::types::{IsNull, ToSql, Type};

mod error;
mod prepare;
mod row;
mod start;

pub(crate) use error::Error;
pub(crate) use prepare::{Column, Described, Once, Prepared};
pub use row::{ColumnError, Row, RowIndex};
pub(crate) use start::Start;

/// Room for an ordinary answer.
const BUFFER: usize = 8 * 1024;

/// Buffers that had to hold more are not kept.
const MUCH: usize = 256 * 1024;

/// Longest time given to a request to cancel.
const CANCEL: Duration = Duration::from_secs(2);

/// An open connection.
pub(crate) struct Wire {
    socket: TcpStream,
    out: BytesMut,
    input: BytesMut,
    cancel: Cancel,
    state: State,
    /// Whether a buffer has grown beyond [`MUCH`].
    much: bool,
    names: u32,
}

/// What the server is doing, as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It answers.
    Busy,
    /// It waits; no transaction is open.
    Quiet,
    /// It waits in an open transaction.
    Open,
    /// It waits for the end of a transaction that has failed.
    Failed,
}

/// What cancels the statement in hand, from another connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cancel {
    server: SocketAddr,
    process: i32,
    secret: i32,
}

/// One piece of a statement's answer.
pub(crate) enum Piece {
    /// A row.
    Row(Row),
    /// Bytes of a `COPY … TO STDOUT`.
    Bytes(bytes::Bytes),
    /// The end, and how many rows there were or were touched.
    End(u64),
}

impl Wire {
    /// Whether another transaction can begin here.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state == State::Quiet && self.out.is_empty()
    }

    /// Whether something was encoded and not sent, or an answer not read up to its end.
    pub(crate) fn is_busy(&self) -> bool {
        self.state == State::Busy || !self.out.is_empty()
    }

    /// Whether a transaction is open and has not failed.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the other side has hung up, or said something that nobody has asked for: a server that
    /// shuts down does.
    pub(crate) fn has_ended(&self) -> bool {
        let mut byte = [0];
        let silent = matches!(self.socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !silent || !self.input.is_empty()
    }

    /// What cancels the statement in hand.
    pub(crate) fn cancel(&self) -> Cancel {
        self.cancel
    }

    /// Encodes one execution of a statement; [`Wire::send`] sends it.
    ///
    /// # Errors
    /// [`Error::Value`] when a parameter does not fit; then all that was encoded is forgotten.
    pub(crate) fn run(
        &mut self,
        statement: &Prepared,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        self.encode(statement.name(), statement.params(), params)
    }

    /// Encodes a command that has neither parameters nor rows, with its text: whatever became of the
    /// statements that are prepared here.
    pub(crate) fn command(&mut self, sql: &str) -> Result<(), Error> {
        let parsed = frontend::parse("", sql, None, &mut self.out);
        parsed.map_err(|error| Error::Value(error.into()))?;
        self.encode("", &[], &[])
    }

    fn encode(
        &mut self,
        name: &str,
        types: &[Type],
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        let done = bind(name, types, params, &mut self.out);
        if done.is_err() {
            self.out.clear();
        }
        done
    }

    /// Sends what was encoded, with one Sync. Not before the last answer was read up to its end: from
    /// then on each answer would be taken for the next one's.
    pub(crate) async fn send(&mut self) -> Result<(), Error> {
        if self.state == State::Busy {
            return Err(Error::unexpected());
        }
        frontend::sync(&mut self.out);
        self.state = State::Busy;
        self.much = self.out.len() > MUCH;
        while !self.out.is_empty() {
            // Both, because the server may wait for its answers to be taken before it reads on.
            let both = Interest::READABLE | Interest::WRITABLE;
            match self.socket.try_write(&self.out) {
                Ok(sent) if sent == self.out.len() => self.out.clear(),
                Ok(sent) => self.out.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let ready = self.socket.ready(both).await?;
                    if ready.is_readable() {
                        self.take_what_is_there()?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_what_is_there(&mut self) -> Result<(), Error> {
        match self.socket.try_read_buf(&mut self.input) {
            Ok(0) => Err(Error::ended()),
            Ok(_) => {
                self.much |= self.input.len() > MUCH;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next piece of the answer to a statement that was sent. After an error, and after the last
    /// statement's end, [`Wire::finish`].
    pub(crate) async fn piece(&mut self, columns: &Arc<[Column]>) -> Result<Piece, Error> {
        loop {
            match self.next().await? {
                Message::ParseComplete
                | Message::BindComplete
                | Message::CopyOutResponse(_)
                | Message::CopyDone => {}
                Message::DataRow(body) => return Ok(Piece::Row(Row::new(columns, body)?)),
                Message::CopyData(body) => return Ok(Piece::Bytes(body.into_bytes())),
                Message::CommandComplete(body) => return Ok(Piece::End(touched(body.tag()?))),
                Message::EmptyQueryResponse => return Ok(Piece::End(0)),
                _ => return Err(Error::unexpected()),
            }
        }
    }

    /// Waits until the server has begun with the statement that was sent alone: what is wrong with its
    /// parameters, or with a COPY, is known then.
    pub(crate) async fn begun(&mut self) -> Result<(), Error> {
        match self.next().await? {
            Message::BindComplete => Ok(()),
            _ => Err(Error::unexpected()),
        }
    }

    /// After a refusal nothing else comes but the end.
    pub(crate) async fn unless_refused<T>(&mut self, part: Result<T, Error>) -> Result<T, Error> {
        match part {
            Ok(part) => Ok(part),
            failed => self.finish_after(failed).await,
        }
    }

    /// Reads the rest of what was sent with one Sync. An error that is met here belongs to the end of
    /// a transaction that was not begun by a statement of its own.
    pub(crate) async fn finish(&mut self) -> Result<(), Error> {
        let mut failed = None;
        loop {
            match self.next().await {
                Ok(Message::ReadyForQuery(body)) => {
                    self.state = match body.status() {
                        b'I' => State::Quiet,
                        b'T' => State::Open,
                        _ => State::Failed,
                    };
                    self.slim();
                    return failed.map_or(Ok(()), Err);
                }
                Ok(_) => {}
                Err(error) if error.is_refusal() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// An idle connection does not keep the memory of its largest transaction.
    fn slim(&mut self) {
        if std::mem::take(&mut self.much) && self.input.is_empty() {
            self.out = BytesMut::new();
            self.input = BytesMut::with_capacity(BUFFER);
        }
    }

    /// Reads the rest after a part of the answers, whose first error is the one that counts.
    pub(crate) async fn finish_after<T>(&mut self, part: Result<T, Error>) -> Result<T, Error> {
        match part {
            Ok(done) => self.finish().await.map(|()| done),
            Err(error) => {
                // After anything else nobody knows what is still to come. If the connection ends here,
                // it is not quiet, and the refusal says more.
                if error.is_refusal() {
                    let _ends_as_well = self.finish().await;
                }
                Err(error)
            }
        }
    }

    /// The next message that answers something; a refusal is an error.
    async fn next(&mut self) -> Result<Message, Error> {
        loop {
            match Message::parse(&mut self.input)? {
                None => {
                    if self.socket.read_buf(&mut self.input).await? == 0 {
                        return Err(Error::ended());
                    }
                    self.much |= self.input.len() > MUCH;
                }
                Some(Message::ErrorResponse(body)) => return Err(Error::refusal(&body)),
                Some(
                    Message::NoticeResponse(_)
                    | Message::ParameterStatus(_)
                    | Message::NotificationResponse(_),
                ) => {}
                Some(message) => return Ok(message),
            }
        }
    }
}

impl Drop for Wire {
    /// Says good-bye, so that the server does not think that something broke.
    fn drop(&mut self) {
        if self.state == State::Quiet {
            let mut bye = BytesMut::new();
            frontend::terminate(&mut bye);
            let _unheard = self.socket.try_write(&bye);
        }
    }
}

impl Cancel {
    /// Asks the server to stop the statement in hand, and waits until it has heard.
    pub(crate) async fn request(self) -> io::Result<()> {
        let ask = async {
            let mut socket = TcpStream::connect(self.server).await?;
            let mut out = BytesMut::new();
            frontend::cancel_request(self.process, self.secret, &mut out);
            socket.write_all(&out).await?;
            // The server hangs up when it has passed it on.
            socket.read(&mut [0]).await.map(drop)
        };
        tokio::time::timeout(CANCEL, ask).await?
    }
}

fn bind(
    name: &str,
    types: &[Type],
    params: &[&(dyn ToSql + Sync)],
    out: &mut BytesMut,
) -> Result<(), Error> {
    if params.len() != types.len() {
        let (is, should) = (params.len(), types.len());
        return Err(Error::Value(
            format!("{is} parameters where the statement has {should}").into(),
        ));
    }
    let formats = params
        .iter()
        .zip(types)
        .map(|(param, kind)| format_code(*param, kind));
    let encode = |(param, kind): (&&(dyn ToSql + Sync), &Type), out: &mut BytesMut| {
        Ok(match param.to_sql_checked(kind, out)? {
            IsNull::Yes => postgres_protocol::IsNull::Yes,
            IsNull::No => postgres_protocol::IsNull::No,
        })
    };
    // Answers in the binary form, too.
    let answer = Some(1);
    let values = params.iter().zip(types);
    frontend::bind("", name, formats, values, encode, answer, out)?;
    frontend::execute("", 0, out)?;
    Ok(())
}

fn format_code(param: &(dyn ToSql + Sync), kind: &Type) -> i16 {
    match param.encode_format(kind) {
        tokio_postgres::types::Format::Text => 0,
        tokio_postgres::types::Format::Binary => 1,
    }
}

/// The number at the end of `INSERT 0 1`, `SELECT 50`; a command without one has touched none.
fn touched(tag: &str) -> u64 {
    let last = tag.rsplit(' ').next();
    last.and_then(|number| number.parse().ok()).unwrap_or(0)
}
