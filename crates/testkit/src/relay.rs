//! A way to a server that can be cut: connections are reset, or nothing comes through any more and nobody
//! says so.
//!
//! What was on its way when the way was cut does not come back with it: connections from before are reset
//! when it is open again, as a peer does that has forgotten them.

use std::net::Ipv4Addr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives.
    Open,
    /// Every connection is reset, new ones too.
    Cut,
    /// Nothing arrives, not even the end of a connection; who connects is let in, and hears nothing.
    Silent,
}

/// A relay on loopback, until it is dropped: then its connections are reset.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    way: watch::Sender<Way>,
    accepting: AbortHandle,
}

impl Relay {
    /// Relays to a port on 127.0.0.1.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port for a relay");
        let port = listener.local_addr().expect("the relay's port").port();
        let (way, watched) = watch::channel(Way::Open);
        let accept = async move {
            while let Ok((near, _)) = listener.accept().await {
                drop(Handle::current().spawn(relay(near, to, watched.clone())));
            }
        };
        Self {
            port,
            way,
            accepting: Handle::current().spawn(accept).abort_handle(),
        }
    }

    /// The port on 127.0.0.1 that leads to the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens or cuts the way.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection's life.
async fn relay(mut near: TcpStream, to: u16, mut way: watch::Receiver<Way>) {
    let now = *way.borrow_and_update();
    if now == Way::Open
        && let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await
    {
        let _slow_is_slow = (near.set_nodelay(true), far.set_nodelay(true));
        tokio::select! {
            // Whoever ended it, both ends know.
            _ended = copy_bidirectional(&mut near, &mut far) => return,
            changed = way.changed() => {
                silence(changed.is_ok(), &mut way).await;
                reset(&far);
            }
        }
    } else if now == Way::Silent {
        silence(true, &mut way).await;
    }
    reset(&near);
}

/// Nothing happens as long as the way is silent; a relay that is gone is cut.
async fn silence(mut lives: bool, way: &mut watch::Receiver<Way>) {
    while lives && *way.borrow_and_update() == Way::Silent {
        lives = way.changed().await.is_ok();
    }
}

/// The peer hears that its connection is no more. If that fails, it is told of an end in order.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    /// A relay that lets something through, or tells somebody, would make tests of cuts worthless.
    #[tokio::test]
    async fn a_cut_is_heard_and_silence_is_not() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = server.local_addr().unwrap().port();
        drop(Handle::current().spawn(async move {
            while let Ok((mut peer, _)) = server.accept().await {
                drop(Handle::current().spawn(async move {
                    let (mut from, mut to) = peer.split();
                    tokio::io::copy(&mut from, &mut to).await
                }));
            }
        }));
        let relay = Relay::start(to).await;
        let open = async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port()))
                .await
                .unwrap()
        };
        let echo = async |client: &mut TcpStream| {
            client.write_all(b"a").await?;
            client.read_u8().await
        };
        let mut one = open().await;
        assert_eq!(echo(&mut one).await.unwrap(), b'a');
        relay.set(Way::Silent);
        let mut two = open().await;
        for client in [&mut one, &mut two] {
            let heard = timeout(Duration::from_millis(200), echo(client)).await;
            assert!(heard.is_err(), "{heard:?}");
        }
        relay.set(Way::Open);
        for client in [&mut one, &mut two] {
            assert!(echo(client).await.is_err(), "forgotten");
        }
        let mut three = open().await;
        assert_eq!(echo(&mut three).await.unwrap(), b'a');
        relay.set(Way::Cut);
        assert_eq!(
            three.read_u8().await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert!(echo(&mut open().await).await.is_err());
    }
}
