//! Bodies on their way: counted, timed, and bound to the permits of their request.
//!
//! Invariants: a request body stops at its limit, whatever length was announced; what is kept of one to
//! be sent again is bounded, and gone with the request; a body that pauses too long ends its request; trailers are dropped in both directions, because a receiver that merges
//! them would take headers nobody checked; permits return when the answer's body ends or is dropped.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use waangu_kernel::{Fault, fault};

use crate::wire::Running;

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// It has more bytes than allowed.
    #[error("the body is longer than allowed")]
    TooLarge,
    /// It paused too long.
    #[error("the body paused too long")]
    Stalled,
    /// Its sender went away or broke the framing.
    #[error("the body ended in the middle")]
    Torn,
}

impl Broken {
    /// What a client is told about its request body.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::TooLarge => fault::BODY_TOO_LARGE.fault("the body exceeds this address's limit"),
            Self::Stalled => fault::MALFORMED_REQUEST.fault("the body did not arrive in time"),
            Self::Torn => fault::MALFORMED_REQUEST.fault("the body ended in the middle"),
        }
    }
}

/// A timer that starts anew at each piece of a body.
struct Idle {
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None }
    }

    fn rest(&mut self) {
        self.timer = None;
    }

    /// Ready when the pause has been too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx)
    }
}

/// The next piece of data; trailers count as the end.
fn poll_data(
    body: &mut Incoming,
    idle: &mut Idle,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, Broken>>> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(frame) => {
            idle.rest();
            Poll::Ready(match frame {
                Some(Ok(frame)) => frame.into_data().ok().map(Ok),
                Some(Err(_torn)) => Some(Err(Broken::Torn)),
                None => None,
            })
        }
        Poll::Pending => {
            ready!(idle.poll(cx));
            Poll::Ready(Some(Err(Broken::Stalled)))
        }
    }
}

struct Upload {
    body: Incoming,
    /// What the body announced.
    hint: SizeHint,
    left: u64,
    idle: Idle,
    touched: bool,
    broken: Option<Broken>,
    /// What was read, while it is little enough to be sent once more.
    kept: Option<Vec<Bytes>>,
    room: usize,
}

/// A request's body. A clone of what nobody reads begins at the beginning: so it may be sent by another
/// attempt, while all that was read is kept.
#[derive(Clone)]
pub(crate) struct Outbound {
    upload: Arc<Mutex<Upload>>,
    /// How many of the pieces this reader has had.
    at: usize,
}

impl Outbound {
    /// Bounds a body; refuses one that announces too much. Up to `keep` bytes are kept.
    pub(crate) fn new(
        body: Incoming,
        limit: u64,
        idle: Duration,
        keep: usize,
    ) -> Result<Self, Fault> {
        let hint = body.size_hint();
        if hint.lower() > limit {
            return Err(Broken::TooLarge.fault());
        }
        let upload = Upload {
            body,
            hint,
            left: limit,
            idle: Idle::new(Some(idle)),
            touched: false,
            broken: None,
            kept: Some(Vec::new()),
            room: keep,
        };
        Ok(Self {
            upload: Arc::new(Mutex::new(upload)),
            at: 0,
        })
    }

    /// Whether all of it can be sent once more.
    pub(crate) fn is_kept(&self) -> bool {
        let upload = self.upload();
        upload.kept.is_some() && upload.broken.is_none()
    }

    /// Whether no attempt has begun to read it.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.upload().touched
    }

    /// What went wrong with it.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.upload().broken
    }

    fn upload(&self) -> MutexGuard<'_, Upload> {
        self.upload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { upload, at } = self.get_mut();
        let mut guard = upload.lock().unwrap_or_else(PoisonError::into_inner);
        let Upload {
            body,
            left,
            idle,
            touched,
            broken,
            kept,
            room,
            ..
        } = &mut *guard;
        *touched = true;
        if let Some(piece) = kept.as_ref().and_then(|kept| kept.get(*at)) {
            *at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = ready!(poll_data(body, idle, cx)).map(|piece| {
            piece.and_then(|data| {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                *left = left.checked_sub(length).ok_or(Broken::TooLarge)?;
                Ok(data)
            })
        });
        match &polled {
            Some(Ok(data)) => {
                *at += 1;
                keep(kept, room, data);
            }
            Some(Err(why)) => *broken = Some(*why),
            None => {}
        }
        Poll::Ready(polled.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let upload = self.upload();
        let more = upload
            .kept
            .as_ref()
            .is_some_and(|kept| self.at < kept.len());
        !more && upload.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let upload = self.upload();
        if self.at == 0 {
            upload.hint
        } else {
            upload.body.size_hint()
        }
    }
}

/// Keeps a piece, or forgets all when it is too much.
fn keep(kept: &mut Option<Vec<Bytes>>, room: &mut usize, data: &Bytes) {
    match room.checked_sub(data.len()) {
        Some(rest) => {
            *room = rest;
            if let Some(kept) = kept {
                kept.push(data.clone());
            }
        }
        None => *kept = None,
    }
}

/// What a request holds until its answer has ended.
#[derive(Debug)]
pub(crate) struct Held {
    _running: Running,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Held {
    /// Its place among its connection's requests, and its places in the gateway's and the tenant's
    /// shares.
    pub(crate) fn new(running: Running, permits: Vec<OwnedSemaphorePermit>) -> Self {
        Self {
            _running: running,
            _permits: permits,
        }
    }
}

/// An upstream's answer.
pub(crate) struct Relay {
    body: Incoming,
    idle: Idle,
    _held: Held,
}

impl Relay {
    pub(crate) fn new(body: Incoming, idle: Option<Duration>, held: Held) -> Self {
        Self {
            body,
            idle: Idle::new(idle),
            _held: held,
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay")
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { body, idle, .. } = self.get_mut();
        poll_data(body, idle, cx).map(|piece| piece.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
