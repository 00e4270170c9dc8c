//! The server, the tenants and their rows on which everything is measured.
//!
//! Invariant: a stage that is dropped takes its server and its folder with it.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};
use waangu_identity::proof::Access;
use waangu_identity::{ContextKey, RequestContext};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, Placement, TenantId, Tier};
use waangu_pgserver::{Binaries, Cluster, Config, Durability, Fallback, Search, Shutdown};
use waangu_tenancy::admin::Migration;
use waangu_tenancy::{
    CellAddress, CellAdmin, CellAdminConfig, HomeState, Limits, LoginSecret, ModulePackage, Pools,
};

use super::Sizes;
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::report::Report;
use crate::scratch::{Scratch, file_system};

const HOST: &str = "127.0.0.1";
const SUPERUSER: &str = "postgres";
const MODULE: &str = "goods";
const CELL: &str = "bench";

/// Everybody's password: the server lives for minutes and answers on loopback only.
pub(super) const PASSWORD: &str = "throw-away";

/// The module's own login, whose rows the policies choose.
pub(super) const OURS: &str = "waangu_goods";

/// Bypasses row-level security and names the tenant in each statement.
pub(super) const BARE: &str = "bench_bare";

/// Under a policy with the bare setting, as people write it today.
pub(super) const TODAY: &str = "bench_today";

/// The module's one table.
const TABLE: &str = include_str!("item.sql");

/// The rows, the two peers' logins on the same table, and their rights.
const FILL: &str = include_str!("fill.sql");

/// What is set for all sides alike, and why it is no favour to one of them: no checkpoint and no
/// automatic vacuum in the middle of a batch.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_connections", "300"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
];

/// A durable server with one cell and its tenants.
#[derive(Debug)]
pub(super) struct Stage {
    cluster: Cluster,
    pub(super) admin: CellAdmin,
    pub(super) gateway: Gateway,
    // After the server, which works in it.
    scratch: Scratch,
}

impl Stage {
    /// Starts the server and fills it.
    pub(super) async fn build(
        context: &Context,
        sizes: Sizes,
        report: &mut Report,
    ) -> Result<Self, Failure> {
        context.progress.phase("server, tenants and rows", 3);
        let stage = Self::start(SETTINGS).await?;
        context.progress.step();
        stage.open_shared(sizes.tenants).await?;
        context.progress.step();
        stage.fill(sizes).await?;
        context.progress.step();
        stage.state_facts(report).await?;
        Ok(stage)
    }

    /// An empty cell on a server with these settings.
    pub(super) async fn start(settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let scratch = Scratch::new()?;
        let cluster = start_server(&scratch, settings).await?;
        let admin = CellAdmin::new(CellAdminConfig {
            id: known(CELL)?,
            host: HOST.to_owned(),
            port: cluster.port(),
            user: SUPERUSER.to_owned(),
            password: PASSWORD.to_owned(),
        });
        let stage = Self {
            cluster,
            admin,
            gateway: Gateway {
                key: ContextKey::new(1, [7; 32]),
                module: known(MODULE)?,
            },
            scratch,
        };
        let login = LoginSecret {
            module: stage.gateway.module.clone(),
            password: PASSWORD.to_owned(),
            tree_password: PASSWORD.to_owned(),
        };
        let keys = std::slice::from_ref(&stage.gateway.key);
        stage.admin.prepare(&[login], keys).await.told("cell")?;
        Ok(stage)
    }

    /// Opens the shared tier for tenants 1 to `last`.
    async fn open_shared(&self, last: i64) -> Result<(), Failure> {
        self.provision(1, Tier::Shared).await?;
        let placement = placement(Tier::Shared)?;
        let database = placement.database(tenant(1)?);
        let superuser = self.superuser(&database).await?;
        let sql = "insert into waangu.home (tenant_id, state, epoch)
                   select n, 'active', 1 from generate_series(2::bigint, $1) as n";
        superuser.execute(sql, &[&last]).await.of("homes").map(drop)
    }

    /// Makes the place, the module's tables and the home of one tenant, as the control plane does.
    pub(super) async fn provision(&self, number: i64, tier: Tier) -> Result<(), Failure> {
        let (tenant, placement) = (tenant(number)?, placement(tier)?);
        let admin = &self.admin;
        admin.ensure_place(tenant, &placement).await.told("place")?;
        admin
            .ensure_module(tenant, &placement, &package()?)
            .await
            .told("module")?;
        admin
            .put_home(tenant, &placement, HomeState::Active)
            .await
            .told("home")
    }

    async fn fill(&self, sizes: Sizes) -> Result<(), Failure> {
        let superuser = self.superuser(&shared()?).await?;
        let script = FILL
            .replace(":tenants", &sizes.tenants.to_string())
            .replace(":rows", &sizes.rows.to_string())
            .replace(":password", PASSWORD);
        superuser.batch_execute(&script).await.of("rows")?;
        // Not possible inside a script, which is one transaction.
        for sql in ["vacuum (freeze, analyze) goods.item", "checkpoint"] {
            superuser.batch_execute(sql).await.of(sql)?;
        }
        Ok(())
    }

    async fn state_facts(&self, report: &mut Report) -> Result<(), Failure> {
        let superuser = self.superuser("postgres").await?;
        for name in [
            "server_version",
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "shared_buffers",
            "autovacuum",
            "jit",
        ] {
            let row = superuser
                .query_one("select current_setting($1)", &[&name])
                .await
                .of(name)?;
            let value: String = row.try_get(0).of(name)?;
            report.facts.insert(name.to_owned(), value);
        }
        if let Some(kind) = file_system(self.cluster.data_dir()) {
            report.facts.insert("file system".to_owned(), kind);
        }
        Ok(())
    }

    /// Stops the server and removes everything.
    pub(super) async fn strike(mut self) -> Result<(), Failure> {
        let patience = Duration::from_secs(5);
        self.cluster
            .stop(Shutdown::Immediate, patience)
            .await
            .of("end of the server")?;
        drop(self.cluster);
        self.scratch.remove()
    }

    /// A path in the stage's folder.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path(name)
    }

    /// The server's process, all of whose descendants belong to it.
    pub(super) fn server_pid(&self) -> Option<u32> {
        self.cluster.pid()
    }

    /// The server's port on loopback.
    pub(super) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// A session of the superuser, to look from outside.
    pub(super) async fn superuser(&self, database: &str) -> Result<Client, Failure> {
        connect(SUPERUSER, database, self.port()).await
    }

    /// A module's pools, whose connections go to this port.
    pub(super) fn pools(&self, port: u16) -> Result<Pools, Failure> {
        self.limited_pools(port, Limits::default())
    }

    /// The same, with other bounds.
    pub(super) fn limited_pools(&self, port: u16, limits: Limits) -> Result<Pools, Failure> {
        let login = Access::Write.login(&self.gateway.module);
        Ok(Pools::for_login(login, vec![address(port)?], limits))
    }

    /// A module's pools for subtrees.
    pub(super) fn tree_pools(&self) -> Result<Pools, Failure> {
        let addresses = vec![address(self.port())?];
        Ok(Pools::tree(&self.gateway.module, addresses))
    }
}

/// Makes contexts with proofs, as the gateway would.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    key: ContextKey,
    module: ModuleId,
}

impl Gateway {
    /// A request's context with a proof of its own.
    pub(super) fn context(
        &self,
        number: i64,
        tier: Tier,
        access: Access,
    ) -> Result<RequestContext, Failure> {
        let (tenant, placement) = (tenant(number)?, placement(tier)?);
        let (module, key) = (&self.module, &self.key);
        Ok(waangu_testkit::context(
            tenant, &placement, module, access, key,
        ))
    }
}

/// The database of the shared tier.
pub(super) fn shared() -> Result<String, Failure> {
    Ok(placement(Tier::Shared)?.database(tenant(1)?))
}

pub(super) fn placement(tier: Tier) -> Result<Placement, Failure> {
    Ok(Placement {
        cell: known(CELL)?,
        tier,
        bucket: 0,
        epoch: 1,
    })
}

fn address(port: u16) -> Result<CellAddress, Failure> {
    Ok(CellAddress {
        id: known(CELL)?,
        host: HOST.to_owned(),
        port,
        password: PASSWORD.to_owned(),
    })
}

async fn start_server(scratch: &Scratch, settings: &[(&str, &str)]) -> Result<Cluster, Failure> {
    let path = search_path();
    let cache = scratch.path("cache");
    let search = Search {
        chosen: None,
        path: &path,
        cache: &cache,
        major: None,
        fallback: Fallback::Download,
    };
    let quiet = |_: &str| {};
    let binaries = Binaries::find(&search, &quiet).await.of("PostgreSQL")?;
    // Deleted with the handle; durable all the same by `SETTINGS`, which come last and win.
    let mut config = Config {
        durability: Durability::Throwaway,
        ..Config::new(CELL, scratch.path("data"), SUPERUSER, PASSWORD)
    };
    for (name, value) in settings {
        config = config.with(*name, *value);
    }
    let mut cluster = Cluster::create_or_open(binaries, config, &quiet)
        .await
        .of("server")?;
    cluster.start().await.of("server")?;
    Ok(cluster)
}

/// With what PostgreSQL said, which is not for clients but for whoever measures.
pub(super) trait Told<T> {
    fn told(self, what: &str) -> Result<T, Failure>;
}

impl<T> Told<T> for Result<T, Fault> {
    fn told(self, what: &str) -> Result<T, Failure> {
        self.map_err(|fault| {
            let cause = fault.operator_cause().unwrap_or("no cause");
            Failure::new(format!("{what}: {fault}: {cause}"))
        })
    }
}

/// A plain session. Its errors say who could not connect.
pub(super) async fn connect(user: &str, database: &str, port: u16) -> Result<Client, Failure> {
    let config = session_config(user, database, port);
    let connected = config.connect(NoTls).await;
    let (client, connection) = connected.of(format!("{user} to {database}"))?;
    drop(tokio::runtime::Handle::current().spawn(connection));
    Ok(client)
}

/// How a plain session is reached.
pub(super) fn session_config(user: &str, database: &str, port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host(HOST)
        .port(port)
        .user(user)
        .password(PASSWORD)
        .dbname(database);
    config
}

pub(super) fn tenant(number: i64) -> Result<TenantId, Failure> {
    TenantId::new(number).of("tenant")
}

fn known<T: std::str::FromStr<Err = Fault>>(name: &str) -> Result<T, Failure> {
    name.parse().of(name)
}

fn package() -> Result<ModulePackage, Failure> {
    let manifest = format!(
        "id = '{MODULE}'\nversion = '0.1.0'\ntitle = {{ en = 'Bench' }}\nroutes = []\n\
         [permissions]\n[roles]\n"
    );
    Ok(ModulePackage {
        manifest: Manifest::parse(&manifest).of("manifest")?,
        migrations: vec![Migration {
            name: "item".to_owned(),
            sql: TABLE.to_owned(),
        }],
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "PostgreSQL is found where programs are found; the bench has no configuration"
)]
fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}
