//! The stream of a slot's changes: a replication connection, which tokio-postgres does not offer.
//!
//! The server decodes its log once and sends on, so there is nothing to ask for and no log is read
//! twice. Frames and SCRAM come from `postgres-protocol`; the rest is one command, two kinds of message
//! to us and one from us. The crates that do this bring a TLS stack and a reconnect of their own, which
//! a worker that begins again from the target's note has no use for.
//!
//! Invariant: nothing is confirmed but what the owner of the stream has said is durable.
//! Left out: TLS, as in the other connections to a cell.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use waangu_tenancy::CellAdminConfig;

use crate::Error;
use crate::pgoutput::{Message, decode};
use crate::place::{CONNECT, SETTINGS, SILENCE, quoted};

/// Chunks that may wait to be applied; behind that the server waits.
const WAITING: usize = 16;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// The server may have to wait until what it sends is taken; that we are alive it hears beside, more often
/// than it has to.
const HELD_BACK: &str = "set tcp_user_timeout = 0; set wal_sender_timeout = '20s'";

/// How often the server hears that we are alive.
const SIGN: Duration = Duration::from_secs(5);

/// One thing that the server says.
#[derive(Debug)]
pub(crate) enum Item {
    /// A change, or what belongs to it.
    Message(Message),
    /// All before this position has been sent.
    Position(u64),
}

/// A slot that is being read. Ends with its handle.
#[derive(Debug)]
pub(crate) struct Stream {
    chunks: mpsc::Receiver<Result<Vec<Item>, Error>>,
    durable: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Stream {
    /// Begins to read where the slot stands. `Busy` while somebody else reads it.
    pub(crate) async fn open(
        cell: &CellAdminConfig,
        database: &str,
        slot: &str,
    ) -> Result<Self, Error> {
        let late = |_late| Error::Database("no replication connection in time".to_owned());
        let mut wire = timeout(CONNECT, Wire::connect(cell, database))
            .await
            .map_err(late)??;
        // Commands of replication are known in capitals only, before PostgreSQL 17.
        let start = format!(
            "START_REPLICATION SLOT {0} LOGICAL 0/0 (proto_version '1', publication_names '{0}', messages 'true')",
            quoted(slot)
        );
        timeout(SILENCE, wire.start(&start)).await.map_err(late)??;
        let (send, chunks) = mpsc::channel(WAITING);
        let (durable, confirmed) = watch::channel(0);
        let read = async move {
            if let Err(error) = wire.pump(&send, confirmed).await {
                // Nobody hears it if the owner has gone.
                drop(send.send(Err(error)).await);
            }
        };
        Ok(Self {
            chunks,
            durable,
            task: Handle::current().spawn(read),
        })
    }

    /// Waits for what comes next.
    pub(crate) async fn next(&mut self) -> Result<Vec<Item>, Error> {
        let ended = || Err(Error::Database("the stream of changes ended".to_owned()));
        self.chunks.recv().await.unwrap_or_else(ended)
    }

    /// What has come already.
    pub(crate) fn ready(&mut self) -> Result<Option<Vec<Item>>, Error> {
        self.chunks.try_recv().ok().transpose()
    }

    /// Tells the server that it need not keep what lies before a position.
    pub(crate) fn confirm(&self, position: u64) {
        self.durable
            .send_if_modified(|known| position > std::mem::replace(known, position.max(*known)));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection, as frames.
struct Wire {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    async fn connect(cell: &CellAdminConfig, database: &str) -> Result<Self, Error> {
        let socket = TcpStream::connect((cell.host.as_str(), cell.port)).await?;
        socket.set_nodelay(true)?;
        let mut wire = Self {
            socket,
            input: BytesMut::with_capacity(CHUNK),
            output: BytesMut::new(),
        };
        let parameters = [
            ("user", cell.user.as_str()),
            ("database", database),
            ("replication", "database"),
            ("application_name", "waangu-relocation"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut wire.output)?;
        wire.flush().await?;
        wire.authenticate(cell).await?;
        wire.until(b'Z').await?;
        frontend::query(&format!("{SETTINGS}; {HELD_BACK}"), &mut wire.output)?;
        wire.flush().await?;
        wire.until(b'Z').await?;
        Ok(wire)
    }

    async fn authenticate(&mut self, cell: &CellAdminConfig) -> Result<(), Error> {
        let password = cell.password.as_bytes();
        let mut scram = None;
        loop {
            let mut body = self.until(b'R').await?;
            let kind = body.try_get_i32().map_err(|_short| strange())?;
            match (kind, &mut scram) {
                (0, _) => return Ok(()),
                (3, _) => frontend::password_message(password, &mut self.output)?,
                (5, _) => {
                    let mut salt = [0; 4];
                    body.try_copy_to_slice(&mut salt)
                        .map_err(|_short| strange())?;
                    let hash = md5_hash(cell.user.as_bytes(), password, salt);
                    frontend::password_message(hash.as_bytes(), &mut self.output)?;
                }
                (10, _) => {
                    let binding = sasl::ChannelBinding::unsupported();
                    let exchange = sasl::ScramSha256::new(password, binding);
                    let name = sasl::SCRAM_SHA_256;
                    frontend::sasl_initial_response(name, exchange.message(), &mut self.output)?;
                    scram = Some(exchange);
                }
                (11, Some(exchange)) => {
                    exchange.update(&body)?;
                    frontend::sasl_response(exchange.message(), &mut self.output)?;
                }
                (12, Some(exchange)) => {
                    exchange.finish(&body)?;
                    continue;
                }
                _ => return Err(strange()),
            }
            self.flush().await?;
        }
    }

    async fn start(&mut self, command: &str) -> Result<(), Error> {
        frontend::query(command, &mut self.output)?;
        self.flush().await?;
        self.until(b'W').await.map(drop)
    }

    /// Reads until the server goes away or nobody listens any more.
    async fn pump(
        &mut self,
        chunks: &mpsc::Sender<Result<Vec<Item>, Error>>,
        mut durable: watch::Receiver<u64>,
    ) -> Result<(), Error> {
        let mut sign = interval(SIGN);
        sign.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut waiting, mut told) = (Vec::new(), 0);
        loop {
            let asked = self.items(&mut waiting)?;
            let position = *durable.borrow_and_update();
            if asked || position > told {
                told = position;
                self.report(position).await?;
            }
            tokio::select! {
                place = chunks.reserve(), if !waiting.is_empty() => {
                    let Ok(place) = place else { return Ok(()) };
                    place.send(Ok(std::mem::take(&mut waiting)));
                }
                // Read on only when what was read has found its place: so the server is held back.
                read = self.socket.read_buf(&mut self.input), if waiting.is_empty() => {
                    if read? == 0 {
                        return Err(Error::Database("the server closed the stream".to_owned()));
                    }
                }
                changed = durable.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                _ = sign.tick() => self.report(told).await?,
            }
        }
    }

    /// Takes what has come; whether an answer is asked for.
    fn items(&mut self, found: &mut Vec<Item>) -> Result<bool, Error> {
        let mut asked = false;
        while let Some((tag, mut body)) = self.frame()? {
            match tag {
                b'd' => match body.try_get_u8().map_err(|_short| strange())? {
                    b'w' if body.len() >= 24 => {
                        body.advance(24);
                        found.push(Item::Message(decode(body)?));
                    }
                    b'k' if body.len() >= 17 => {
                        found.push(Item::Position(body.get_u64()));
                        body.advance(8);
                        asked |= body.get_u8() == 1;
                    }
                    _ => return Err(strange()),
                },
                b'E' => return Err(refusal(&body)),
                b'N' | b'S' => {}
                _ => return Err(strange()),
            }
        }
        self.input.reserve(CHUNK);
        Ok(asked)
    }

    /// A standby's status: written, flushed and applied to there.
    async fn report(&mut self, position: u64) -> Result<(), Error> {
        let mut body = BytesMut::new();
        body.put_u8(b'r');
        body.put_u64(position);
        body.put_u64(position);
        body.put_u64(position);
        // The clock is for display only.
        body.put_u64(0);
        body.put_u8(0);
        frontend::CopyData::new(body.freeze())?.write(&mut self.output);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let bytes = self.output.split().freeze();
        let late = |_late| Error::Database("the server takes nothing".to_owned());
        let sent = timeout(SILENCE, self.socket.write_all(&bytes)).await;
        Ok(sent.map_err(late)??)
    }

    /// The next frame of a kind; what is said in between does not matter, unless it is a refusal.
    async fn until(&mut self, wanted: u8) -> Result<Bytes, Error> {
        loop {
            while let Some((tag, body)) = self.frame()? {
                match tag {
                    b'E' => return Err(refusal(&body)),
                    _ if tag == wanted => return Ok(body),
                    _ => {}
                }
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(Error::Database("the server hung up".to_owned()));
            }
        }
    }

    /// A whole frame, if there is one.
    fn frame(&mut self) -> Result<Option<(u8, Bytes)>, Error> {
        let mut head = self.input.as_ref();
        let (Ok(tag), Ok(length)) = (head.try_get_u8(), head.try_get_u32()) else {
            return Ok(None);
        };
        let body = length.checked_sub(4).ok_or_else(strange)?;
        let body = usize::try_from(body).map_err(|_too_long| strange())?;
        if head.len() < body {
            self.input.reserve(body + 5);
            return Ok(None);
        }
        self.input.advance(5);
        Ok(Some((tag, self.input.split_to(body).freeze())))
    }
}

fn strange() -> Error {
    Error::Stream("the server says something that is not understood".to_owned())
}

/// What an error response says: fields of one letter and a text each, up to an empty one.
fn refusal(body: &Bytes) -> Error {
    let (mut code, mut text) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', rest)) => code = String::from_utf8_lossy(rest).into_owned(),
            Some((b'M', rest)) => text = String::from_utf8_lossy(rest).into_owned(),
            _ => {}
        }
    }
    if code == "55006" {
        return Error::Busy;
    }
    Error::Database(format!("{text} [{code}]"))
}
