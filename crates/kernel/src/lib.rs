//! The words of the domain as types: ids, slugs, tiers, placements, permissions, module manifests,
//! faults, and the clock.
//!
//! Invariants:
//! - nothing here does I/O or is async; a value that exists is valid (parse, don't validate);
//! - every error a client can see is a [`fault::ErrorDef`] from a list, so it is documented.
//!
//! Left out on purpose: storage, HTTP, cryptography.

pub mod clock;
pub mod country;
pub mod entitlement;
pub mod fault;
pub mod id;
pub mod key;
pub mod manifest;
pub mod name;
pub mod permission;
pub mod placement;
pub mod sla;

pub use clock::{Clock, SystemClock};
pub use country::CountryCode;
pub use fault::{ErrorDef, Fault};
pub use id::{
    OperationId, RelocationId, RepairId, RequestId, RolloutId, RotationId, TenantId, UserId,
};
pub use key::{KeyKind, KeyState};
pub use name::{CellId, ModuleId, PlanId, ProfileId, RegionId, Slug, Username};
pub use permission::{Permission, RoleName};
pub use placement::{Placement, Tier};
pub use sla::Sla;
