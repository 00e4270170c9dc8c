//! Time on the CPU, from `/proc/PID/schedstat` (its first number, nanoseconds): what a piece of work
//! costs even when others take the processors away in between.

use std::fs;
use std::time::Duration;

use tokio_postgres::Client;

use crate::failure::{Failure, Of as _};

/// The backends of one login.
#[derive(Debug)]
pub(super) struct Backends<'a> {
    superuser: &'a Client,
    login: &'static str,
}

impl<'a> Backends<'a> {
    pub(super) fn of(superuser: &'a Client, login: &'static str) -> Self {
        Self { superuser, login }
    }

    /// What they have used so far. Two looks can be compared while the same backends live.
    pub(super) async fn used(&self) -> Result<Duration, Failure> {
        let sql = "select pid from pg_stat_activity where usename = $1";
        let rows = self
            .superuser
            .query(sql, &[&self.login])
            .await
            .of("backends")?;
        let mut sum = Duration::ZERO;
        for row in rows {
            let pid: i32 = row.try_get(0).of("backends")?;
            sum += on_cpu(&format!("/proc/{pid}/schedstat"));
        }
        Ok(sum)
    }
}

/// What all threads of this process have used.
pub(super) fn our_own() -> Duration {
    fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| on_cpu(&thread.path().join("schedstat").to_string_lossy()))
        .sum()
}

/// Nothing for a process that has ended.
fn on_cpu(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
