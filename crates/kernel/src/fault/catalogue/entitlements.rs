//! Errors about flags, limits and plans.

use super::ErrorDef;

/// There is no such entitlement.
pub static ENTITLEMENT_NOT_FOUND: ErrorDef = ErrorDef::client(
    "entitlement-not-found",
    404,
    "There is no such entitlement",
    "The tenant has no entitlement with this key.",
    "Check the key with `GET /admin/v1/tenants/{slug}`.",
);

/// No flag or limit has this key.
pub static ENTITLEMENT_UNKNOWN: ErrorDef = ErrorDef::client(
    "entitlement-unknown",
    422,
    "No flag or limit has this key",
    "A key is declared by an installed module's manifest (`module.key`) or by the platform; this one is not.",
    "Use a key from `GET /admin/v1/entitlements` or `waangu flag keys`.",
);

/// The value is not of the flag's type.
pub static ENTITLEMENT_TYPE: ErrorDef = ErrorDef::client(
    "entitlement-type",
    422,
    "The value is not of the flag's type",
    "A flag takes values of the type in its declaration, of at most 512 bytes as JSON; a limit takes a whole number from 0, or null for no limit.",
    "Send a value of the type that `GET /admin/v1/entitlements` names for the key.",
);

/// The tenant has as much as it may.
pub static LIMIT_REACHED: ErrorDef = ErrorDef::client(
    "limit-reached",
    409,
    "The tenant has as much of this as it may",
    "A limit from its plan, its profile or set for this tenant alone is reached; `detail` names it.",
    "Remove what is not needed any more, or ask the operator for a higher limit.",
);

/// The plan does not exist.
pub static PLAN_UNKNOWN: ErrorDef = ErrorDef::client(
    "plan-unknown",
    422,
    "The plan does not exist",
    "No plan has this id.",
    "Use an id from `GET /admin/v1/plans`.",
);

/// There is no such plan.
pub static PLAN_NOT_FOUND: ErrorDef = ErrorDef::client(
    "plan-not-found",
    404,
    "There is no such plan",
    "No plan has this id.",
    "Use an id from `GET /admin/v1/plans`.",
);

/// Tenants have this plan.
pub static PLAN_IN_USE: ErrorDef = ErrorDef::client(
    "plan-in-use",
    409,
    "Tenants have this plan",
    "A plan can be removed only when no tenant has it any more.",
    "Give its tenants another plan first.",
);
