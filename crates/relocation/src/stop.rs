//! Work that ends early when it is told to stop.

use tokio_util::sync::CancellationToken;

use crate::Error;

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
