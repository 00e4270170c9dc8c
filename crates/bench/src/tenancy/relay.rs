//! A slow network: a TCP relay on loopback that hands on each piece of data a fixed time after it
//! came, in both directions. Several pieces may be on their way at once, as on a real line.
//!
//! Invariant: threads of its own, because the timers of the runtime know only whole milliseconds.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Failure, Of as _};

/// A relay that works until it is dropped; its connections end when one of their ends does.
#[derive(Debug)]
pub(super) struct Relay {
    port: u16,
    stop: Arc<AtomicBool>,
}

type Piece = (Instant, Vec<u8>);

impl Relay {
    /// Relays to a port on loopback with this delay in each direction.
    pub(super) fn start(to: u16, delay: Duration) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).of("relay")?;
        let port = listener.local_addr().of("relay")?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for near in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever connects notices when it does not work.
                drop(near.and_then(|near| join(&near, to, delay)));
            }
        });
        Ok(Self { port, stop })
    }

    /// The port on loopback.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener up, so that it sees the end.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn join(near: &TcpStream, to: u16, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
    for (from, to) in [(near, &far), (&far, near)] {
        to.set_nodelay(true)?;
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (sender, receiver) = channel();
        thread::spawn(move || take(from, &sender, delay));
        thread::spawn(move || give(to, &receiver));
    }
    Ok(())
}

/// Reads; each piece is due after the delay.
fn take(mut from: TcpStream, sender: &Sender<Piece>, delay: Duration) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        let piece = buffer.get(..length).unwrap_or_default().to_vec();
        if length == 0 || sender.send((Instant::now() + delay, piece)).is_err() {
            return;
        }
    }
}

/// Writes each piece when it is due, and passes on the end.
fn give(mut to: TcpStream, receiver: &Receiver<Piece>) {
    for (due, piece) in receiver {
        wait_until(due);
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // The other side may have gone before.
    let _already_gone = to.shutdown(Shutdown::Both);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, which has nothing else to do"
)]
fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than what a busy machine adds now and then.
    const DELAY: Duration = Duration::from_millis(50);

    /// A relay without delay, or one that holds pieces back until the one before has arrived, would
    /// make the comparison worthless. A busy machine makes any echo late, but not every one of ten; a
    /// relay that holds pieces back takes six delays each time.
    #[test]
    fn an_echo_takes_two_delays_and_pieces_travel_together() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut peer, _) = server.accept().unwrap();
            let mut echo = peer.try_clone().unwrap();
            io::copy(&mut peer, &mut echo).unwrap();
        });
        let relay = Relay::start(port, DELAY).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        // Or the second piece waits for the first one's acknowledgement, which may take 40 ms.
        client.set_nodelay(true).unwrap();
        let echoes: Vec<Duration> = (0..10).map(|_| echo(&mut client)).collect();
        assert!(echoes.iter().all(|took| *took >= 2 * DELAY), "{echoes:?}");
        assert!(echoes.iter().any(|took| *took < 4 * DELAY), "{echoes:?}");
    }

    /// Sends three pieces and waits until all are back.
    fn echo(client: &mut TcpStream) -> Duration {
        let began = Instant::now();
        for byte in [b"a", b"b", b"c"] {
            client.write_all(byte).unwrap();
        }
        let mut answer = [0; 3];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"abc");
        began.elapsed()
    }
}
