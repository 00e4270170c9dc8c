//! Server-sent events of a view: one whenever it has changed.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use waangu_kernel::Fault;

/// Sends `first`, and then what `look` sees whenever that differs, as events of this name, with `pause`
/// between two looks. The stream ends after a view that `is_last`, and with a look that fails: a client
/// that asks again is told why.
pub(super) fn watch<T, L, F>(
    name: &'static str,
    pause: Duration,
    first: T,
    look: L,
    is_last: fn(&T) -> bool,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<T, L, F>>
where
    T: Serialize + PartialEq + Send + 'static,
    L: Fn() -> F + Send + 'static,
    F: Future<Output = Result<T, Fault>> + Send,
{
    let event = move |view: &T| Event::default().event(name).json_data(view);
    let start = stream::once(future::ready(event(&first)));
    let rest = stream::unfold((look, first), move |(look, last)| async move {
        if is_last(&last) {
            return None;
        }
        loop {
            tokio::time::sleep(pause).await;
            let view = look().await.ok()?;
            if last != view {
                return Some((event(&view), (look, view)));
            }
        }
    });
    let events = start.chain(rest).map(|event| Ok(event.unwrap_or_default()));
    Sse::new(events).keep_alive(KeepAlive::default())
}
