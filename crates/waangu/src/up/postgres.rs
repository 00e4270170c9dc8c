//! The private PostgreSQL servers: one per cell; the first also holds the control database.

use std::path::Path;
use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, RegionId};
use waangu_pgserver::{Binaries, Cluster, Config, Fallback, Search, Shutdown, made_by};

use super::progress::Progress;
use super::secrets::Secrets;
use super::state::State;
use crate::cli::UpOptions;
use crate::config::{cache_folder, search_path};
use crate::failure::{Failure, Of as _};

/// The administrator's login on every cell.
pub(crate) const SUPERUSER: &str = "postgres";

/// The control database (architecture §5).
pub(crate) const CONTROL_DATABASE: &str = "waangu_control";

/// Longest wait for a server to end by itself.
const PATIENCE: Duration = Duration::from_secs(4);

/// Pause before a server that died is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// A cell that gets a server here.
#[derive(Debug)]
pub(crate) struct OwnCell {
    /// Its id.
    pub(crate) id: CellId,
    /// Where it is said to stand.
    pub(crate) region: RegionId,
}

/// A cell's server.
pub(crate) struct Server {
    /// The cell.
    pub(crate) id: CellId,
    /// Where it is said to stand.
    pub(crate) region: RegionId,
    /// Its port.
    pub(crate) port: u16,
    /// The administrator's password.
    pub(crate) password: String,
}

impl Server {
    /// A DSN of one of its logins; passwords here are URL-safe.
    pub(crate) fn dsn(&self, user: &str, password: &str, database: &str) -> String {
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// A DSN of the administrator.
    pub(crate) fn superuser_dsn(&self, database: &str) -> String {
        self.dsn(SUPERUSER, &self.password, database)
    }
}

/// Finds PostgreSQL's programs.
pub(crate) async fn find(
    state: &State,
    options: &UpOptions,
    progress: &Progress,
) -> Result<Binaries, Failure> {
    let cache = match &options.pg_cache {
        Some(folder) => folder.clone(),
        None => cache_folder()
            .unwrap_or_else(|| state.path("cache"))
            .join("postgresql"),
    };
    let path = search_path();
    let search = Search {
        chosen: options.pg_bin.as_deref(),
        path: &path,
        cache: &cache,
        major: existing_major(&state.path("pg"))?,
        fallback: Fallback::Download,
    };
    Ok(Binaries::find(&search, &|text| progress.note(text)).await?)
}

/// The major version that made the data that is already here.
pub(crate) fn existing_major(folder: &Path) -> Result<Option<u16>, Failure> {
    for entry in std::fs::read_dir(folder).of(folder.display())? {
        let path = entry.of(folder.display())?.path();
        if let Some(major) = made_by(&path.join("data"))? {
            return Ok(Some(major));
        }
    }
    Ok(None)
}

/// Creates or opens the cell's server and starts it.
pub(crate) async fn start(
    state: &State,
    binaries: &Binaries,
    secrets: &Secrets,
    cell: &OwnCell,
    note: &(dyn Fn(&str) + Sync),
) -> Result<(Server, Cluster), Failure> {
    let password = secrets
        .cells
        .get(&cell.id)
        .cloned()
        .ok_or_else(|| Failure::failed(format!("cell {} has no password", cell.id)))?;
    let data = state.path("pg").join(cell.id.as_str()).join("data");
    let config = Config::new(cell.id.as_str(), data, SUPERUSER, &password);
    let mut cluster = Cluster::create_or_open(binaries.clone(), config, note).await?;
    cluster.start().await?;
    let port = cluster.port();
    let server = Server {
        id: cell.id.clone(),
        region: cell.region.clone(),
        port,
        password,
    };
    Ok((server, cluster))
}

/// Makes the control database and its two logins.
pub(crate) async fn prepare_control(server: &Server, secrets: &Secrets) -> Result<(), Failure> {
    let dsn = server.superuser_dsn("postgres");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls)
        .await
        .of("control database")?;
    let work = async {
        for (login, password) in [
            ("waangu_control", &secrets.control_password),
            ("waangu_gateway", &secrets.gateway_password),
        ] {
            // A verifier (RFC 5803), so that no log can show the password; from a closed alphabet.
            let password = scram_sha_256(password.as_bytes());
            let sql = format!(
                "do $$ begin
                     if to_regrole('{login}') is null then create role {login} login; end if;
                 end $$;
                 alter role {login} password '{password}'"
            );
            client.batch_execute(&sql).await?;
        }
        let exists = "select from pg_database where datname = $1";
        if client
            .query_opt(exists, &[&CONTROL_DATABASE])
            .await?
            .is_none()
        {
            let sql = format!("create database {CONTROL_DATABASE} owner waangu_control");
            client.batch_execute(&sql).await?;
        }
        let sql = format!(
            "revoke all on database {CONTROL_DATABASE} from public;
             grant connect on database {CONTROL_DATABASE} to waangu_gateway"
        );
        client.batch_execute(&sql).await
    };
    tokio::select! {
        done = work => done.of("control database"),
        ended = connection => Err(ended.of("control database").err().unwrap_or_else(|| {
            Failure::failed("the control database closed the connection")
        })),
    }
}

/// Starts a server again whenever it dies, until told to stop; then stops it.
pub(crate) async fn supervise(
    name: CellId,
    mut cluster: Cluster,
    stop: CancellationToken,
) -> Result<(), Failure> {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => {
                cluster.stop(Shutdown::Fast, PATIENCE).await?;
                return Ok(());
            }
            ended = cluster.wait() => ended?,
        };
        tracing::warn!(cell = %name, reason = ended.reason, "PostgreSQL ended ({})", ended.status);
        let again = async {
            loop {
                tokio::time::sleep(PAUSE).await;
                match cluster.start().await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(cell = %name, "PostgreSQL does not start again: {error}");
                    }
                }
            }
        };
        tokio::select! {
            () = again => {}
            () = stop.cancelled() => {
                cluster.stop(Shutdown::Fast, PATIENCE).await?;
                return Ok(());
            }
        }
    }
}
