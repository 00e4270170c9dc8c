//! Configuration files of the control plane and the gateway. They hold secrets: mode 0600.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use waangu_api::world::World;
use waangu_control::{CellSecrets, DirectoryConfig, KeyFiles, MoveLimits, RolloutLimits};
use waangu_identity::{SigningKey, TokenIssuer};
use waangu_kernel::{CellId, ModuleId};
use waangu_tenancy::{CellAdminConfig, LoginSecret, ModulePackage};

use crate::failure::{Failure, Of as _};

/// The key that proves tenant contexts to PostgreSQL, as programs before the ring kept it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFile {
    /// Its number.
    pub(crate) kid: i32,
    /// 32 bytes, base64.
    pub(crate) secret: String,
}

/// A cell's administrator and the modules' passwords on it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CellFile {
    /// The cell.
    pub(crate) id: CellId,
    /// Host name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// The administrator.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// Password of each module's login.
    pub(crate) logins: BTreeMap<ModuleId, String>,
    /// Password of each module's login that reads subtrees.
    pub(crate) trees: BTreeMap<ModuleId, String>,
}

/// `control.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlFile {
    /// The control database.
    pub(crate) registry_dsn: String,
    /// `dev`, `test`, `preprod` or `prod`.
    pub(crate) environment: String,
    /// The domain whose sub-domains are tenants.
    pub(crate) domain: String,
    /// The gateway's port, as clients see it.
    pub(crate) public_port: u16,
    /// How long a deleted tenant's slug stays taken, in seconds.
    pub(crate) name_grace_seconds: i64,
    /// SHA-256 of the operator's token, hex.
    pub(crate) operator_token_sha256: String,
    /// The directory's issuer.
    pub(crate) issuer: String,
    /// The directory's signing key, PKCS#8.
    pub(crate) directory_key: PathBuf,
    /// Whether a newer package goes to all tenants at the start, without an operator.
    #[serde(default)]
    pub(crate) auto_rollout: bool,
    /// Seconds from one look for drift at all cells to the next; 0: only when asked.
    #[serde(default = "hourly")]
    pub(crate) repair_seconds: i64,
    /// Databases that each cell keeps ready for dedicated tenants to come.
    #[serde(default)]
    pub(crate) stock_databases: u32,
    /// Schemas of each module that a bucket database keeps ready for tenants of the schema tier to come.
    #[serde(default)]
    pub(crate) stock_schemas: u32,
    /// How long the rows of a tenant that has moved stay at its old place, in seconds.
    #[serde(default = "quarter")]
    pub(crate) move_grace_seconds: i64,
    /// A folder of module packages (`waangu-<module> package`).
    pub(crate) packages: PathBuf,
    /// The gateway's keys.
    pub(crate) key_ring: PathBuf,
    /// Their public halves, for modules.
    pub(crate) public_keys: PathBuf,
    /// How long a replaced key is accepted, in seconds.
    pub(crate) key_grace_seconds: i64,
    /// What bounds a rollout's work on cells.
    #[serde(default)]
    pub(crate) rollouts: RolloutLimits,
    /// What a move may cost others.
    #[serde(default)]
    pub(crate) moves: MoveLimits,
    /// The cells.
    pub(crate) cells: Vec<CellFile>,
    /// The world that an empty registry begins with.
    pub(crate) world: World,
}

impl ControlFile {
    /// What the control plane is told.
    pub(crate) fn into_config(self) -> Result<waangu_control::Config, Failure> {
        let key = read_signing_key(&self.directory_key)?;
        let cells = self
            .cells
            .into_iter()
            .map(cell_secrets)
            .collect::<Result<_, _>>()?;
        Ok(waangu_control::Config {
            registry_dsn: self.registry_dsn,
            domain: self.domain,
            public_port: self.public_port,
            name_grace_seconds: self.name_grace_seconds,
            cells,
            keys: KeyFiles {
                ring: self.key_ring,
                public: self.public_keys,
                grace: self.key_grace_seconds,
            },
            auto_rollout: self.auto_rollout,
            rollouts: self.rollouts,
            moves: self.moves,
            repair_seconds: self.repair_seconds,
            stock_databases: self.stock_databases,
            stock_schemas: self.stock_schemas,
            move_grace_seconds: self.move_grace_seconds,
            packages: read_packages(&self.packages)?,
            waiting: Vec::new(),
            refused: Vec::new(),
            world: self.world,
            operator: (self.operator_token_sha256, "up".to_owned()),
            directory: DirectoryConfig {
                issuer: self.issuer,
                key: TokenIssuer::new(key),
                password_grant: self.environment == "dev",
            },
            environment: self.environment,
        })
    }
}

fn hourly() -> i64 {
    3600
}

fn quarter() -> i64 {
    15 * 60
}

/// `gateway.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayFile {
    /// The domain whose sub-domains are tenants.
    pub(crate) domain: String,
    /// The gateway's port, as clients see it.
    pub(crate) public_port: u16,
    /// Where the control plane answers.
    pub(crate) control: SocketAddr,
    /// The control database, as `waangu_gateway`.
    pub(crate) registry_dsn: String,
    /// The directory's issuer.
    pub(crate) issuer: String,
    /// Certificate chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) private_key: PathBuf,
    /// The keys that sign contexts and prove them to PostgreSQL.
    pub(crate) key_ring: PathBuf,
    /// Where each module answers.
    pub(crate) modules: BTreeMap<ModuleId, SocketAddr>,
}

/// Where programs are looked for.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where configuration is read"
)]
pub(crate) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The user's cache folder for this program (XDG Base Directory Specification 0.8 §3).
#[expect(
    clippy::disallowed_methods,
    reason = "this is where configuration is read"
)]
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    base.map(|base| base.join("waangu"))
}

/// Reads a configuration file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).of(path.display())?;
    parse(&text, path.display())
}

/// Parses a file that holds secrets: the parser's own report would repeat the line that it stumbled
/// over.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, what: impl Display) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.unwrap_or_default().matches('\n').count() + 1;
        let why = error.message().lines().next().unwrap_or_default();
        Failure::failed(format!("{what}, line {line}: {why}"))
    })
}

/// Reads a signing key.
pub(crate) fn read_signing_key(path: &Path) -> Result<SigningKey, Failure> {
    let bytes = std::fs::read(path).of(path.display())?;
    SigningKey::from_pkcs8(&bytes).of(path.display())
}

fn cell_secrets(cell: CellFile) -> Result<CellSecrets, Failure> {
    let CellFile {
        id,
        host,
        port,
        user,
        password,
        logins,
        mut trees,
    } = cell;
    let logins = logins
        .into_iter()
        .map(|(module, password)| {
            let tree_password = trees.remove(&module).ok_or_else(|| {
                Failure::failed(format!("module {module} has no password for subtrees"))
            })?;
            Ok(LoginSecret {
                module,
                password,
                tree_password,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(CellSecrets {
        admin: CellAdminConfig {
            id,
            host,
            port,
            user,
            password,
        },
        logins,
    })
}

fn read_packages(folder: &Path) -> Result<Vec<ModulePackage>, Failure> {
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(folder).of(folder.display())? {
        let path = entry.of(folder.display())?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read_to_string(&path).of(path.display())?;
            packages.push(serde_json::from_str(&text).of(path.display())?);
        }
    }
    Ok(packages)
}
