//! What comes after onboarding: many tenants at once to begin with, the next migration, the command that
//! takes it to all of them, and a look at what it has made of each.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{DATABASE, Django, PATIENCE, command, deploy};
use crate::failure::{Failure, Of as _};
use crate::peers::ledger20::{self, Side};
use crate::peers::python::output;
use crate::peers::{Pass, Tries};

/// A tenant as [`Django::fill`] makes it: what the pattern's migrations have made, by the same SQL.
const FILL: &str = "create schema SCHEMA; set search_path = SCHEMA;
create table django_migrations (like pattern.django_migrations including all);
insert into django_migrations (app, name, applied)
select app, name, applied from pattern.django_migrations order by id;
insert into public.clients_client (schema_name) values ('SCHEMA');
";

/// Of each tenant: whether the column, the index and the record of the newest migration are there.
const LOOK: &str = "select c.schema_name
     , exists (select from pg_attribute a
                where a.attrelid = to_regclass(c.schema_name || '.party') and a.attname = $2)
     , to_regclass(c.schema_name || '.party_' || $2) is not null
     , (xpath('//n/text()', query_to_xml(format(
            'select count(*) as n from %I.django_migrations where app = %L and name = %L'
          , c.schema_name, 'ledger20', $1::text), false, true, '')))[1]::text = '1'
  from public.clients_client c
 order by c.schema_name";

/// How `migrate_schemas` goes over the tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executor {
    Standard,
    /// Four processes.
    Multiprocessing,
}

impl Executor {
    pub(crate) const ALL: [Self; 2] = [Self::Standard, Self::Multiprocessing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Multiprocessing => "multiprocessing",
        }
    }
}

/// What an upgrade has made of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Before,
    After,
    /// The tables and the record of migrations do not agree.
    Between,
}

impl Django {
    /// Tenants for measurements that begin with many, by SQL and so many connections: the same tables
    /// and records as the pattern has. Not for the clock.
    pub(crate) async fn fill(
        &self,
        at_once: usize,
        numbers: std::ops::Range<usize>,
    ) -> Result<(), Failure> {
        let mut clients = Vec::new();
        for _ in 0..at_once {
            clients.push(self.server.connect(DATABASE).await?);
        }
        let tables = ledger20::whole(Side::Plain);
        Pass::run(clients, numbers, async |client, number| {
            let sql = FILL.replace("SCHEMA", &format!("filled_{number}")) + &tables;
            let whole = format!("begin; {sql} commit");
            client.batch_execute(&whole).await.of("fill")?;
            Ok(Tries::default())
        })
        .await?;
        Ok(())
    }

    /// Adds a migration to the project, after the last one.
    pub(crate) fn deploy(&mut self, name: &str, sql: &str) -> Result<(), Failure> {
        deploy(&self.folder, name, Some(&self.last), sql)?;
        name.clone_into(&mut self.last);
        Ok(())
    }

    /// The command that migrates all tenants.
    pub(crate) fn migrate(&self, executor: Executor) -> Command {
        let mut command = command(&self.server, &self.python, &self.folder, "manage.py");
        command
            .args(["migrate_schemas", "--tenant", "-v", "0"])
            .arg(format!("--executor={}", executor.name()));
        command
    }

    /// Migrates all tenants; the time is that of the command.
    pub(crate) async fn migrate_all(&self, executor: Executor) -> Result<Duration, Failure> {
        let began = Instant::now();
        output(self.migrate(executor), PATIENCE).await?;
        Ok(began.elapsed())
    }

    /// The same, to be killed: its own process group, so that its processes can be found.
    pub(crate) fn begin_to_migrate(&self, executor: Executor) -> Result<Child, Failure> {
        let mut command = self.migrate(executor);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().of("migrate_schemas")
    }

    /// Where each tenant stands with the last migration, which brings this column.
    pub(crate) async fn look(&self, column: &str) -> Result<Vec<(String, Seen)>, Failure> {
        let client = self.server.connect(DATABASE).await?;
        let rows = client
            .query(LOOK, &[&self.last, &column])
            .await
            .of("look")?;
        let seen = |row: &tokio_postgres::Row| {
            let found = [1, 2, 3].map(|at| row.try_get(at).unwrap_or(false));
            match found {
                [false, false, false] => Seen::Before,
                [true, true, true] => Seen::After,
                _ => Seen::Between,
            }
        };
        rows.iter()
            .map(|row| Ok((row.try_get(0).of("look")?, seen(row))))
            .collect()
    }
}
