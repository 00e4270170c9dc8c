//! What the tests share: programs, folders, sessions, and a supervisor that can be killed.

use std::{
    error::Error,
    ffi::OsStr,
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, NoTls};
use waangu_pgserver::{Binaries, Cluster, Config, Durability, Fallback, Search};

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

pub(crate) const PASSWORD: &str = "p@ss/w:rd %1";
pub(crate) const PATH: &str = match option_env!("PATH") {
    Some(path) => path,
    None => "/usr/local/bin:/usr/bin:/bin",
};

pub(crate) fn quiet(_: &str) {}

pub(crate) fn skipped(test: &str, reason: &str) -> io::Result<()> {
    writeln!(io::stderr(), "skipped {test}: {reason}")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn search(cache: &Path) -> Search<'_> {
    let path = OsStr::new(PATH);
    Search {
        chosen: None,
        path,
        cache,
        major: None,
        fallback: Fallback::Download,
    }
}

pub(crate) async fn binaries() -> Result<Binaries, Box<dyn Error>> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgresql");
    Ok(Binaries::find(&search(&cache), &quiet).await?)
}

/// A folder that everybody may enter, so that files stay in it even for root.
pub(crate) fn open_folder() -> io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

pub(crate) fn durable(folder: &Path) -> Config {
    Config::new("test", folder.join("data"), "the admin", PASSWORD).with("shared_buffers", "16MB")
}

pub(crate) fn throwaway(folder: &Path) -> Config {
    Config {
        durability: Durability::Throwaway,
        ..durable(folder)
    }
}

pub(crate) async fn open(config: Config) -> Result<Cluster, Box<dyn Error>> {
    Ok(Cluster::create_or_open(binaries().await?, config, &quiet).await?)
}

pub(crate) async fn started(config: Config) -> Result<Cluster, Box<dyn Error>> {
    let mut cluster = open(config).await?;
    cluster.start().await?;
    Ok(cluster)
}

/// A session as superuser; its connection ends with it.
pub(crate) struct Session {
    pub(crate) client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self, tokio_postgres::Error> {
        Self::with(&cluster.superuser_dsn("postgres")).await
    }

    pub(crate) async fn with(dsn: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            connection.await.ok();
        });
        Ok(Self {
            client,
            _connection: tasks,
        })
    }

    pub(crate) async fn text(&self, sql: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }
}

pub(crate) async fn keep_a_row(cluster: &Cluster) -> Outcome {
    let session = Session::new(cluster).await?;
    session
        .client
        .batch_execute("create table kept (v text); insert into kept values ('yes')")
        .await?;
    Ok(())
}

pub(crate) async fn row_is_kept(cluster: &Cluster) -> Outcome {
    let session = Session::new(cluster).await?;
    assert_eq!(session.text("select v from kept").await?, "yes");
    Ok(())
}

/// Another process that opens and starts a server in a folder, and then waits to be killed.
pub(crate) struct Supervisor(Child);

impl Supervisor {
    pub(crate) fn new(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "support::supervisor_to_be_killed"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        writeln!(input, "{}", folder.display())?;
        Ok(Self(child))
    }

    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

/// Not a test: the other side of [`Supervisor`].
#[tokio::test]
#[ignore = "started by other tests, as a process of its own"]
async fn supervisor_to_be_killed() -> Outcome {
    let mut folder = String::new();
    io::stdin().read_line(&mut folder)?;
    let folder = PathBuf::from(folder.trim());
    if !folder.is_dir() {
        return Ok(());
    }
    let mut cluster = started(durable(&folder)).await?;
    fs::write(
        folder.join("started"),
        cluster.pid().map(|pid| pid.to_string()).unwrap_or_default(),
    )?;
    cluster.wait().await?;
    Ok(())
}

/// Polls until something is there.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> Result<T, Box<dyn Error>> {
    let found = timeout(Duration::from_mins(1), async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    Ok(found.await?)
}
