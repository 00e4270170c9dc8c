//! Errors about the declared world: places and their servers, settings, promotions.

use super::{Blame, ErrorDef};

/// Something uses the place.
pub static PLACE_IN_USE: ErrorDef = ErrorDef::client(
    "place-in-use",
    409,
    "Something uses the place",
    "A cell with tenants does not change its region or environment, and what something uses can't be removed.",
    "Remove what `detail` names first, or declare the thing again.",
);

/// The environment is not known here.
pub static ENVIRONMENT_UNKNOWN: ErrorDef = ErrorDef::client(
    "environment-unknown",
    422,
    "The environment is not known here",
    "The environment is not declared.",
    "Use one of `GET /environments`, or declare it in a world file.",
);

/// There is no such cell.
pub static CELL_NOT_FOUND: ErrorDef = ErrorDef::client(
    "cell-not-found",
    404,
    "There is no such cell",
    "No cell has this id.",
    "Look it up with `waangu cell list`.",
);

/// The cell exists.
pub static CELL_EXISTS: ErrorDef = ErrorDef::client(
    "cell-exists",
    409,
    "The cell exists",
    "A cell of this id is declared already.",
    "Change it in its world file and run `waangu apply`.",
);

/// The setting can't be changed like this.
pub static SETTING_FIXED: ErrorDef = ErrorDef::client(
    "setting-fixed",
    409,
    "The setting can't be changed like this",
    "The tier changes with a move of the tenant's data, modules with their own commands.",
    "Switch modules with `waangu module`; say the tier when the tenant is created.",
);

/// The tenant has no such setting.
pub static SETTING_UNKNOWN: ErrorDef = ErrorDef::client(
    "setting-unknown",
    404,
    "The tenant has no such setting",
    "Settings are those that a profile has; or the tenant does not differ from its profile in this one.",
    "Compare with `waangu tenant show`.",
);

/// The environment before has not run this version.
pub static VERSION_NOT_RUN_BEFORE: ErrorDef = ErrorDef::client(
    "version-not-run-before",
    409,
    "The environment before has not run this version",
    "Module versions go from one environment to the next; none is left out.",
    "Run the version in the environment before, import its record with `waangu promote --import`, and try again.",
);

/// The server is a replica.
pub static DATABASE_READ_ONLY: ErrorDef = ErrorDef::server(
    Blame::Database,
    "database-read-only",
    503,
    "The tenant's database takes no transactions now",
    "A tenant's transaction begins by sealing its context, which a replica, or a server that was set to \
     read only, refuses. So no tenant is served from one: after a failover the address must lead to the \
     new primary.",
    "The operator lets the cell's address lead to the primary (several hosts with \
     `target_session_attrs=read-write`), or ends the read-only setting.",
);

/// The country is not known here.
pub static COUNTRY_UNKNOWN: ErrorDef = ErrorDef::client(
    "country-unknown",
    422,
    "The country is not known here",
    "The code is not in ISO 3166-1, or this installation does not serve that country.",
    "Use a code from `GET /admin/v1/countries`.",
);

/// The region is not known here.
pub static REGION_UNKNOWN: ErrorDef = ErrorDef::client(
    "region-unknown",
    422,
    "The region is not known here",
    "No region has this id.",
    "Use an id from `GET /admin/v1/regions`.",
);

/// The cell is not known here.
pub static CELL_UNKNOWN: ErrorDef = ErrorDef::client(
    "cell-unknown",
    422,
    "The cell is not known here",
    "No cell has this id.",
    "Use an id from `GET /admin/v1/cells`.",
);

/// The tier does not exist.
pub static TIER_UNKNOWN: ErrorDef = ErrorDef::client(
    "tier-unknown",
    422,
    "The tier does not exist",
    "A tier is `shared`, `schema` or `dedicated`.",
    "Use one of the three, or leave it out to get the profile's.",
);

/// No cell may take this tenant.
pub static NO_PLACEMENT: ErrorDef = ErrorDef::client(
    "no-placement",
    409,
    "No cell may take this tenant",
    "Residency, tier and capacity leave no cell; `detail` gives the reason for each cell.",
    "Add a cell in an allowed region, free capacity, or choose another tier.",
);
