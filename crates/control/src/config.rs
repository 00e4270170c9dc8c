//! What the control plane is told at its start.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use waangu_api::world::World;
use waangu_identity::TokenIssuer;
use waangu_kernel::{CellId, ModuleId};
use waangu_tenancy::admin::UpgradeLimits;
use waangu_tenancy::{CellAdminConfig, LoginSecret, ModulePackage};

use crate::keys::KeyFiles;
use crate::packages::Refused;

/// The control plane's configuration.
#[derive(Debug)]
pub struct Config {
    /// The control database.
    pub registry_dsn: String,
    /// `dev`, `test`, `preprod` or `prod`.
    pub environment: String,
    /// The domain whose sub-domains are tenants.
    pub domain: String,
    /// The gateway's port, as clients see it.
    pub public_port: u16,
    /// How long a deleted tenant's slug stays taken, in seconds.
    pub name_grace_seconds: i64,
    /// The cells, as their administrator.
    pub cells: Vec<CellSecrets>,
    /// The gateway's keys.
    pub keys: KeyFiles,
    /// The installed modules.
    pub packages: Vec<ModulePackage>,
    /// Versions at hand that this environment may not receive yet; [`prepare`](crate::prepare) finds
    /// them.
    pub waiting: Vec<(ModuleId, String)>,
    /// Packages at hand that can't be installed; [`prepare`](crate::prepare) finds them.
    pub refused: Vec<Refused>,
    /// The world that an empty registry begins with.
    pub world: World,
    /// The operator's token, as SHA-256 in hex, and name.
    pub operator: (String, String),
    /// Whether a newer package goes to all namespaces at once, without an operator: in development.
    pub auto_rollout: bool,
    /// What bounds a rollout's work on cells.
    pub rollouts: RolloutLimits,
    /// Seconds from one look for drift at all cells to the next; 0: only when asked.
    pub repair_seconds: i64,
    /// Databases that each cell keeps ready for dedicated tenants to come.
    pub stock_databases: u32,
    /// Schemas of each module that a bucket database keeps ready for tenants of the schema tier to come.
    pub stock_schemas: u32,
    /// How long the rows of a tenant that has moved stay at its old place, in seconds.
    pub move_grace_seconds: i64,
    /// What a move may cost others.
    pub moves: MoveLimits,
    /// The built-in directory.
    pub directory: DirectoryConfig,
}

/// What bounds a rollout's work on cells. None may be zero: PostgreSQL takes that for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutLimits {
    /// Connections at work on one cell, however many control processes there are; all of them have to be
    /// told the same.
    pub lanes: NonZeroU32,
    /// Longest wait for a lock, in milliseconds: everybody who wants the table waits behind it.
    pub lock_ms: NonZeroU32,
    /// Longest run of one statement, in seconds.
    pub statement_seconds: NonZeroU32,
}

impl RolloutLimits {
    /// What bounds one namespace's upgrade.
    pub(crate) fn upgrade(self) -> UpgradeLimits {
        UpgradeLimits {
            lock: Duration::from_millis(u64::from(self.lock_ms.get())),
            statement: Duration::from_secs(u64::from(self.statement_seconds.get())),
        }
    }
}

impl Default for RolloutLimits {
    fn default() -> Self {
        let whole = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            lanes: whole(4),
            lock_ms: whole(2_000),
            statement_seconds: whole(300),
        }
    }
}

/// What a move may cost others; past it, the move is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MoveLimits {
    /// Log that a move's slot may hold back at the old place's server, in MB. To be less than the server's
    /// `max_slot_wal_keep_size`, which takes the slot away without a word.
    pub max_held_mb: NonZeroU32,
    /// How old the snapshot of a copy may become, in minutes: no dead row of either server is removed
    /// meanwhile.
    pub max_copy_minutes: NonZeroU32,
}

impl MoveLimits {
    pub(crate) fn max_held(self) -> i64 {
        i64::from(self.max_held_mb.get()) << 20
    }

    pub(crate) fn max_copy(self) -> Duration {
        Duration::from_secs(60 * u64::from(self.max_copy_minutes.get()))
    }
}

impl Default for MoveLimits {
    fn default() -> Self {
        let whole = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            max_held_mb: whole(3 << 10),
            max_copy_minutes: whole(6 * 60),
        }
    }
}

/// A cell's administrator and the logins to make on it.
#[derive(Debug)]
pub struct CellSecrets {
    /// The administrator.
    pub admin: CellAdminConfig,
    /// The modules' logins.
    pub logins: Vec<LoginSecret>,
}

/// The built-in directory's configuration.
pub struct DirectoryConfig {
    /// Its issuer, `https://login.{domain}:{port}`.
    pub issuer: String,
    /// Its signing key.
    pub key: TokenIssuer,
    /// Whether the password grant is offered (RFC 9700 §2.4 forbids it outside development).
    pub password_grant: bool,
}

impl fmt::Debug for DirectoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryConfig({})", self.issuer)
    }
}

impl Config {
    /// The cells whose administrator's login is at hand.
    pub(crate) fn own_cells(&self) -> Vec<CellId> {
        let ids = self.cells.iter().map(|cell| cell.admin.id.clone());
        ids.collect()
    }

    /// A tenant's address.
    pub(crate) fn tenant_url(&self, slug: &str) -> String {
        format!("https://{slug}.{}:{}", self.domain, self.public_port)
    }
}
