//! A platform with many tenants, and what benches do to it.
//!
//! Tenants of the schema tier come through the front door, four clients at once, and have tables of
//! their own in bucket databases, as anybody's have. Those of the shared tier, which are rows only, are
//! written by SQL, in the registry and in the cell; that all of it is as the platform would have made it
//! is what its own look for drift has to find (the bench fails otherwise).

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use waangu_api::fleet::RolloutView;
use waangu_kernel::Tier;

use super::database::Database;
use super::onboarding::tenant;
use super::stage::{CELL, COUNTRY, Stage};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::peers::ledger20;
use crate::process::Process;

/// Clients at once.
const CLIENTS: usize = 4;

/// Schemas in one database: what a cell has if nothing is said.
const BUCKET_LIMIT: u32 = 400;

/// Longest wait for one step of a deployment, and for a rollout.
const PATIENCE: Duration = Duration::from_mins(1);
const ROLLOUT: Duration = Duration::from_mins(10);

/// Pause between two looks at something that is measured.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// A platform whose server counts statements, and who is on it.
pub(super) struct Crowd {
    pub(super) stage: Stage,
    /// The control database.
    pub(super) registry: Database,
    /// Tenants with a schema of their own.
    pub(super) schemas: usize,
}

impl Crowd {
    /// An empty platform, which leaves upgrades to us.
    pub(super) async fn start(context: &Context) -> Result<Self, Failure> {
        // A stock would be made anew while upgrades are measured.
        let stage = Stage::build(context, BUCKET_LIMIT, &["--stock", "0"]).await?;
        let stage = stage.counting(&["--hold-upgrades", "--stock", "0"]).await?;
        Ok(Self {
            registry: Database::open(&stage.server, "waangu_control").await?,
            stage,
            schemas: 0,
        })
    }

    /// Onboards tenants of the schema tier until there are so many.
    pub(super) async fn onboard(&mut self, context: &Context, upto: usize) -> Result<(), Failure> {
        let phase = "onboarding in the schema tier";
        context.progress.phase(phase, upto - self.schemas);
        let admin = &self.stage.admin;
        stream::iter(self.schemas..upto)
            .map(|number| async move {
                tenant(admin, &format!("own-{number}"), Tier::Schema).await?;
                context.progress.step();
                Ok::<_, Failure>(())
            })
            .buffer_unordered(CLIENTS)
            .try_collect::<()>()
            .await?;
        self.schemas = upto;
        Ok(())
    }

    /// Onboards one tenant of the shared tier and writes so many more beside it.
    pub(super) async fn share(&self, tenants: usize) -> Result<(), Failure> {
        tenant(&self.stage.admin, "sharing", Tier::Shared).await?;
        self.registry.run(&registry_rows(tenants)).await?;
        let ids = "select id from registry.tenant where slug like 'crowd-%'";
        let bounds = format!("select min(id) || ',' || max(id) from ({ids}) crowd");
        let bounds: String = self.registry.one(&bounds).await?;
        let homes = Database::open(&self.stage.server, "waangu").await?;
        homes
            .run(&format!(
                "insert into waangu.home select id, 'active', 1 from generate_series({bounds}) id;
                 insert into waangu.closure select id, id from generate_series({bounds}) id;
                 analyze waangu.home, waangu.closure"
            ))
            .await
    }

    /// Gives the platform's control plane a package with one more migration, as a deployment does.
    pub(super) async fn deploy(&self, version: &str, sql: &str) -> Result<(), Failure> {
        let path = self.stage.package();
        let text = std::fs::read(&path).of(path.display())?;
        let package = newer(&text, version, Some(sql))?;
        std::fs::write(&path, package).of(path.display())?;
        self.kill_control()?;
        let began = Instant::now();
        loop {
            let modules: Result<Value, _> = self.stage.admin.get("/modules").await;
            let is_there = |item: &Value| item["id"] == ledger20::ID && item["version"] == version;
            if modules.is_ok_and(|found| {
                found
                    .pointer("/items")
                    .and_then(Value::as_array)
                    .is_some_and(|items| items.iter().any(is_there))
            }) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::new(format!("version {version} is not deployed")));
            }
            sleep(LOOK).await;
        }
    }

    /// SIGKILL for the platform's control plane.
    pub(super) fn kill_control(&self) -> Result<(), Failure> {
        let is_control = |process: &&Process| {
            process
                .arguments()
                .get(1)
                .is_some_and(|word| word == "control")
        };
        let family = self.stage.platform.family();
        let control = family.iter().find(is_control);
        control
            .ok_or_else(|| Failure::new("there is no control process"))?
            .signal(Signal::KILL);
        Ok(())
    }

    /// Begins a rollout to everybody at once, and says which it is.
    pub(super) async fn roll_out(&self) -> Result<String, Failure> {
        let wish = json!({ "module": ledger20::ID, "waves": [100], "stop_on": 5 });
        let begun: RolloutView = self
            .stage
            .admin
            .send_json(Method::POST, "/rollouts", &wish, None)
            .await?;
        begun.id.ok_or_else(|| Failure::new("a rollout without id"))
    }

    /// Waits until a rollout is what is asked for; the platform may be away meanwhile.
    pub(super) async fn watch(
        &self,
        id: &str,
        enough: impl Fn(&RolloutView) -> bool,
    ) -> Result<RolloutView, Failure> {
        let began = Instant::now();
        let path = format!("/rollouts/{id}");
        while began.elapsed() < ROLLOUT {
            if let Ok(found) = self.stage.admin.get::<RolloutView>(&path).await
                && (enough(&found) || found.state != "running")
            {
                return Ok(found);
            }
            sleep(LOOK).await;
        }
        Err(Failure::new(format!("rollout {id} does not end")))
    }

    /// How many schemas have this column in their table of parties, over all bucket databases.
    pub(super) async fn count_columns(&self, column: &str) -> Result<i64, Failure> {
        let sql = format!(
            "select count(*) from pg_attribute a
               join pg_class c on c.oid = a.attrelid and c.relname = 'party'
               join pg_namespace n on n.oid = c.relnamespace and n.nspname like 't\\_%'
              where a.attname = '{column}'"
        );
        self.sum(&sql).await
    }

    /// The sum of a count over all bucket databases.
    pub(super) async fn sum(&self, sql: &str) -> Result<i64, Failure> {
        let server = Database::open(&self.stage.server, "postgres").await?;
        let buckets =
            "select datname::text from pg_database where datname like 'waangu\\_schema\\_%'";
        let mut sum = 0;
        for bucket in server.all::<String>(buckets).await? {
            let bucket = Database::open(&self.stage.server, &bucket).await?;
            sum += bucket.one::<i64>(sql).await?;
        }
        Ok(sum)
    }
}

/// A package of a newer version, with one more migration or none.
pub(super) fn newer(package: &[u8], version: &str, sql: Option<&str>) -> Result<String, Failure> {
    let mut package: Value = serde_json::from_slice(package).of("package")?;
    if let Some(field) = package.pointer_mut("/manifest/version") {
        *field = version.into();
    }
    if let Some(sql) = sql
        && let Some(Value::Array(migrations)) = package.get_mut("migrations")
    {
        migrations.push(json!({ "name": version, "sql": sql }));
    }
    Ok(package.to_string())
}

/// Tenants of the shared tier, as onboarding leaves them. Their marks are set once, by the first insert.
pub(super) fn registry_rows(tenants: usize) -> String {
    format!(
        "begin;
         insert into registry.tenant (slug, name, country, profile, tier, cell, reasons, state, observed_generation)
         select 'crowd-' || n, 'crowd-' || n, '{COUNTRY}', 'sme', 'shared', '{CELL}', '{{by SQL}}', 'active', 1
           from generate_series(1, {tenants}) n;
         set local session_replication_role = replica;
         insert into registry.activation (tenant_id, module, version, enabled, ready)
         select t.id, m.id, m.version, true, true
           from registry.tenant t cross join registry.module m
          where t.slug like 'crowd-%' and m.id = '{module}';
         commit;
         analyze registry.tenant, registry.activation",
        module = ledger20::ID
    )
}
