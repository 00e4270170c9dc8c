//! One more control process or gateway beside the platform's own, from the platform's configuration.
//!
//! A second control process logs in under a name of its own, so that the server's statistics tell what
//! it alone has asked. It is killed when it is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waangu_api::Client;

use super::crowd::{Crowd, newer};
use super::database::Database;
use crate::failure::{Failure, Of as _};
use crate::memory::weigh;
use crate::process::{POLL, Process};
use crate::scratch::Scratch;

/// Its login in all servers.
const LOGIN: &str = "bench_control";
const PASSWORD: &str = "bench";

/// Longest wait until it answers.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process.
pub(super) struct Second {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Second {
    /// Starts `waangu ROLE` with a configuration file.
    pub(super) fn start(scratch: &Scratch, role: &str, config: &Path) -> Result<Self, Failure> {
        let address = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).of("port")?;
            listener.local_addr().of("port")?
        };
        let log = config.with_extension("log");
        let log = File::create(&log).of(log.display())?;
        let child = Command::new(scratch.path("programs").join("waangu"))
            .args([role, "--listen", &address.to_string(), "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .of("waangu")?;
        Ok(Self { child, address })
    }

    /// Waits until it says that it is well.
    pub(super) async fn answers(&mut self, client: &Client) -> Result<(), Failure> {
        let began = Instant::now();
        while client.probe("/healthz").await.is_err() {
            if let Some(status) = self.child.try_wait().of("waangu")? {
                return Err(Failure::new(format!(
                    "the second process ended with {status}"
                )));
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::new("the second process does not answer"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The memory that is its own, in MiB.
    pub(super) fn memory(&self) -> Option<f64> {
        let process = Process::find(self.child.id())?;
        weigh(&[process]).get("all")?.pss
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What second control processes of a platform have in common.
pub(super) struct Seconds {
    config: PathBuf,
    packages: PathBuf,
    server: Database,
}

impl Seconds {
    /// Makes the login and the configuration.
    pub(super) async fn prepare(crowd: &Crowd) -> Result<Self, Failure> {
        let server = Database::open(&crowd.stage.server, "postgres").await?;
        let role = format!("create role {LOGIN} login superuser password '{PASSWORD}'");
        server.run(&role).await?;
        let state = crowd.stage.scratch.path("state");
        let packages = crowd.stage.scratch.path("second-packages");
        std::fs::create_dir(&packages).of(packages.display())?;
        let file = state.join("run/control.toml");
        let text = std::fs::read_to_string(&file).of(file.display())?;
        let config = crowd.stage.scratch.path("second-control.toml");
        std::fs::write(&config, reworded(&text, &packages)).of(config.display())?;
        Ok(Self {
            config,
            packages,
            server,
        })
    }

    /// Starts one with a package of this version that has nothing to migrate.
    pub(super) async fn start(&self, crowd: &Crowd, version: &str) -> Result<Second, Failure> {
        let own = crowd.stage.package();
        let text = std::fs::read(&own).of(own.display())?;
        let copy = self.packages.join("ledger20.json");
        std::fs::write(&copy, newer(&text, version, None)?).of(copy.display())?;
        self.server.run("select pg_stat_statements_reset()").await?;
        Second::start(&crowd.stage.scratch, "control", &self.config)
    }

    /// How often second control processes have run each statement in each database since the last one was
    /// started, at the server that holds the registry and the cell.
    pub(super) async fn statements(&self) -> Result<Calls, Failure> {
        let sql = format!(
            "select concat_ws(' ', datname, queryid, sum(calls))
               from pg_stat_statements join pg_database d on d.oid = dbid
              where userid = '{LOGIN}'::regrole group by datname, queryid"
        );
        let mut calls = Calls::default();
        for line in self.server.all::<String>(&sql).await? {
            if let Some((statement, count)) = line.rsplit_once(' ') {
                let count = count.parse().of("calls")?;
                calls.0.insert(statement.to_owned(), count);
            }
        }
        Ok(calls)
    }

    /// How often one has run a statement in which this stands.
    pub(super) async fn count(&self, part: &str) -> Result<i64, Failure> {
        let sql = format!(
            "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
              where userid = '{LOGIN}'::regrole and query like '%{part}%'"
        );
        self.server.one(&sql).await
    }
}

/// How often each statement was run, by database and statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(BTreeMap<String, u32>);

impl Calls {
    /// All of them.
    pub(super) fn sum(&self) -> f64 {
        f64::from(self.0.values().sum::<u32>())
    }

    /// Those in bucket databases, which a control process visits one by one, and all others.
    pub(super) fn by_bucket(self) -> (Self, Self) {
        let calls = self.0.into_iter();
        let (inside, outside) =
            calls.partition(|(statement, _)| statement.starts_with("waangu_schema_"));
        (Self(inside), Self(outside))
    }

    /// Of several runs of the same, the fewest of each statement: what is asked by the clock rather than
    /// by the work is left out, as far as it was not in each run.
    pub(super) fn least(runs: &[Self]) -> Self {
        let mut runs = runs.iter();
        let mut least = runs.next().cloned().unwrap_or_default();
        for run in runs {
            least.0.retain(|statement, count| {
                let other = run.0.get(statement).copied().unwrap_or(0);
                *count = other.min(*count);
                *count > 0
            });
        }
        least
    }
}

/// The platform's configuration for a second process.
fn reworded(text: &str, packages: &Path) -> String {
    let lines = text.lines().map(|line| {
        let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
        match key {
            "registry_dsn" => {
                let server = value.rsplit_once('@').map_or("", |(_, server)| server);
                format!("{key} = \"postgres://{LOGIN}:{PASSWORD}@{server}")
            }
            "user" => format!("{key} = \"{LOGIN}\""),
            "password" => format!("{key} = \"{PASSWORD}\""),
            "packages" => format!("{key} = {:?}", packages.display().to_string()),
            "auto_rollout" => format!("{key} = true"),
            "repair_seconds" => format!("{key} = 0"),
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One look for work that only one of two deploys had time for must not count as work.
    #[test]
    fn the_least_of_several_runs_has_what_all_of_them_have() {
        let calls = |counts: [(&str, u32); 2]| Calls(counts.map(|(k, n)| (k.to_owned(), n)).into());
        let runs = [calls([("a", 3), ("b", 1)]), calls([("a", 2), ("c", 9)])];
        assert!((Calls::least(&runs).sum() - 2.0).abs() < f64::EPSILON);
        assert!(Calls::least(&[]).sum() < f64::EPSILON);
    }

    /// A visit to a bucket must not count as the deploy's work, nor the deploy's work as a visit.
    #[test]
    fn statements_in_bucket_databases_are_told_apart() {
        let count = |name: &str, count| (name.to_owned(), count);
        let calls = [
            count("waangu_schema_1 7", 3),
            count("waangu 7", 2),
            count("waangu_t_1 7", 4),
        ];
        let (inside, outside) = Calls(calls.into()).by_bucket();
        assert!((inside.sum() - 3.0).abs() < f64::EPSILON);
        assert!((outside.sum() - 6.0).abs() < f64::EPSILON);
    }

    /// A second process under the platform's own login would count the platform's statements as its own.
    #[test]
    fn a_configuration_is_reworded_for_its_own_login() {
        let text = "registry_dsn = \"postgres://a:b@127.0.0.1:5/waangu_control\"\nenvironment = \"dev\"\n\
                    packages = \"/x\"\n[[cells]]\nuser = \"postgres\"\npassword = \"p\"\n";
        let wanted = "registry_dsn = \"postgres://bench_control:bench@127.0.0.1:5/waangu_control\"\n\
                      environment = \"dev\"\npackages = \"/y\"\n[[cells]]\nuser = \"bench_control\"\n\
                      password = \"bench\"\n";
        assert_eq!(reworded(text, Path::new("/y")), wanted);
    }
}
