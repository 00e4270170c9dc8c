//! Onboarding, for who does a lot of it.

use http::Method;

use super::{Client, ClientError, json};
use crate::REPLAYED_HEADER;
use crate::types::{Accepted, CreateTenant, Rehearsed};

/// A tenant that the platform has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onboarded {
    /// The operation when it was over, and the place.
    pub accepted: Accepted,
    /// Whether the same key has been used before: then nothing was done now.
    pub replayed: bool,
}

impl Client {
    /// Onboards a tenant and waits until it is served or given up. The key makes it safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn onboard(&self, wish: &CreateTenant, key: &str) -> Result<Onboarded, ClientError> {
        let request = self
            .request(Method::POST, "/tenants")
            .header("prefer", "wait=10")
            .header("idempotency-key", key)
            .json(wish);
        let response = self.send(request).await?;
        let replayed = response.headers().contains_key(REPLAYED_HEADER);
        let accepted = self.follow(json(response).await?, &|_operation| {}).await?;
        Ok(Onboarded { accepted, replayed })
    }

    /// Makes all checks of [`Client::onboard`] and changes nothing. A parent that is not there yet is
    /// left out of the wish; its country is told instead.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rehearse(
        &self,
        wish: &CreateTenant,
        parent_country: Option<&str>,
    ) -> Result<Rehearsed, ClientError> {
        let mut request = self
            .request(Method::POST, "/tenants")
            .query(&[("dry_run", "true")])
            .json(wish);
        if let Some(country) = parent_country {
            request = request.query(&[("parent_country", country)]);
        }
        json(self.send(request).await?).await
    }
}
