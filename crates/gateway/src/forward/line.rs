//! The connection to an upstream.
//!
//! Invariant: an upstream that answers and closes before it has read the whole request is heard. Our
//! next write then fails, and hyper 1.12 gives up on a failed write without reading what has already
//! arrived; so after such a failure the rest is written to nowhere (it is bounded by the body limit)
//! and the reading side decides.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TokioIo<TcpStream>,
    /// Whether the upstream takes nothing more.
    deaf: bool,
}

impl Line {
    pub(super) fn new(stream: TokioIo<TcpStream>) -> Self {
        Self {
            stream,
            deaf: false,
        }
    }

    /// Turns the end of the upstream's patience into success.
    fn forgive<T>(&mut self, polled: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected
                ) =>
            {
                self.deaf = true;
                Poll::Ready(Ok(whole))
            }
            polled => polled,
        }
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.forgive(polled, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(whole));
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.forgive(polled, whole)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.forgive(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.forgive(polled, ())
    }
}
