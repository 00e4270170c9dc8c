//! The control database: what the platform wants, and what it last saw of it.
//!
//! ## What is stored
//! Countries with residency rules, regions, cells, profiles, modules, tenants with their placement,
//! activations, plans, entitlements, users with Argon2id hashes, roles, operations, wishes for new keys,
//! module packages, which package stands where, rollouts, repairs, what tenants use and where they would
//! be better off, what may follow from that by itself, and the audit log.
//! ## What is not
//! Private keys, passwords of database logins, business data.
//!
//! Invariants:
//! - all reads and writes go through a [`Tx`]; driver types and SQL stay in this crate;
//! - a constraint's name is turned into a domain fault in one place (`db`);
//! - every mutation of a tenant raises its `generation` and marks its row for the change feed.
//!
//! Left out: HTTP, decisions (placement, plans), and every cell's own database.

mod activations;
mod advisor;
mod audit;
mod cells;
mod db;
mod directory;
mod entitlements;
mod fleet;
mod keys;
mod migrate;
mod operations;
mod packages;
mod places;
mod policies;
mod profiles;
mod promotions;
mod refusals;
mod relocations;
mod repairs;
mod rollouts;
mod snapshot;
mod stock;
mod tenants;
mod tree;
mod upgrades;
mod users;
mod work;
mod world;

pub use activations::Activation;
pub use advisor::{
    Advice, AdviceOf, AdviceState, AdvisorRound, Subject, Threshold, Traffic, Volume,
};
pub use audit::AuditEvent;
pub use cells::{Cell, CellState, CellUsage, Hold};
pub use db::{Registry, Session, Tx};
pub use directory::{AuthorizationCode, Credential, LoginGate, StoredReply};
pub use entitlements::{Held, Plan, Sets};
pub use fleet::{Backlog, FailingTenant, TenantCount};
pub use keys::Rotation;
pub use migrate::SCHEMA_VERSION;
pub use operations::{Operation, OperationEvent, OperationStatus, Progress};
pub use packages::{Behind, Namespace, Standing, StoredPackage};
pub use places::{Country, Region, StoredModule};
pub use policies::{Act, Acted, NewAct, Policy, Scope};
pub use profiles::{Mfa, Profile, Report};
pub use promotions::{ModuleRun, Promotion};
pub use refusals::PackageRefusal;
pub use relocations::{
    Figures, Left, NewRelocation, Phase, Relocation, RelocationEvent, Standstill, WantedWay,
};
pub use repairs::{Finding, Repair, WantedNamespace, WantedPlace};
pub use rollouts::{
    FailedItem, NewItem, NewRollout, Pace, Rollout, RolloutEvent, RolloutState, WaveCount,
};
pub use snapshot::{Feed, RouteChange, TenantRoute};
pub use tenants::{Desired, NewTenant, State, Tenant, TenantPage, TenantPatch};
pub use upgrades::{UpgradeEnd, UpgradeItem};
pub use users::User;
pub use work::Claim;
pub use world::Kind;
