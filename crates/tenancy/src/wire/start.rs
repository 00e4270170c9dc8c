//! From nothing to a connection that is ready.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{BUFFER, Cancel, Error, State, Wire};

/// Whom to connect to, and as whom.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) login: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
    /// Settings of the session, as on the server's command line.
    pub(crate) options: &'a str,
    /// The other side's longest silence while something that was sent is not acknowledged.
    pub(crate) silence: Duration,
}

impl Wire {
    /// Connects. The caller bounds how long that may take.
    pub(crate) async fn start(start: Start<'_>) -> Result<Self, Error> {
        let socket = TcpStream::connect((start.host, start.port)).await?;
        socket.set_nodelay(true)?;
        let silence = start.silence.as_millis();
        let silence = u32::try_from(silence).map_err(io::Error::other)?;
        rustix::net::sockopt::set_tcp_user_timeout(&socket, silence).map_err(io::Error::from)?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(io::Error::from)?;
        let cancel = Cancel {
            server: socket.peer_addr()?,
            process: 0,
            secret: 0,
        };
        let mut wire = Self {
            socket,
            out: BytesMut::new(),
            input: BytesMut::with_capacity(BUFFER),
            cancel,
            state: State::Busy,
            much: false,
            names: 0,
        };
        let hello = [
            ("client_encoding", "UTF8"),
            ("user", start.login),
            ("database", start.database),
            ("application_name", start.login),
            ("options", start.options),
        ];
        frontend::startup_message(hello, &mut wire.out)?;
        wire.say().await?;
        wire.prove(start.password).await?;
        wire.settle().await?;
        Ok(wire)
    }

    /// Sends what was encoded, without a Sync.
    async fn say(&mut self) -> Result<(), Error> {
        self.socket.write_all_buf(&mut self.out).await?;
        Ok(())
    }

    /// Proves the password, or learns that none is needed.
    async fn prove(&mut self, password: &str) -> Result<(), Error> {
        let offered = match self.next().await? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationSasl(body) => body,
            _ => return Err(unsafe_login()),
        };
        if !offers_scram(&offered)? {
            return Err(unsafe_login());
        }
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.out)?;
        self.say().await?;
        let Message::AuthenticationSaslContinue(body) = self.next().await? else {
            return Err(Error::unexpected());
        };
        scram.update(body.data())?;
        frontend::sasl_response(scram.message(), &mut self.out)?;
        self.say().await?;
        let Message::AuthenticationSaslFinal(body) = self.next().await? else {
            return Err(Error::unexpected());
        };
        // The server has to know the password, too.
        scram.finish(body.data())?;
        match self.next().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(Error::unexpected()),
        }
    }

    /// Reads on until the server is ready.
    async fn settle(&mut self) -> Result<(), Error> {
        loop {
            match self.next().await? {
                Message::BackendKeyData(body) => {
                    self.cancel.process = body.process_id();
                    self.cancel.secret = body.secret_key();
                }
                Message::ReadyForQuery(_) => {
                    self.state = State::Quiet;
                    return Ok(());
                }
                _ => return Err(Error::unexpected()),
            }
        }
    }
}

fn offers_scram(offered: &AuthenticationSaslBody) -> io::Result<bool> {
    offered
        .mechanisms()
        .any(|mechanism| Ok(mechanism == SCRAM_SHA_256))
}

fn unsafe_login() -> Error {
    Error::Lost(io::Error::new(
        io::ErrorKind::Unsupported,
        "the server does not offer SCRAM-SHA-256, and a password is given away in no other way",
    ))
}
