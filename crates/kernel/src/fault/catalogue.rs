//! Every platform error, in one list. `cargo xtask codegen` makes a page of each; a test keeps the
//! codes unique. Modules keep lists of their own.

use super::{Blame, ErrorDef};

mod entitlements;
mod fleet;
mod places;
mod relocation;

pub use entitlements::*;
pub use fleet::*;
pub use places::*;
pub use relocation::*;

/// The request can't be understood.
pub static MALFORMED_REQUEST: ErrorDef = ErrorDef::client(
    "malformed-request",
    400,
    "The request can't be understood",
    "The HTTP request breaks a rule of RFC 9110 or RFC 9112, or a header has a form that the platform does not accept.",
    "Send one Host header, one framing (Content-Length or chunked), and headers of the documented form.",
);

/// The body is not the expected JSON.
pub static MALFORMED_JSON: ErrorDef = ErrorDef::client(
    "malformed-json",
    400,
    "The body is not the expected JSON",
    "The body is not JSON, or a value has the wrong type.",
    "Compare the body with the operation's schema in the OpenAPI document.",
);

/// The body has a field that does not exist.
pub static UNKNOWN_FIELD: ErrorDef = ErrorDef::client(
    "unknown-field",
    400,
    "The body has a field that does not exist",
    "Unknown fields are refused so that a misspelt option is never silently ignored.",
    "Remove the field or correct its name.",
);

/// A field has a value that is not allowed.
pub static INVALID_FIELD: ErrorDef = ErrorDef::client(
    "invalid-field",
    422,
    "A field has a value that is not allowed",
    "The value has the right type but breaks a rule that `detail` states.",
    "Correct the field that `field` names.",
);

/// The body is too large.
pub static BODY_TOO_LARGE: ErrorDef = ErrorDef::client(
    "body-too-large",
    413,
    "The body is too large",
    "The request body exceeds the limit of this endpoint.",
    "Send less at once; use a batch endpoint several times.",
);

/// The content type is not supported.
pub static UNSUPPORTED_MEDIA_TYPE: ErrorDef = ErrorDef::client(
    "unsupported-media-type",
    415,
    "The content type is not supported",
    "Bodies are accepted as `application/json` only.",
    "Send `Content-Type: application/json`.",
);

/// There is nothing at this address.
pub static ROUTE_NOT_FOUND: ErrorDef = ErrorDef::client(
    "route-not-found",
    404,
    "There is nothing at this address",
    "No route has this method and path.",
    "Look the path up in the OpenAPI document or the module's manifest.",
);

/// The address exists, but not with this method.
pub static METHOD_NOT_ALLOWED: ErrorDef = ErrorDef::client(
    "method-not-allowed",
    405,
    "The address exists, but not with this method",
    "The path is known with other methods.",
    "Use one of the methods in the `Allow` header.",
);

/// The resource has changed since it was read.
pub static PRECONDITION_FAILED: ErrorDef = ErrorDef::client(
    "precondition-failed",
    412,
    "The resource has changed since it was read",
    "`If-Match` names another version than the current one.",
    "Read the resource again, re-apply the change, and send the new `ETag`.",
);

/// The Idempotency-Key is not usable.
pub static IDEMPOTENCY_KEY_INVALID: ErrorDef = ErrorDef::client(
    "idempotency-key-invalid",
    400,
    "The Idempotency-Key is not usable",
    "A key has 1 to 255 printable ASCII characters.",
    "Send a UUID.",
);

/// The Idempotency-Key was used for another request.
pub static IDEMPOTENCY_KEY_REUSED: ErrorDef = ErrorDef::client(
    "idempotency-key-reused",
    422,
    "The Idempotency-Key was used for another request",
    "The same key came with a different method, path or body.",
    "Use a fresh key for each new request; repeat a key only with the same body.",
);

/// The slug is not a valid name.
pub static SLUG_INVALID: ErrorDef = ErrorDef::client(
    "slug-invalid",
    422,
    "The slug is not a valid name",
    "A slug is a lower-case DNS label of 1 to 40 characters that starts with a letter.",
    "Use a-z, 0-9 and single hyphens.",
);

/// The slug is kept for the platform.
pub static SLUG_RESERVED: ErrorDef = ErrorDef::client(
    "slug-reserved",
    422,
    "The slug is kept for the platform",
    "The platform answers on this sub-domain itself.",
    "Choose another slug.",
);

/// The slug is in use.
pub static SLUG_TAKEN: ErrorDef = ErrorDef::client(
    "slug-taken",
    409,
    "The slug is in use",
    "Another tenant has this slug, or had it until recently and its name is still within the grace time.",
    "Choose another slug, or wait until the grace time has passed.",
);

/// The profile does not exist.
pub static PROFILE_UNKNOWN: ErrorDef = ErrorDef::client(
    "profile-unknown",
    422,
    "The profile does not exist",
    "No sector profile has this id.",
    "Use `sme`, `government`, `fintech` or `multisite`.",
);

/// The module does not exist.
pub static MODULE_UNKNOWN: ErrorDef = ErrorDef::client(
    "module-unknown",
    422,
    "The module does not exist",
    "No installed module has this id.",
    "Use an id from `GET /admin/v1/modules`.",
);

/// Another module is in the way.
pub static MODULE_DEPENDENCY: ErrorDef = ErrorDef::client(
    "module-dependency",
    409,
    "Another module is in the way",
    "A module can't be active without the ones it depends on, nor be switched off under an active one that needs it.",
    "Switch on what it depends on first, or switch off what depends on it.",
);

/// The module's manifest is not valid.
pub static MODULE_MANIFEST_INVALID: ErrorDef = ErrorDef::client(
    "module-manifest-invalid",
    422,
    "The module's manifest is not valid",
    "A rule of `module.toml` is broken; `detail` says which.",
    "Correct the manifest.",
);

/// The role does not exist.
pub static ROLE_UNKNOWN: ErrorDef = ErrorDef::client(
    "role-unknown",
    422,
    "The role does not exist",
    "A role is `tenant-admin` or `module.role` of an installed module.",
    "Use a role that a module's manifest declares.",
);

/// The parent does not exist.
pub static PARENT_UNKNOWN: ErrorDef = ErrorDef::client(
    "parent-unknown",
    422,
    "The parent does not exist",
    "No live tenant has this slug.",
    "Create the parent first.",
);

/// The tenant would be its own ancestor.
pub static PARENT_CYCLE: ErrorDef = ErrorDef::client(
    "parent-cycle",
    422,
    "The tenant would be its own ancestor",
    "A tenant's parent can't be itself or one of its descendants.",
    "Choose a parent outside the tenant's own subtree.",
);

/// The parent may not be in another country.
pub static PARENT_COUNTRY_FORBIDDEN: ErrorDef = ErrorDef::client(
    "parent-country-forbidden",
    422,
    "The parent may not be in another country",
    "The residency rule of one of the two countries forbids a parent abroad.",
    "Choose a parent in the same country, or ask the operator to change the country's rule.",
);

/// There is no such tenant.
pub static TENANT_NOT_FOUND: ErrorDef = ErrorDef::client(
    "tenant-not-found",
    404,
    "There is no such tenant",
    "No live tenant has this slug.",
    "Check the slug with `waangu tenant list`.",
);

/// The tenant still has sub-tenants.
pub static TENANT_HAS_CHILDREN: ErrorDef = ErrorDef::client(
    "tenant-has-children",
    409,
    "The tenant still has sub-tenants",
    "A tenant can be deleted only after its sub-tenants.",
    "Delete the sub-tenants first.",
);

/// The tenant is being deleted.
pub static TENANT_DELETING: ErrorDef = ErrorDef::client(
    "tenant-deleting",
    409,
    "The tenant is being deleted",
    "A tenant that is being deleted can't be changed any more.",
    "Wait, then create a new tenant.",
);

/// The tenant is not active.
pub static TENANT_NOT_ACTIVE: ErrorDef = ErrorDef::client(
    "tenant-not-active",
    403,
    "The tenant is not active",
    "It is still being provisioned, or suspended, or being deleted.",
    "Wait for the operation to finish, or ask the operator to resume the tenant.",
);

/// The token belongs to another tenant.
pub static TENANT_MISMATCH: ErrorDef = ErrorDef::client(
    "tenant-mismatch",
    403,
    "The token belongs to another tenant",
    "The token's tenant and the sub-domain's differ.",
    "Sign in at the tenant whose address you use.",
);

/// No tenant is named.
pub static TENANT_REQUIRED: ErrorDef = ErrorDef::client(
    "tenant-required",
    400,
    "No tenant is named",
    "On the common API address the tenant comes from the token.",
    "Use the tenant's own sub-domain, or a token with a `tenant` claim.",
);

/// There is no such user.
pub static USER_NOT_FOUND: ErrorDef = ErrorDef::client(
    "user-not-found",
    404,
    "There is no such user",
    "The tenant has no user with this name.",
    "Check the name with `waangu user list`.",
);

/// The username is in use.
pub static USERNAME_TAKEN: ErrorDef = ErrorDef::client(
    "username-taken",
    409,
    "The username is in use",
    "The tenant has a user with this name already.",
    "Choose another name.",
);

/// There is no such operation.
pub static OPERATION_NOT_FOUND: ErrorDef = ErrorDef::client(
    "operation-not-found",
    404,
    "There is no such operation",
    "No operation has this id.",
    "Use the `Location` that the change answered.",
);

/// A valid token is needed.
pub static UNAUTHENTICATED: ErrorDef = ErrorDef::client(
    "unauthenticated",
    401,
    "A valid token is needed",
    "The request has no usable `Authorization: Bearer` token, or the token is not valid here: wrong issuer, audience, signature or form.",
    "Get a token from the sign-in address and send it.",
);

/// The token has expired.
pub static TOKEN_EXPIRED: ErrorDef = ErrorDef::client(
    "token-expired",
    401,
    "The token has expired",
    "The token's `exp` has passed.",
    "Get a new token.",
);

/// The caller lacks a permission.
pub static PERMISSION_DENIED: ErrorDef = ErrorDef::client(
    "permission-denied",
    403,
    "The caller lacks a permission",
    "None of the caller's roles in this tenant holds the permission that `detail` names.",
    "Ask the tenant's administrator for a role that holds it.",
);

/// The subtree is too large for one request.
pub static SUBTREE_TOO_LARGE: ErrorDef = ErrorDef::client(
    "subtree-too-large",
    422,
    "The subtree is too large for one request",
    "A request that reads a tenant and all below it visits at most 500 places and 2,000 tenants, 32 levels deep, and names them in 32 KiB.",
    "Ask for the subtrees of the tenants below, one after the other.",
);

/// The module is not active for this tenant.
pub static MODULE_NOT_ACTIVE: ErrorDef = ErrorDef::client(
    "module-not-active",
    403,
    "The module is not active for this tenant",
    "The module is installed, but this tenant has not switched it on.",
    "Ask an administrator to enable it (`waangu module enable`).",
);

/// The module refused the request's context.
pub static CONTEXT_REFUSED: ErrorDef = ErrorDef::client(
    "context-refused",
    403,
    "The module refused the request's context",
    "A module accepts only requests that carry a fresh context signed by the gateway for that very module.",
    "Send the request through the gateway.",
);

/// Too many requests.
pub static RATE_LIMITED: ErrorDef = ErrorDef::client(
    "rate-limited",
    429,
    "Too many requests",
    "The tenant or the caller has used up its share for now.",
    "Wait for the number of seconds in `Retry-After`.",
);

/// The platform is busy.
pub static OVERLOADED: ErrorDef = ErrorDef::server(
    Blame::Platform,
    "overloaded",
    503,
    "The platform is busy",
    "A bounded queue is full; the request was not started.",
    "Repeat it after `Retry-After`.",
);

/// Something went wrong inside the platform.
pub static INTERNAL: ErrorDef = ErrorDef::server(
    Blame::Platform,
    "internal",
    500,
    "Something went wrong inside the platform",
    "A defect, or a state that should not exist. The operator's log has the cause under the request id.",
    "Report the request id to the operator.",
);

/// The database can't be reached.
pub static DATABASE_UNAVAILABLE: ErrorDef = ErrorDef::server(
    Blame::Database,
    "database-unavailable",
    503,
    "The database can't be reached",
    "The tenant's database did not answer in time.",
    "Repeat the request; the operator should look at the cell.",
);

/// The database has lost a rule of isolation.
pub static ISOLATION_DRIFT: ErrorDef = ErrorDef::server(
    Blame::Database,
    "isolation-drift",
    503,
    "The database has lost a rule that keeps tenants apart",
    "A module serves nobody from a database whose tables, policies, rights or roles are not exactly as the platform made them.",
    "The operator runs `waangu doctor isolation`, which names the object and the statement that mends it.",
);

/// The tenant is being moved.
pub static TENANT_MOVING: ErrorDef = ErrorDef::server(
    Blame::Database,
    "tenant-moving",
    503,
    "The tenant is being moved",
    "The tenant's data changed its place and the wait for it was longer than the request may take.",
    "Repeat the request.",
);

/// The module does not answer.
pub static MODULE_UNAVAILABLE: ErrorDef = ErrorDef::server(
    Blame::Module,
    "module-unavailable",
    503,
    "The module does not answer",
    "The module's process is down or starting.",
    "Repeat the request; the operator should look at the module's log.",
);

/// The module took too long.
pub static MODULE_TIMEOUT: ErrorDef = ErrorDef::server(
    Blame::Module,
    "module-timeout",
    504,
    "The module took too long",
    "The module did not answer within the request's deadline.",
    "Repeat the request, or ask for less at once.",
);

/// This host is not served here.
pub static MISDIRECTED_REQUEST: ErrorDef = ErrorDef::client(
    "misdirected-request",
    421,
    "This host is not served here",
    "The request's host is not a name of this platform's domain.",
    "Use a tenant's sub-domain, or `api`, `admin` or `login` of the domain.",
);

/// The control plane does not answer.
pub static CONTROL_UNAVAILABLE: ErrorDef = ErrorDef::server(
    Blame::Platform,
    "control-unavailable",
    503,
    "The control plane does not answer",
    "The control plane's process is down or starting. Tenants are served all the same.",
    "Repeat the request; the operator should look at the control plane's log.",
);

/// The control plane took too long.
pub static CONTROL_TIMEOUT: ErrorDef = ErrorDef::server(
    Blame::Platform,
    "control-timeout",
    504,
    "The control plane took too long",
    "The control plane did not answer within the request's deadline.",
    "Look at the operation that the request began, or repeat it with the same Idempotency-Key.",
);

/// All of the above and of the files beside, in order.
pub static ALL: [&ErrorDef; 86] = [
    &MALFORMED_REQUEST,
    &MALFORMED_JSON,
    &UNKNOWN_FIELD,
    &INVALID_FIELD,
    &BODY_TOO_LARGE,
    &UNSUPPORTED_MEDIA_TYPE,
    &ROUTE_NOT_FOUND,
    &METHOD_NOT_ALLOWED,
    &PRECONDITION_FAILED,
    &IDEMPOTENCY_KEY_INVALID,
    &IDEMPOTENCY_KEY_REUSED,
    &SLUG_INVALID,
    &SLUG_RESERVED,
    &SLUG_TAKEN,
    &COUNTRY_UNKNOWN,
    &REGION_UNKNOWN,
    &CELL_UNKNOWN,
    &TIER_UNKNOWN,
    &PROFILE_UNKNOWN,
    &MODULE_UNKNOWN,
    &MODULE_DEPENDENCY,
    &MODULE_MANIFEST_INVALID,
    &ROLE_UNKNOWN,
    &PARENT_UNKNOWN,
    &PARENT_CYCLE,
    &PARENT_COUNTRY_FORBIDDEN,
    &NO_PLACEMENT,
    &TENANT_NOT_FOUND,
    &TENANT_HAS_CHILDREN,
    &TENANT_DELETING,
    &TENANT_NOT_ACTIVE,
    &TENANT_MISMATCH,
    &TENANT_REQUIRED,
    &USER_NOT_FOUND,
    &USERNAME_TAKEN,
    &OPERATION_NOT_FOUND,
    &ENTITLEMENT_NOT_FOUND,
    &UNAUTHENTICATED,
    &TOKEN_EXPIRED,
    &PERMISSION_DENIED,
    &SUBTREE_TOO_LARGE,
    &MODULE_NOT_ACTIVE,
    &CONTEXT_REFUSED,
    &RATE_LIMITED,
    &OVERLOADED,
    &INTERNAL,
    &DATABASE_UNAVAILABLE,
    &ISOLATION_DRIFT,
    &DATABASE_READ_ONLY,
    &TENANT_MOVING,
    &MODULE_UNAVAILABLE,
    &MODULE_TIMEOUT,
    &CONTROL_UNAVAILABLE,
    &CONTROL_TIMEOUT,
    &MISDIRECTED_REQUEST,
    &ENTITLEMENT_UNKNOWN,
    &ENTITLEMENT_TYPE,
    &LIMIT_REACHED,
    &PLAN_UNKNOWN,
    &PLAN_NOT_FOUND,
    &PLAN_IN_USE,
    &ROLLOUT_NOT_FOUND,
    &ROLLOUT_OPEN,
    &ROLLOUT_STATE,
    &ROLLOUT_EMPTY,
    &NAMESPACE_LOST,
    &PACKAGE_REWRITTEN,
    &REPAIR_OPEN,
    &REPAIR_NOT_FOUND,
    &PLACE_IN_USE,
    &ENVIRONMENT_UNKNOWN,
    &CELL_NOT_FOUND,
    &CELL_EXISTS,
    &SETTING_FIXED,
    &SETTING_UNKNOWN,
    &VERSION_NOT_RUN_BEFORE,
    &PACKAGE_INCOMPATIBLE,
    &PACKAGE_EARLY,
    &RELOCATION_NOT_FOUND,
    &RELOCATION_OPEN,
    &RELOCATION_REFUSED,
    &RELOCATION_PAST,
    &RELOCATION_HELD,
    &REGISTRY_OUTDATED,
    &ALREADY_THERE,
    &TENANT_MOVED,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Two errors with one code could not be told apart by a client.
    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let codes: HashSet<_> = ALL.iter().map(|def| def.code).collect();
        assert_eq!(codes.len(), ALL.len());
        assert!(ALL.iter().all(|def| (400..600).contains(&def.status)));
    }
}
