//! The connection as bytes: what only the raw stream shows.
//!
//! Invariants:
//! - a head with `Content-Length` beside `Transfer-Encoding` marks its connection before hyper has
//!   parsed it. hyper 1.12 takes the `Content-Length` out of such a request, reads it as chunked and
//!   closes the connection afterwards (RFC 9112 §6.1 allows that), so no service behind it can
//!   notice; the edge refuses every request of a marked connection;
//! - a client that doesn't take what was sent for [`Limits::write_stall`] loses the connection.
//!
//! Left out: HTTP/2, whose frames carry their own lengths.
//!
//! [`Limits::write_stall`]: crate::Limits::write_stall

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

mod framing;

use framing::Framing;

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The client's address.
    pub(crate) ip: IpAddr,
    ambiguous: AtomicBool,
    begun: AtomicU64,
    running: AtomicUsize,
}

impl Peer {
    pub(crate) fn new(ip: IpAddr) -> Self {
        Self {
            // An IPv4 client of a dual-stack socket is an IPv4 client.
            ip: ip.to_canonical(),
            ambiguous: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            running: AtomicUsize::new(0),
        }
    }

    /// Whether a head on this connection could be read in two ways.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Acquire)
    }

    /// Counts a request as running until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// How many requests have begun, unless some are running: two equal answers mean an idle time.
    pub(crate) fn idle_mark(&self) -> Option<u64> {
        (self.running.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed))
    }
}

/// A request of a connection that is being answered.
#[derive(Debug)]
pub(crate) struct Running(Arc<Peer>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client connection.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    peer: Arc<Peer>,
    /// `None` for HTTP/2.
    framing: Option<Framing>,
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// What is spoken on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S, peer: Arc<Peer>, protocol: Protocol, stall: Duration) -> Self {
        Self {
            stream,
            peer,
            framing: (protocol == Protocol::Http1).then(Framing::default),
            stall,
            stalled: None,
        }
    }

    /// Passes progress on, and turns a long lack of it into an error.
    fn progress<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take what was sent",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let (Some(framing), Some(fresh)) = (&mut this.framing, buf.filled().get(before..)) {
            framing.feed(fresh);
            if framing.is_ambiguous() {
                this.peer.ambiguous.store(true, Ordering::Release);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.progress(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.progress(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.progress(polled, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.progress(polled, cx)
    }
}
