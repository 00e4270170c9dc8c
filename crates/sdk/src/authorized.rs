//! Authority as an extractor: a handler without [`Authorized`] has no way to any data.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::time::Instant;
use waangu_identity::RequestContext;
use waangu_identity::context::CONTEXT_HEADER;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, Permission, Slug, UserId, fault};
use waangu_tenancy::{Spent, TenantTx};

use crate::json::Refusal;
use crate::{Flags, Host, spent};

/// Time that a request has; the gateway waits as long for an answer to begin.
const REQUEST_TIME: Duration = Duration::from_secs(30);

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
    deadline: Instant,
    spent: Spent,
    /// How many of its transactions have begun, or may have.
    begun: Arc<AtomicU32>,
    permit: PhantomData<P>,
}

impl<P: Permit> Authorized<P> {
    /// A transaction of the tenant. It begins with its first statement, which also waits for a tenant
    /// that is frozen for a moment; it must be over by the request's deadline.
    pub fn begin(&self) -> TenantTx {
        TenantTx::lazy(&self.host.pools, &self.context, self.deadline)
            .metered(&self.spent)
            .of_request(&self.begun)
    }

    /// When the request has to be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Who acts.
    pub fn actor(&self) -> UserId {
        self.context.actor
    }

    /// The tenant's slug, for messages.
    pub fn tenant(&self) -> &Slug {
        &self.context.slug
    }

    /// The tenant's flags and limits of this module.
    pub fn flags(&self) -> Flags<'_> {
        Flags::new(&self.host.declared, &self.context.flags)
    }

    /// Whether the caller also holds another permission of this module.
    pub fn may<Q: Permit>(&self) -> bool {
        holds(&self.context.permissions, Q::PERMISSION)
    }
}

#[cfg(test)]
impl<P: Permit> Authorized<P> {
    pub(crate) fn of(host: Host, context: RequestContext) -> Self {
        Self {
            host,
            context,
            deadline: Instant::now() + REQUEST_TIME,
            spent: Spent::default(),
            begun: Arc::default(),
            permit: PhantomData,
        }
    }

    /// Leaves less time.
    pub(crate) fn hurry(&mut self, left: Duration) {
        self.deadline = Instant::now() + left;
    }
}

impl<P: Permit> FromRequestParts<Host> for Authorized<P> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refusal> {
        let context = context_of(parts, host)?;
        // PostgreSQL would refuse the write, too, but as a failure of ours.
        let fits = match context.access {
            Access::Read => parts.method.is_safe(),
            Access::Write => true,
            Access::Tree => false,
        };
        authorise::<P>(&context, fits)?;
        host.pools.open_ahead(&context);
        Ok(Self {
            host: host.clone(),
            context,
            deadline: Instant::now() + REQUEST_TIME,
            spent: spent::of(&parts.extensions),
            begun: Arc::default(),
            permit: PhantomData,
        })
    }
}

/// Refuses a context of another kind (a subtree's, or one for reading), or without the permission.
pub(crate) fn authorise<P: Permit>(context: &RequestContext, fits: bool) -> Result<(), Fault> {
    if !fits {
        return Err(fault::CONTEXT_REFUSED
            .fault("the request's context is not for this address and method"));
    }
    if holds(&context.permissions, P::PERMISSION) {
        return Ok(());
    }
    Err(fault::PERMISSION_DENIED.fault(format!("permission `{}` is needed", P::PERMISSION)))
}

/// The one context of a request, verified.
pub(crate) fn context_of(parts: &Parts, host: &Host) -> Result<RequestContext, Fault> {
    let mut headers = parts.headers.get_all(CONTEXT_HEADER).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(fault::CONTEXT_REFUSED.fault("the request did not come through the gateway"));
    };
    let jws = header.to_str().map_err(|error| refused(&error))?;
    host.verify(jws).map_err(|rejection| refused(&rejection))
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
