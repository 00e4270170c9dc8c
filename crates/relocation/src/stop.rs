//! Work that ends early when it is told to stop.

use tokio::runtime::Handle;
use tokio_postgres::{CancelToken, Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Sessions whose queries end when this is dropped, unless they were done: a server would go on with a
/// query that nobody hears, and keep its snapshot.
pub(crate) struct AtWork(Vec<CancelToken>);

impl AtWork {
    pub(crate) fn new<'a>(sessions: impl IntoIterator<Item = &'a Client>) -> Self {
        Self(sessions.into_iter().map(Client::cancel_token).collect())
    }

    pub(crate) fn is_done(&mut self) {
        self.0.clear();
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        for token in self.0.drain(..) {
            let cancel = async move { token.cancel_query(NoTls).await };
            drop(Handle::current().spawn(cancel));
        }
    }
}

/// The outcome of `work`, or `Cancelled` as soon as the token says so: then `work` is dropped.
pub(crate) async fn unless<T>(
    token: &CancellationToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = token.cancelled() => Err(Error::Cancelled),
        done = work => done,
    }
}
