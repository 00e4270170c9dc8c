//! A running throw-away server, and the one that all tests of a binary share.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};
use waangu_pgserver::{Binaries, Cluster, Config, Durability, Fallback, Search, Shutdown};

use crate::watchdog::Watchdog;
use crate::{cell, control};

pub(crate) const SUPERUSER: &str = "postgres";
pub(crate) const PASSWORD: &str = "throw-away";
pub(crate) const HOST: &str = "127.0.0.1";

/// A running server. It ends with the process.
#[derive(Debug, Clone)]
pub struct Server {
    port: u16,
    crashes: tokio::sync::mpsc::Sender<oneshot::Sender<()>>,
}

impl Server {
    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string of the superuser.
    pub fn superuser_dsn(&self, database: &str) -> String {
        self.dsn(SUPERUSER, PASSWORD, database)
    }

    /// A connection string; the parts must not need encoding.
    pub(crate) fn dsn(&self, user: &str, password: &str, database: &str) -> String {
        format!(
            "postgresql://{user}:{password}@{HOST}:{}/{database}",
            self.port
        )
    }

    /// Kills the server and starts it again; all sessions end.
    pub(crate) async fn crash(&self) {
        let (done, again) = oneshot::channel();
        self.crashes
            .send(done)
            .await
            .expect("the test server's thread lives");
        again.await.expect("the test server starts again");
    }

    /// Starts a server on a thread of its own and waits until `prepare` is done with it there.
    pub(crate) fn start(prepare: fn(&Server) -> Preparation<'_>) -> Self {
        let (ready, started) = mpsc::channel();
        let keep = move || {
            let mut watchdog = Watchdog::start();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("make a runtime for the test server");
            runtime.block_on(async move {
                let mut cluster = run(&mut watchdog).await;
                let (crashes, mut wanted) = tokio::sync::mpsc::channel(1);
                let server = Self {
                    port: cluster.port(),
                    crashes,
                };
                prepare(&server).await;
                ready
                    .send(server.clone())
                    .expect("a test waits for its server");
                // All live as long as the process.
                while let Some(done) = wanted.recv().await {
                    crash(&mut cluster).await;
                    // The test that asked may have ended.
                    let _gone = done.send(());
                }
                drop((server, watchdog));
            });
        };
        thread::Builder::new()
            .name("waangu-testkit".to_owned())
            .spawn(keep)
            .expect("start the test server's thread");
        started
            .recv()
            .expect("the test server starts (its thread has said why not)")
    }
}

/// What is done to a new server before anybody gets it.
pub(crate) type Preparation<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The server that all tests of this binary share; the first caller starts it.
///
/// # Panics
/// When there is no PostgreSQL and none can be fetched.
pub async fn cluster() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    let start = || {
        SHARED.get_or_init(|| {
            Server::start(|server| {
                Box::pin(async {
                    cell::prepare(server).await;
                    control::prepare(server).await;
                })
            })
        })
    };
    tokio::task::spawn_blocking(start)
        .await
        .expect("the shared test server starts")
}

/// A plain session, driven by the caller's runtime.
///
/// # Errors
/// The driver's: tests look at what PostgreSQL says.
pub async fn connect(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    drop(Handle::current().spawn(connection));
    Ok(client)
}

async fn crash(cluster: &mut Cluster) {
    let stopped = cluster.stop(Shutdown::Kill, Duration::from_secs(5)).await;
    stopped.expect("kill the test server");
    cluster.start().await.expect("start the test server again");
}

async fn run(watchdog: &mut Watchdog) -> Cluster {
    let quiet = |_: &str| {};
    let path = search_path();
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/postgresql");
    let search = Search {
        chosen: None,
        path: &path,
        cache: &cache,
        major: None,
        fallback: Fallback::Download,
    };
    let binaries = Binaries::find(&search, &quiet)
        .await
        .expect("find PostgreSQL for tests");
    // Open to all, because a server started by root runs as somebody else.
    let folder = tempfile::Builder::new()
        .prefix("waangu-test-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .expect("make a folder for the test server")
        .keep();
    let folder = folder.canonicalize().expect("find the folder just made");
    watchdog.watch(&folder);
    let config = Config {
        durability: Durability::Throwaway,
        ..Config::new("test", folder.join("data"), SUPERUSER, PASSWORD)
    };
    let config = config
        .with("shared_buffers", "64MB")
        .with("max_connections", "300")
        .with("autovacuum", "off");
    let mut cluster = Cluster::create_or_open(binaries, config, &quiet)
        .await
        .expect("create the test server");
    // Elsewhere, if the server's user can't get into the folder asked for.
    if let Some(parent) = cluster.data_dir().parent()
        && parent != folder
    {
        watchdog.watch(parent);
    }
    cluster.start().await.expect("start the test server");
    cluster
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration to read it from"
)]
fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}
