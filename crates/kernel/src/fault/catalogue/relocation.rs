//! Errors about moving tenants.

use super::{Blame, ErrorDef};

/// There is no such move.
pub static RELOCATION_NOT_FOUND: ErrorDef = ErrorDef::client(
    "relocation-not-found",
    404,
    "There is no such move",
    "The id in the address is not that of a move of this tenant, or the tenant has none to take back.",
    "List the tenant's moves.",
);

/// The tenant is on its way already.
pub static RELOCATION_OPEN: ErrorDef = ErrorDef::client(
    "relocation-open",
    409,
    "The tenant is on its way already",
    "A tenant makes one move at a time.",
    "Wait for the end of the other move, or cancel it.",
);

/// The tenant can't be moved so.
pub static RELOCATION_REFUSED: ErrorDef = ErrorDef::client(
    "relocation-refused",
    409,
    "The tenant can't be moved so",
    "The tenant's place is being made or removed, or the other place stands on another version of a \
     module. `detail` says which.",
    "Mend what `detail` names, or choose another place; a dry run shows all checks.",
);

/// The tenant is there already.
pub static ALREADY_THERE: ErrorDef = ErrorDef::client(
    "already-there",
    409,
    "The tenant is there already",
    "The tenant has this tier in this cell.",
    "Nothing has to be done, or name another place.",
);

/// It is too late to cancel.
pub static RELOCATION_PAST: ErrorDef = ErrorDef::client(
    "relocation-past",
    409,
    "It is too late to cancel the move",
    "The move is over, or behind its commit point: the old place is closed for good, and the only way \
     is forward.",
    "Wait for its end; then move the tenant back, if need be.",
);

/// A move would cost others too much.
pub static RELOCATION_HELD: ErrorDef = ErrorDef::server(
    Blame::Database,
    "relocation-held",
    503,
    "The move holds back too much",
    "While a tenant's rows are copied and followed, the old place's server keeps its log for the move, \
     and the copy's snapshot keeps dead rows of everybody from being removed. The move came to the bound \
     of one of them (`[moves]` of the control plane's file), was given up, and nothing of it is left. The \
     tenant stays where it is.",
    "Let it copy faster (a higher `--rate`, or none), move at a time when the server writes less, or raise \
     `max_held_mb` (below the cell's `max_slot_wal_keep_size`, and below its free disk) or \
     `max_copy_minutes`.",
);

/// The registry is older than the cell.
pub static REGISTRY_OUTDATED: ErrorDef = ErrorDef::server(
    Blame::Platform,
    "registry-outdated",
    503,
    "The control database is older than the cell",
    "The tenant has left this place by a move that the control database knows nothing of: most likely it \
     was restored from a time before the move. The tenant's rows are where it went; the place that the \
     control database names may be empty, and is not opened.",
    "Restore control database and cells to one time.",
);

/// The tenant has moved while the request was on its way.
pub static TENANT_MOVED: ErrorDef = ErrorDef::server(
    Blame::Database,
    "tenant-moved",
    503,
    "The tenant has just moved",
    "The tenant's data changed its place while the request was on its way, and the request could not \
     be sent after it: its body is too large to be kept, or the wait was too long. Nothing of it has \
     happened.",
    "Repeat the request.",
);
