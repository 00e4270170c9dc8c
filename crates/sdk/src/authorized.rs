//! Authority as an extractor: a handler without [`Authorized`] has no way to any data.

use std::marker::PhantomData;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::time::{Instant, sleep};
use waangu_identity::RequestContext;
use waangu_identity::context::CONTEXT_HEADER;
use waangu_kernel::{Fault, Permission, Slug, UserId, fault};
use waangu_tenancy::TenantTx;

use crate::Host;
use crate::json::Refusal;

/// Longest wait for a tenant that is frozen for a moment (a relocation's pause is far shorter).
const MOVING_PATIENCE: Duration = Duration::from_secs(5);

/// A permission as a type. Declare one with [`permissions!`](crate::permissions).
pub trait Permit: Send + Sync + 'static {
    /// The permission's name, `module:object.action`, as in the manifest.
    const PERMISSION: &'static str;
}

/// Declares permissions as types.
///
/// ```
/// waangu_sdk::permissions! {
///     /// See products.
///     ProductRead = "inventory:product.read";
/// }
/// # use waangu_sdk::Permit;
/// assert_eq!(ProductRead::PERMISSION, "inventory:product.read");
/// ```
#[macro_export]
macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::Permit for $name {
                const PERMISSION: &'static str = $text;
            }
        )+
    };
}

/// Proof that the caller may do `P` in exactly one tenant.
#[derive(Debug)]
pub struct Authorized<P> {
    host: Host,
    context: RequestContext,
    permit: PhantomData<P>,
}

impl<P: Permit> Authorized<P> {
    /// Begins a transaction of the tenant. While the tenant is frozen for a moment, it waits here.
    ///
    /// # Errors
    /// `tenant-moving` when the wait was in vain; `database-unavailable`; `context-refused`.
    pub async fn begin(&self) -> Result<TenantTx, Fault> {
        let patience = Instant::now() + MOVING_PATIENCE;
        let mut pause = Duration::from_millis(10);
        loop {
            match TenantTx::begin(&self.host.pools, &self.context).await {
                Err(fault) if fault.code() == fault::TENANT_MOVING.code => {
                    if Instant::now() + pause > patience {
                        return Err(fault);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                other => return other,
            }
        }
    }

    /// Who acts.
    pub fn actor(&self) -> UserId {
        self.context.actor
    }

    /// The tenant's slug, for messages.
    pub fn tenant(&self) -> &Slug {
        &self.context.slug
    }

    /// Whether the caller also holds another permission of this module.
    pub fn may<Q: Permit>(&self) -> bool {
        holds(&self.context.permissions, Q::PERMISSION)
    }
}

impl<P: Permit> FromRequestParts<Host> for Authorized<P> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refusal> {
        let context = context_of(parts, host)?;
        if !holds(&context.permissions, P::PERMISSION) {
            return Err(fault::PERMISSION_DENIED
                .fault(format!("permission `{}` is needed", P::PERMISSION))
                .into());
        }
        Ok(Self {
            host: host.clone(),
            context,
            permit: PhantomData,
        })
    }
}

fn context_of(parts: &Parts, host: &Host) -> Result<RequestContext, Fault> {
    let mut headers = parts.headers.get_all(CONTEXT_HEADER).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(fault::CONTEXT_REFUSED.fault("the request did not come through the gateway"));
    };
    let jws = header.to_str().map_err(|error| refused(&error))?;
    host.verifier
        .verify(jws, host.clock.unix_seconds())
        .map_err(|rejection| refused(&rejection))
}

fn refused(cause: &dyn std::fmt::Display) -> Fault {
    fault::CONTEXT_REFUSED
        .fault("the request's context is not valid")
        .cause(cause)
}

fn holds(permissions: &[Permission], wanted: &str) -> bool {
    permissions
        .iter()
        .any(|permission| permission.as_str() == wanted)
}
