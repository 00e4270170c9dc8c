//! Errors about fleet upgrades and repair.

use super::{Blame, ErrorDef};

/// There is no such rollout.
pub static ROLLOUT_NOT_FOUND: ErrorDef = ErrorDef::client(
    "rollout-not-found",
    404,
    "There is no such rollout",
    "The id in the address is not that of a rollout, or not one of this platform.",
    "List the rollouts.",
);

/// A rollout of this module is open.
pub static ROLLOUT_OPEN: ErrorDef = ErrorDef::client(
    "rollout-open",
    409,
    "A rollout of this module is not over yet",
    "At most one package of a module is on its way at a time. A rollout that was stopped or paused is \
     not over either. Only a newer package takes the place of one that is on its way.",
    "Wait for it, resume it, or cancel it; then begin the other.",
);

/// The rollout is in another state.
pub static ROLLOUT_STATE: ErrorDef = ErrorDef::client(
    "rollout-state",
    409,
    "The rollout's state does not allow this",
    "Only a rollout on its way can be paused, only a paused one resumed, only one with failures tried \
     again, and one that is over stays over.",
    "Look at the rollout's state.",
);

/// Nothing to roll out.
pub static ROLLOUT_EMPTY: ErrorDef = ErrorDef::client(
    "rollout-empty",
    409,
    "Nothing is behind",
    "Every namespace of the module stands on the package that is installed.",
    "Nothing has to be done. If a newer package was expected, start the control plane with it first.",
);

/// A namespace that should be there is gone.
pub static NAMESPACE_LOST: ErrorDef = ErrorDef::server(
    Blame::Database,
    "namespace-lost",
    500,
    "A tenant's tables are gone",
    "The registry knows that the tenant's database or schema was made, and the cell does not have it \
     any more. Making an empty one in its place would hide the loss.",
    "Restore the database from its backup; the tenant is then looked at again. Or delete the tenant.",
);

/// A package contradicts one that was installed.
pub static PACKAGE_REWRITTEN: ErrorDef = ErrorDef::server(
    Blame::Module,
    "package-rewritten",
    500,
    "A module's migrations have changed after they were installed",
    "The package's migrations do not begin with those of the package that is installed, so nobody can \
     say what would stand in the databases.",
    "Put the old migrations back as they were, and add the change as a new one.",
);

/// A repair is open.
pub static REPAIR_OPEN: ErrorDef = ErrorDef::client(
    "repair-open",
    409,
    "Another repair is not over yet",
    "At most one look at all cells is taken at a time.",
    "Wait until it is over.",
);

/// There is no such repair.
pub static REPAIR_NOT_FOUND: ErrorDef = ErrorDef::client(
    "repair-not-found",
    404,
    "There is no such repair",
    "The id in the address is not that of a repair, or it is an old one that has been forgotten.",
    "Begin another.",
);

/// A package takes away what programs of the installed version may use.
pub static PACKAGE_INCOMPATIBLE: ErrorDef = ErrorDef::server(
    Blame::Module,
    "package-incompatible",
    500,
    "A module's new tables would break its running version",
    "Two versions of a module are in use while an upgrade goes on. The new package's migrations take away \
     or narrow something that programs of the installed version may read or write; `detail` names it.",
    "Add what is new first, and remove what is old in a later release, whose manifest says \
     `contract = true`. A constraint that has become wider is named in the manifest's `widened`.",
);

/// A contracting package comes before all tenants have the one before it.
pub static PACKAGE_EARLY: ErrorDef = ErrorDef::server(
    Blame::Module,
    "package-early",
    500,
    "A contracting package comes too early",
    "A release that removes what is old (`contract = true`) may be installed only when every tenant has the \
     installed version and no upgrade of the module is under way.",
    "Start the version before it again, bring it to all tenants (`waangu fleet upgrade`), then deploy this \
     one.",
);
