//! One end of a move: sessions of a cell's administrator in the tenant's database.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls};
use waangu_kernel::{ModuleId, Placement, TenantId};
use waangu_tenancy::CellAdminConfig;

use crate::Error;

/// Longest wait for a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Longest time that a peer may be silent before its connection counts as lost.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);

/// Values are carried and compared as text, so both ends must write them alike and in full. A server has
/// to notice, too, that we are gone: until then it keeps our claim, and nobody could go on.
pub(crate) const SETTINGS: &str = "set datestyle = 'ISO, YMD'; set timezone = 'UTC'; set intervalstyle = 'postgres';
    set extra_float_digits = 3; set bytea_output = 'hex'; set lc_monetary = 'C'; set client_encoding = 'UTF8';
    set search_path = pg_catalog; set row_security = off; set synchronous_commit = on;
    set lock_timeout = '10s'; set idle_in_transaction_session_timeout = '60s';
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 2;
    set tcp_user_timeout = '20s'";

/// One end of a move.
#[derive(Debug, Clone)]
pub struct Side {
    /// How to reach the cell, as its administrator.
    pub cell: CellAdminConfig,
    /// The tenant's place there.
    pub placement: Placement,
}

impl Side {
    /// A session in the tenant's database.
    pub(crate) async fn session(&self, tenant: TenantId) -> Result<Client, Error> {
        connect(&self.cell, &self.placement.database(tenant)).await
    }

    pub(crate) fn schema(&self, tenant: TenantId, module: &ModuleId) -> String {
        self.placement.schema(tenant, module)
    }
}

/// A session in any database of a cell.
pub(crate) async fn connect(cell: &CellAdminConfig, database: &str) -> Result<Client, Error> {
    let mut config = Config::new();
    config
        .host(&cell.host)
        .port(cell.port)
        .user(&cell.user)
        .password(&cell.password)
        .dbname(database)
        .application_name("waangu-relocation")
        .connect_timeout(CONNECT)
        .keepalives_idle(SILENCE / 2)
        .keepalives_interval(SILENCE / 4)
        .keepalives_retries(2)
        .tcp_user_timeout(SILENCE);
    let opened = async {
        let (client, connection) = config.connect(NoTls).await?;
        // Ends when the client is dropped.
        drop(Handle::current().spawn(connection));
        client.batch_execute(SETTINGS).await?;
        Ok(client)
    };
    tokio::time::timeout(CONNECT, opened)
        .await
        .unwrap_or_else(|_late| Err(Error::Database("no connection in time".to_owned())))
}

/// A quoted identifier (PostgreSQL documentation §4.1.1).
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
