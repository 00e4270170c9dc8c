//! The request context: the gateway's signed statement to one module about one request.
//!
//! Invariants: it names exactly one tenant and one module (its audience), lives at most
//! [`MAX_LIFETIME_SECONDS`], and carries the database [`Proof`] that makes it effective.

use std::fmt;

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use waangu_kernel::entitlement::Values;
use waangu_kernel::placement::Place;
use waangu_kernel::{ModuleId, Permission, Placement, RequestId, Slug, TenantId, UserId};

use crate::Rejection;
use crate::keys::{KeyError, PublicKey, SigningKey};
use crate::proof::{Access, Proof};

/// The request header that carries the context to a module.
pub const CONTEXT_HEADER: &str = "waangu-context";

/// Header of a module's answer: microseconds for which the request held connections to cells. Read by
/// the gateway, never passed on.
pub const SPENT_HEADER: &str = "waangu-database-us";
/// The response header by which a module says that the tenant has left the place that the context names,
/// and that nothing of the request has happened: it can be sent again with a newer context.
pub const MOVED_HEADER: &str = "waangu-moved";

/// Longest life of a context, in seconds (architecture §4).
pub const MAX_LIFETIME_SECONDS: i64 = 60;

const ISSUER: &str = "waangu-gateway";

/// What the gateway states about one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    /// The module that may act on it.
    pub module: ModuleId,
    /// The request's id.
    pub request: RequestId,
    /// The tenant's number.
    pub tenant: TenantId,
    /// The tenant's slug.
    pub slug: Slug,
    /// Where the tenant's data lives.
    pub placement: Placement,
    /// Where it will soon live, while a move follows its changes. A hint: nothing is served from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heading: Option<Placement>,
    /// Who acts.
    pub actor: UserId,
    /// The actor's permissions in this module.
    pub permissions: Vec<Permission>,
    /// Whether the request may write, or reads a whole subtree.
    pub access: Access,
    /// The subtree's places, the tenant's own among them; empty unless `access` is
    /// [`Access::Tree`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// The tenant's flags and limits of this module that are not the manifest's default. Their length
    /// is bounded by what a manifest may declare.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub flags: Values,
    /// Unix seconds after which it is refused.
    pub expires: i64,
    /// The part that PostgreSQL checks.
    pub proof: Proof,
    /// The tenant whose place a subtree's request is at ([`RequestContext::at`]); never signed.
    #[serde(skip)]
    pub visited: Option<TenantId>,
}

impl RequestContext {
    /// The database that the request's transaction is in.
    pub fn database(&self) -> String {
        self.placement.database(self.visited.unwrap_or(self.tenant))
    }

    /// The schema that holds the module's tables there.
    pub fn schema(&self) -> String {
        let tenant = self.visited.unwrap_or(self.tenant);
        self.placement.schema(tenant, &self.module)
    }

    /// The same request at a place of its subtree. Who asks, and what PostgreSQL lets it see, stay
    /// the same; only the address changes.
    #[must_use]
    pub fn at(&self, place: &Place, tenant: TenantId) -> Self {
        Self {
            placement: Placement {
                cell: place.cell.clone(),
                tier: place.tier,
                bucket: place.bucket,
                epoch: self.placement.epoch,
            },
            places: Vec::new(),
            visited: Some(tenant),
            ..self.clone()
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    #[serde(flatten)]
    context: RequestContext,
}

/// Signs contexts; lives in the gateway.
pub struct ContextSigner {
    key: SigningKey,
    header: Header,
}

impl ContextSigner {
    /// Wraps the gateway's key.
    pub fn new(key: SigningKey) -> Self {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.id().to_owned());
        Self { key, header }
    }

    /// The public half that modules need.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs a context as a compact JWS.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] when the key can't sign.
    pub fn sign(&self, context: RequestContext) -> Result<String, KeyError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: context.module.to_string(),
            exp: context.expires,
            context,
        };
        jsonwebtoken::encode(&self.header, &claims, self.key.encoding())
            .map_err(|_error| KeyError::NotAKey)
    }
}

impl fmt::Debug for ContextSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextSigner({})", self.key.id())
    }
}

/// Verifies contexts; lives in each module.
pub struct ContextVerifier {
    keys: Vec<(String, jsonwebtoken::DecodingKey)>,
    validation: Validation,
}

impl ContextVerifier {
    /// A verifier for one module, trusting the given gateway keys.
    pub fn new(module: &ModuleId, keys: &[PublicKey]) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[module.as_str()]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Checked below, against the clock that the caller is given.
        validation.validate_exp = false;
        let keys = keys
            .iter()
            .filter_map(|key| key.decoding().map(|decoding| (key.kid.clone(), decoding)))
            .collect();
        Self { keys, validation }
    }

    /// Checks signature, issuer, audience, and that unix time `now` is within its short life.
    ///
    /// # Errors
    /// [`Rejection`], to be logged; a client learns only that the context was refused.
    pub fn verify(&self, jws: &str, now: i64) -> Result<RequestContext, Rejection> {
        let header = jsonwebtoken::decode_header(jws).map_err(|_error| Rejection::Malformed)?;
        let kid = header.kid.ok_or(Rejection::UnknownKey)?;
        let (_, key) = self
            .keys
            .iter()
            .find(|(id, _)| *id == kid)
            .ok_or(Rejection::UnknownKey)?;
        let claims = jsonwebtoken::decode::<Claims>(jws, key, &self.validation)
            .map_err(|error| Rejection::from_jwt(&error))?
            .claims;
        let life = claims.exp.saturating_sub(now);
        if life <= 0 || claims.exp != claims.context.expires {
            return Err(Rejection::Expired);
        }
        // A clock that is a little behind is forgiven; a context for an hour is not of our making.
        if life > MAX_LIFETIME_SECONDS.saturating_add(5) {
            return Err(Rejection::NotYetValid);
        }
        Ok(claims.context)
    }
}

impl fmt::Debug for ContextVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextVerifier({} keys)", self.keys.len())
    }
}
