//! Repairs: looks at all cells for what has drifted, what was found, and what the registry wants there.
//!
//! Invariant: at most one repair is open (a unique index), and at most one worker is at it.

use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{CellId, Fault, ModuleId, Placement, RepairId, Slug, TenantId, Tier, fault};

use crate::db::{Session, Tx, column, from_driver, parsed};
use crate::tenants::{Desired, placement_from};

/// Repairs that are remembered.
const REMEMBERED: i64 = 20;

/// One look at all cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// Its id.
    pub id: RepairId,
    /// `pending`, `running`, `succeeded` or `failed`.
    pub state: String,
    /// Whether it only tells.
    pub dry_run: bool,
    /// Who asked for it.
    pub actor: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Its end.
    pub finished_at: Option<OffsetDateTime>,
    /// What was looked at, in numbers.
    pub summary: Value,
    /// Why it failed.
    pub error: Option<String>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub cell: CellId,
    /// In which database.
    pub database: String,
    /// What.
    pub object: String,
    /// What is the matter with it.
    pub found: String,
    /// What was done or, if nothing was, what a person can do.
    pub mend: String,
    /// Whether it was mended.
    pub mended: bool,
}

/// What the registry wants of a tenant in its cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPlace {
    /// Its number.
    pub id: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Where it lives.
    pub placement: Placement,
    /// What it shall be.
    pub desired: Desired,
    /// Version of what is wanted.
    pub generation: i64,
    /// Whether the cells were last seen to have reached that.
    pub settled: bool,
}

/// Tables that stand in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedNamespace {
    /// The module.
    pub module: ModuleId,
    /// Whose, unless it is shared.
    pub tenant: Option<TenantId>,
    /// Migrations that it has had; 0 if that is not known.
    pub steps: i32,
}

impl Session {
    /// Takes the open repair, or returns `None` if there is none or another process is at it. It is held
    /// until the session is dropped.
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then.
    pub async fn claim_repair(&mut self) -> Result<Option<Repair>, Fault> {
        self.claims.push(REPAIR_LOCK);
        let row = self
            .client()?
            .query_one("select pg_try_advisory_lock($1) as taken", &[&REPAIR_LOCK])
            .await
            .map_err(from_driver)?;
        if !column::<bool>(&row, "taken")? {
            self.claims.retain(|held| *held != REPAIR_LOCK);
            return Ok(None);
        }
        let sql = "update registry.repair set state = 'running'
                    where state in ('pending', 'running')
                   returning *";
        let row = self
            .client()?
            .query_opt(sql, &[])
            .await
            .map_err(from_driver)?;
        if row.is_none() {
            self.release_all().await?;
        }
        row.as_ref().map(repair_from).transpose()
    }
}

/// Advisory lock of the worker at a repair.
const REPAIR_LOCK: i64 = -4;

impl Tx<'_> {
    /// Asks for a repair; old ones are forgotten.
    ///
    /// # Errors
    /// `repair-open` when one is not over; `database-unavailable`.
    pub async fn create_repair(&self, actor: &str, dry_run: bool) -> Result<Repair, Fault> {
        let sql = "delete from registry.repair
                    where id in (select id from registry.repair
                                  order by created_at desc
                                 offset $1)
                      and state not in ('pending', 'running')";
        self.execute(sql, &[&REMEMBERED]).await?;
        let id = RepairId::generate();
        let sql =
            "insert into registry.repair (id, dry_run, actor) values ($1, $2, $3) returning *";
        repair_from(&self.one(sql, &[&id.uuid(), &dry_run, &actor]).await?)
    }

    /// Whether the last repair that mended is older than so many seconds, and none is open.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn is_repair_due(&self, seconds: i64) -> Result<bool, Fault> {
        let sql = "select not exists (
                       select from registry.repair
                        where state in ('pending', 'running')
                           or not dry_run
                              and created_at > now() - make_interval(secs => $1::bigint::double precision)
                   ) as due";
        column(&self.one(sql, &[&seconds]).await?, "due")
    }

    /// One repair.
    ///
    /// # Errors
    /// `repair-not-found`; `database-unavailable`.
    pub async fn get_repair(&self, id: RepairId) -> Result<Repair, Fault> {
        let sql = "select * from registry.repair where id = $1";
        let row = self.row(sql, &[&id.uuid()]).await?;
        row.as_ref()
            .map(repair_from)
            .transpose()?
            .ok_or_else(|| fault::REPAIR_NOT_FOUND.fault(format!("there is no repair {id}")))
    }

    /// The newest repair.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn get_last_repair(&self) -> Result<Option<Repair>, Fault> {
        let sql = "select * from registry.repair order by created_at desc limit 1";
        self.row(sql, &[])
            .await?
            .as_ref()
            .map(repair_from)
            .transpose()
    }

    /// What a repair has found.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_findings(&self, id: RepairId) -> Result<Vec<Finding>, Fault> {
        let sql = "select * from registry.repair_finding where repair_id = $1 order by seq";
        let rows = self.rows(sql, &[&id.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Finding {
                    cell: parsed(row, "cell")?,
                    database: column(row, "database")?,
                    object: column(row, "object")?,
                    found: column(row, "found")?,
                    mend: column(row, "mend")?,
                    mended: column(row, "mended")?,
                })
            })
            .collect()
    }

    /// Closes a repair with what was found.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_repair(
        &self,
        id: RepairId,
        findings: &[Finding],
        summary: &Value,
        error: Option<&str>,
    ) -> Result<(), Fault> {
        let text = |part: fn(&Finding) -> &str| findings.iter().map(part).collect::<Vec<&str>>();
        let mended: Vec<bool> = findings.iter().map(|finding| finding.mended).collect();
        let sql = "insert into registry.repair_finding
                   (repair_id, seq, cell, database, object, found, mend, mended)
                   select $1, f.seq::integer, f.cell, f.database, f.object, f.found, f.mend, f.mended
                     from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[])
                          with ordinality as f (cell, database, object, found, mend, mended, seq)";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &text(|finding| finding.cell.as_str()),
                &text(|finding| &finding.database),
                &text(|finding| &finding.object),
                &text(|finding| &finding.found),
                &text(|finding| &finding.mend),
                &mended,
            ],
        )
        .await?;
        let state = if error.is_none() {
            "succeeded"
        } else {
            "failed"
        };
        let sql = "update registry.repair
                      set state = $2
                        , summary = $3
                        , error = $4
                        , finished_at = clock_timestamp()
                    where id = $1";
        self.execute(sql, &[&id.uuid(), &state, summary, &error])
            .await
            .map(drop)
    }

    /// What the registry wants of the live tenants of a cell.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_wanted_places(&self, cell: &CellId) -> Result<Vec<WantedPlace>, Fault> {
        // Whoever has moved, or is on the way, is in two places until the rows left behind are gone.
        let sql = "select t.id, t.slug, t.cell, t.tier, t.bucket, t.epoch, t.desired, t.generation
                        , t.generation = t.observed_generation and m.tenant_id is null as settled
                     from registry.tenant t
                     left join (select distinct tenant_id
                                  from registry.relocation
                                 where $1 in (from_cell, to_cell)
                                   and (finished_at is null and phase <> 'queued'
                                        or clean_at is not null and cleaned_at is null)) m
                            on m.tenant_id = t.id
                    where (t.cell = $1 or m.tenant_id is not null) and t.state <> 'deleted'
                    order by t.id";
        let rows = self.rows(sql, &[&cell.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(WantedPlace {
                    id: TenantId::new(column(row, "id")?)?,
                    slug: parsed(row, "slug")?,
                    placement: placement_from(row)?,
                    desired: parsed(row, "desired")?,
                    generation: column(row, "generation")?,
                    settled: column(row, "settled")?,
                })
            })
            .collect()
    }

    /// The namespaces that stand in a cell.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_wanted_namespaces(
        &self,
        cell: &CellId,
    ) -> Result<Vec<WantedNamespace>, Fault> {
        let sql = "select n.module, n.tenant_id, coalesce(p.steps, 0) as steps
                     from registry.namespace n
                     left join registry.package p on p.module = n.module and p.hash = n.package_hash
                    where n.cell = $1
                    order by n.tenant_id nulls first, n.module";
        let rows = self.rows(sql, &[&cell.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let tenant: Option<i64> = column(row, "tenant_id")?;
                Ok(WantedNamespace {
                    module: parsed(row, "module")?,
                    tenant: tenant.map(TenantId::new).transpose()?,
                    steps: column(row, "steps")?,
                })
            })
            .collect()
    }

    /// The parent of each tenant that has one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_parents(&self) -> Result<Vec<(i64, i64)>, Fault> {
        let sql = "select id, parent_id from registry.tenant where parent_id is not null";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| Ok((column(row, "id")?, column(row, "parent_id")?)))
            .collect()
    }

    /// Lets the reconciler look at tenants again whose wanted version is still this one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn touch_places(&self, places: &[(TenantId, i64)]) -> Result<(), Fault> {
        let ids: Vec<i64> = places.iter().map(|(id, _)| id.number()).collect();
        let generations: Vec<i64> = places.iter().map(|(_, generation)| *generation).collect();
        let sql = "update registry.tenant t
                      set generation = t.generation + 1
                        , retry_at = now()
                        , attempts = 0
                     from unnest($1::bigint[], $2::bigint[]) as place (id, generation)
                    where t.id = place.id
                      and t.generation = place.generation
                      and t.observed_generation = place.generation";
        self.execute(sql, &[&ids, &generations]).await.map(drop)
    }
}

impl WantedPlace {
    /// The schema of one of its modules, unless its tables are shared.
    pub fn own_schema(&self, module: &ModuleId) -> Option<String> {
        (self.placement.tier != Tier::Shared).then(|| self.placement.schema(self.id, module))
    }
}

fn repair_from(row: &Row) -> Result<Repair, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(Repair {
        id: RepairId::from_uuid(id),
        state: column(row, "state")?,
        dry_run: column(row, "dry_run")?,
        actor: column(row, "actor")?,
        created_at: column(row, "created_at")?,
        finished_at: column(row, "finished_at")?,
        summary: column(row, "summary")?,
        error: column(row, "error")?,
    })
}
