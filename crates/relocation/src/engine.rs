//! One move, driven step by step.
//!
//! Invariants:
//! - `lead` holds the claim, freezes and fences: who has lost the claim can do neither;
//! - every attempt has a name of its own, which slot, publication and the note in the target share; a
//!   worker of another attempt finds its note gone and its transaction fails.
//!
//! A [`Relocation`] whose call was dropped half-way must be dropped too: its sessions end with it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Statement};
use waangu_kernel::placement::Tier;
use waangu_kernel::{ModuleId, TenantId};
use waangu_tenancy::{CellAdmin, ModulePackage};

use crate::Error;
use crate::place::{Side, quoted};
use crate::state::{self, Copy, Home, Observed, Step};
use crate::table::{Table, tables};
use crate::verify::Dirty;

mod copy;
mod cutover;
mod follow;
mod leave;

/// The name that slots and publications begin with.
pub(crate) const PREFIX: &str = "waangu_move_";

/// Longest wait for what other tenants' transactions hold up.
const OTHERS: Duration = Duration::from_mins(1);

/// Bounds of a move.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest time that the tenant's writers wait at a stretch.
    pub max_pause: Duration,
    /// How often it is tried to fit into that, with growing time between.
    pub attempts: u32,
    /// Bytes of rows copied in a second, if limited.
    pub rate: Option<u64>,
    /// Bytes of the source's log that the move may hold back.
    pub max_held: i64,
    /// Which protections are on.
    pub safety: Safety,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pause: Duration::from_millis(500),
            attempts: 8,
            rate: None,
            max_held: 4 << 30,
            safety: Safety::Full,
        }
    }
}

/// Protections that a test can take away, to show that they are needed. Never anything but `Full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// All.
    Full,
    /// Writers are not kept out while the last changes are drained.
    WithoutLock,
    /// The source stays open.
    WithoutFence,
}

/// What is to be moved, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// The tenant.
    pub tenant: TenantId,
    /// Where it is; the placement's epoch is the one before the move.
    pub source: Side,
    /// Where it goes; the placement's epoch is one more.
    pub target: Side,
    /// Its modules, as their tables stand at the source.
    pub packages: Vec<ModulePackage>,
    /// Who may read it as part of a subtree.
    pub lineage: Vec<i64>,
    /// Bounds.
    pub options: Options,
}

/// One tenant on its way.
pub struct Relocation {
    request: Request,
    admin: CellAdmin,
    lead: Client,
    reader: Client,
    writer: Client,
    tables: Vec<Table>,
    attempt: String,
    statements: HashMap<String, Statement>,
    dirty: Option<Dirty>,
}

impl Relocation {
    /// Claims the tenant's move and makes the target's tables ready. Nothing is visible to the tenant.
    ///
    /// # Errors
    /// `Busy`; `Refused` when its tables can't be moved; `Database`, `Cell`.
    pub async fn begin(request: Request) -> Result<Self, Error> {
        let (source, target, tenant) = (&request.source, &request.target, request.tenant);
        if target.placement.epoch != source.placement.epoch + 1 {
            return Err(Error::Refused("the epochs don't follow".to_owned()));
        }
        let same_cell =
            source.cell.host == target.cell.host && source.cell.port == target.cell.port;
        if same_cell && source.placement.database(tenant) == target.placement.database(tenant) {
            return Err(Error::Refused("it is there already".to_owned()));
        }
        let lead = source.session(tenant).await?;
        let sql = "select pg_try_advisory_lock(-5, hashint8($1))";
        let claimed: bool = lead.query_one(sql, &[&tenant.number()]).await?.try_get(0)?;
        if !claimed {
            return Err(Error::Busy);
        }
        let admin = CellAdmin::new(target.cell.clone());
        admin.ensure_place(tenant, &target.placement).await?;
        for package in &request.packages {
            let placement = &target.placement;
            admin.ensure_module(tenant, placement, package).await?;
        }
        let reader = source.session(tenant).await?;
        let writer = target.session(tenant).await?;
        let modules: Vec<&ModuleId> = request.packages.iter().map(ModulePackage::id).collect();
        let tables = tables((&reader, source), (&writer, target), tenant, &modules).await?;
        writer.batch_execute(NOTES).await?;
        let mut relocation = Self {
            admin,
            lead,
            reader,
            writer,
            tables,
            attempt: String::new(),
            statements: HashMap::new(),
            dirty: None,
            request,
        };
        relocation.read_attempt().await?;
        Ok(relocation)
    }

    /// The next step, from what both databases hold.
    ///
    /// # Errors
    /// `Database`.
    pub async fn next(&self) -> Result<Step, Error> {
        Ok(state::next(&self.observe().await?))
    }

    /// Does one step. Before [`Step::Open`], the caller makes the registry name the new place.
    ///
    /// # Errors
    /// As [`Error`] says; the next worker goes on from [`Relocation::next`].
    pub async fn apply(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Copy => self.copy().await,
            Step::CutOver => self.cut_over().await,
            Step::Open => self.open().await,
            Step::Finish => self.finish().await,
            Step::Done => Ok(()),
            Step::Refuse(why) => Err(Error::Refused((*why).to_owned())),
        }
    }

    /// Undoes a move that is not fenced yet: nothing of it is left.
    ///
    /// # Errors
    /// `Refused` behind the commit point; `Database`, `Cell`.
    pub async fn abort(&mut self) -> Result<(), Error> {
        if !state::may_abort(&self.observe().await?) {
            return Err(Error::Refused("it is behind the commit point".to_owned()));
        }
        self.finish().await?;
        let (tenant, placement) = (self.request.tenant, &self.request.target.placement);
        if placement.tier == Tier::Shared {
            let clear = self.clear_sql();
            self.writer.batch_execute(&clear).await?;
            return Ok(());
        }
        Ok(self.admin.remove_tenant(tenant, placement).await?)
    }

    async fn observe(&self) -> Result<Observed, Error> {
        let tenant = self.request.tenant;
        let sql =
            "select snapshot is not null from waangu_relocation.progress where tenant_id = $1";
        let copy = match self.writer.query_opt(sql, &[&tenant.number()]).await? {
            None => Copy::None,
            Some(row) if row.try_get(0)? => Copy::Whole,
            Some(_) => Copy::Begun,
        };
        let sql = "select coalesce(bool_or(slot_name = $1 and wal_status <> 'lost'), false)
                        , count(*) > 0 or exists (select from pg_publication
                                                   where starts_with(pubname, $2))
                     from pg_replication_slots where starts_with(slot_name, $2)";
        let row = self
            .reader
            .query_one(sql, &[&self.slot(), &prefix(tenant)])
            .await?;
        Ok(Observed {
            epoch: self.request.source.placement.epoch,
            source: home(&self.reader, tenant).await?,
            target: home(&self.writer, tenant).await?,
            copy,
            slot: row.try_get(0)?,
            remains: row.try_get(1)?,
        })
    }

    /// The name of this attempt's slot and publication.
    fn slot(&self) -> String {
        format!("{}{}", prefix(self.request.tenant), self.attempt)
    }

    async fn read_attempt(&mut self) -> Result<(), Error> {
        let sql = "select attempt from waangu_relocation.progress where tenant_id = $1";
        let number = self.request.tenant.number();
        if let Some(row) = self.writer.query_opt(sql, &[&number]).await? {
            self.attempt = row.try_get(0)?;
        }
        Ok(())
    }

    /// Opens the target. Only behind a fence that everybody can see.
    async fn open(&mut self) -> Result<(), Error> {
        let tenant = self.request.tenant;
        let after = self.request.target.placement.epoch;
        if home(&self.reader, tenant).await? != Some((Home::Moved, after))
            && self.request.options.safety != Safety::WithoutFence
        {
            return Err(Error::Refused("the source is not fenced".to_owned()));
        }
        let placement = &self.request.target.placement;
        self.admin
            .set_lineage(tenant, placement, &self.request.lineage)
            .await?;
        let sql = "insert into waangu.home (tenant_id, state, epoch) values ($1, 'active', $2)
                   on conflict (tenant_id) do update
                   set state = excluded.state
                     , epoch = excluded.epoch
                   where waangu.home.epoch < excluded.epoch";
        self.writer
            .execute(sql, &[&tenant.number(), &after])
            .await?;
        Ok(())
    }

    /// Forgets the note first, so that nobody resumes on a slot that is about to go.
    async fn finish(&mut self) -> Result<(), Error> {
        let tenant = self.request.tenant;
        let sql = "delete from waangu_relocation.progress where tenant_id = $1";
        self.writer.execute(sql, &[&tenant.number()]).await?;
        drop_remains(&self.reader, tenant).await
    }

    /// The statements that take the tenant's rows out of the target.
    fn clear_sql(&self) -> String {
        let number = self.request.tenant.number();
        let mut sql = "begin; set local session_replication_role = replica;".to_owned();
        for table in &self.tables {
            let clear = format!("delete from {} where tenant_id = {number};", table.target);
            sql.push_str(&clear);
        }
        sql + "commit"
    }
}

impl std::fmt::Debug for Relocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relocation({} {})", self.request.tenant, self.attempt)
    }
}

/// Where the target notes how far it is. Nobody but administrators has rights there.
const NOTES: &str = "begin; select pg_advisory_xact_lock(-6, 0);
    create schema if not exists waangu_relocation;
    create table if not exists waangu_relocation.progress (
        tenant_id bigint primary key
      , attempt text not null
      , snapshot text
      , lsn pg_lsn not null
    );
    commit";

fn prefix(tenant: TenantId) -> String {
    format!("{PREFIX}{}_", tenant.number())
}

async fn home(client: &Client, tenant: TenantId) -> Result<Option<(Home, i64)>, Error> {
    let sql = "select state, epoch from waangu.home where tenant_id = $1";
    let Some(row) = client.query_opt(sql, &[&tenant.number()]).await? else {
        return Ok(None);
    };
    let state = match row.try_get(0)? {
        "active" => Home::Active,
        "moved" => Home::Moved,
        _ => Home::Suspended,
    };
    Ok(Some((state, row.try_get(1)?)))
}

/// Drops the slots and publications of all attempts.
async fn drop_remains(client: &Client, tenant: TenantId) -> Result<(), Error> {
    let begun = Instant::now();
    let sql =
        "select slot_name::text, active from pg_replication_slots where starts_with(slot_name, $1)";
    loop {
        let rows = client.query(sql, &[&prefix(tenant)]).await?;
        for row in &rows {
            // A worker that has died may still be reading; its session ends with its connection.
            if !row.try_get::<_, bool>(1)? {
                let name: &str = row.try_get(0)?;
                client
                    .execute("select pg_drop_replication_slot($1)", &[&name])
                    .await?;
            }
        }
        if rows.is_empty() {
            break;
        }
        if begun.elapsed() > OTHERS {
            return Err(Error::Database("a slot stays in use".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sql = "select pubname::text from pg_publication where starts_with(pubname, $1)";
    for row in client.query(sql, &[&prefix(tenant)]).await? {
        let name = quoted(row.try_get(0)?);
        client
            .batch_execute(&format!("drop publication if exists {name}"))
            .await?;
    }
    Ok(())
}
